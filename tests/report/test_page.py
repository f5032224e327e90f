from __future__ import annotations

import html
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from thawlab.data.dataset import Dataset
from thawlab.errors import ThawlabError
from thawlab.files import read_json
from thawlab.quality.near_leaks import NearLeaks
from thawlab.report.page import write_report
from thawlab.report.style import BLUE, FOREGROUND, GREEN, GRID, MUTED, ORANGE
from thawlab.results import read_results
from thawlab.run import RunFolder

MakeRun = Callable[..., RunFolder]
NASTY = [
    "<img src=x onerror=alert(1)>",
    "a \"quoted\" & 'single' `tick`",
    "🧀 Käse 👩‍🔬",
    "עברית \u202eleft",
    "cost $5 or $6",
    "{{ 12345 * 67891 }}{% raw %}",
    "<!-- --><script>alert(2)<",
    "x" * 200,
]
TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "main",
    "header",
    "section",
    "div",
    "h1",
    "h2",
    "h3",
    "p",
    "span",
    "b",
    "bdi",
}
TAGS |= {"br", "table", "thead", "tbody", "tr", "th", "td", "button", "ul", "li", "figure", "figcaption", "img", "details"}
TAGS |= {"summary", "pre", "code", "script", "template", "dialog"}


class Page(HTMLParser):
    """What a browser would make of the page outside its figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.inside_svg = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside_svg = self.inside_svg or tag == "svg"
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.inside_svg = self.inside_svg and tag != "svg"

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def _check_self_contained(text: str) -> Page:
    """Check that a page needs nothing but itself and holds no element that nobody wrote."""
    page = Page(text)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, value)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    return page


@pytest.fixture(scope="module")
def nasty_run(make_run: Callable[..., RunFolder]) -> RunFolder:
    return make_run(NASTY, 8, file='<b onclick="x">{:02d}&amp;\'.png')


@pytest.fixture(scope="module")
def nasty_page(nasty_run: RunFolder) -> str:
    return write_report(nasty_run).read_text(encoding="utf-8")


def test_the_report_is_one_file_that_needs_nothing_else(plain_run: RunFolder) -> None:
    path = write_report(plain_run)
    assert path == plain_run.path / "report.html"
    page = _check_self_contained(path.read_text(encoding="utf-8"))
    assert {tag for tag, _ in page.tags} >= {"svg", "img", "table", "h1"}
    assert path.stat().st_size < 2**20


def test_the_report_says_what_was_measured(plain_run: RunFolder) -> None:
    text = " ".join(" ".join(Page(write_report(plain_run).read_text(encoding="utf-8")).words).split())
    results = read_results(plain_run.results)
    low, high = results.test.accuracy_ci95
    assert f"{100 * results.test.accuracy:.2f} %" in text
    assert f"95 % interval {100 * low:.2f} % to {100 * high:.2f} %" in text
    assert f"{results.model.parameters:,}" in text
    assert all(row.class_name in text for row in results.test.per_class)
    assert all(phase.name in text for phase in results.phases)
    assert all(diagnosis.evidence in text for diagnosis in results.diagnoses)
    assert "The temperature was fitted on the validation split." in text
    assert results.digest[:16] in text


def test_hostile_names_are_inert_and_present(nasty_page: str) -> None:
    page = _check_self_contained(nasty_page)
    words = "\n".join(page.words)
    for name in NASTY:
        assert name in words
    assert "alert(1)" not in "".join(
        value or "" for _, attributes in page.tags for name, value in attributes.items() if name not in {"alt", "aria-label"}
    )
    assert html.escape("<img src=x", quote=False) in nasty_page
    assert "<img src=x" not in nasty_page
    assert "838114395" not in [word.strip() for word in page.words], "a template in a name was run"


def test_hostile_file_names_are_inert_and_present(nasty_page: str, nasty_run: RunFolder) -> None:
    assert read_results(nasty_run.results).test.accuracy < 1, "without mistakes no file name is shown"
    assert '<b onclick="x">' in "\n".join(Page(nasty_page).words)
    assert "<b onclick" not in nasty_page


def test_no_element_comes_from_a_name(nasty_page: str) -> None:
    outside_figures = re.sub(r"<svg.*?</svg>", "", nasty_page, flags=re.DOTALL)
    assert {tag for tag, _ in Page(outside_figures).tags} <= TAGS


def test_figures_are_saved_as_files_without_stand_ins(plain_run: RunFolder) -> None:
    report = write_report(plain_run).read_text(encoding="utf-8")
    files = sorted((plain_run.path / "figures").iterdir())
    assert [file.name for file in files] == [
        "confusion.svg",
        "curves.svg",
        "declining.svg",
        "distribution.svg",
        "reliability.svg",
        "shift.svg",
    ]
    for text in [report, *(file.read_text(encoding="utf-8") for file in files)]:
        assert not [colour for colour in (FOREGROUND, MUTED, GRID, BLUE, ORANGE, GREEN) if colour in text.lower()]
    for file in files:
        assert ET.fromstring(file.read_text(encoding="utf-8")).tag.endswith("}svg")
        assert "var(--" not in file.read_text(encoding="utf-8")


def test_figures_of_hostile_names_are_xml(nasty_run: RunFolder, nasty_page: str) -> None:
    assert nasty_page
    for file in (nasty_run.path / "figures").iterdir():
        tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(file.read_text(encoding="utf-8")).iter()}
        assert not tags & {"img", "script", "b", "foreignObject"}


def test_the_same_run_gives_the_same_report(run_copy: RunFolder) -> None:
    first = write_report(run_copy).read_bytes()
    assert write_report(run_copy).read_bytes() == first


def test_two_classes_and_a_test_split_of_two_images(make_run: Callable[..., RunFolder]) -> None:
    run = make_run(["a", "b"], 6, "data.test=0.1", "data.val=0.2")
    assert read_results(run.results).test.n == 2
    _check_self_contained(write_report(run).read_text(encoding="utf-8"))


def test_a_hundred_classes(make_run: Callable[..., RunFolder]) -> None:
    names = [f"class {number:03d}" for number in range(100)]
    page = _check_self_contained(write_report(make_run(names, 4)).read_text(encoding="utf-8"))
    assert set(names) <= {word.strip() for word in page.words}


def test_a_run_without_a_validation_split_says_so(make_run: Callable[..., RunFolder]) -> None:
    run = make_run(["a", "b"], 8, "data.val=0")
    text = " ".join(write_report(run).read_text(encoding="utf-8").split())
    assert "The temperature was fitted" not in text
    assert "there is no validation split" in text
    assert "val (chose the epoch)" not in text
    assert "None" not in re.sub(r"data:image[^\"]*", "", text).replace("None:", "")


def test_the_pairs_confused_most_are_explained_for_both_classes(make_run: Callable[..., RunFolder]) -> None:
    # Noise is confused at random: every second test image is a mistake.
    run = make_run(["left", "right"], 40, "model.backbone=resnet20")
    page = write_report(run).read_text(encoding="utf-8")
    section = page.split("<h2>Confused most</h2>")[1].split("</section>")[0]
    matrix = read_results(run.results).test.confusion
    wrong = [(row, column) for row in (0, 1) for column in (0, 1) if row != column and matrix[row][column]]
    names = ["left", "right"]
    headings = re.findall(r"<h3><bdi>(\w+)</bdi> taken for <bdi>(\w+)</bdi></h3>", section)
    assert sorted(headings) == sorted((names[row], names[column]) for row, column in wrong)
    images = sum(min(matrix[row][column], 3) for row, column in wrong)
    assert section.count("<figure>") == images > 0
    assert len(re.findall(r"the parts that spoke for (?:left|right)", section)) == 2 * images
    for heading, part in zip(headings, section.split("<h3>")[1:], strict=True):
        spoke = re.findall(r"the parts that spoke for (\w+)", part)
        assert spoke[0::2] == [heading[1]] * (len(spoke) // 2) and spoke[1::2] == [heading[0]] * (len(spoke) // 2)


def test_near_duplicates_between_training_and_test_are_shown_as_pairs(
    make_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(dataset: Dataset, _folder: Path) -> NearLeaks:
        train, test = dataset.splits.train, dataset.splits.test
        pairs = ((int(train[0]), int(test[0])), (int(train[1]), int(test[1])))
        return NearLeaks(1, pairs, (0.97, 0.93), tuple(test.tolist()))

    monkeypatch.setattr("thawlab.judging.subject.near_leaks", found)
    run = make_run(["left", "right"], 12)
    near = read_results(run.results).near_duplicates
    assert near is not None and near.count == len(near.first) == 2
    assert near.among_all is not None and near.without is not None
    assert (near.among_all.n, near.without.n) == (near.looked_at, near.looked_at - 2)
    section = (
        write_report(run).read_text(encoding="utf-8").split("<h2>Nearly the same as in training</h2>")[1].split("</section>")[0]
    )
    assert f"2 of {near.looked_at} test images" in section and "1 have too little" in section
    low, high = near.without.accuracy_ci95
    said = f"{100 * near.without.accuracy:.2f}&nbsp;% of {near.without.n} ({100 * low:.2f}&nbsp;% to {100 * high:.2f}&nbsp;%)"
    assert said in section
    assert section.count("<figure>") == 2 and section.count("<img ") == 4
    assert all(f"<bdi>{name}</bdi>" in section for entry in near.first for name in (entry.train, entry.test))


def test_a_report_without_mistakes_says_so(run_copy: RunFolder) -> None:
    import numpy as np

    with np.load(run_copy.images) as table:
        kept = {name: table[name] for name in table.files}
    kept["mistakes"], kept["mistake_rows"] = kept["mistakes"][:0], kept["mistake_rows"][:0]
    np.savez(run_copy.images, **kept)
    assert "every test image was classified correctly" in write_report(run_copy).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "missing",
    [
        "results.json",
        "data.json",
        "environment.json",
        "metrics.jsonl",
        "recipe.toml",
        "predictions/test.npz",
        "predictions/pictures.npz",
    ],
)
def test_a_run_that_lacks_a_file_is_an_error_that_names_it(run_copy: RunFolder, missing: str) -> None:
    run_copy.report.unlink(missing_ok=True)
    (run_copy.path / missing).unlink()
    with pytest.raises(ThawlabError, match="is missing") as caught:
        write_report(run_copy)
    assert str(run_copy.path / missing) in str(caught.value)
    assert not run_copy.report.exists()


@pytest.mark.parametrize(
    "damaged",
    ["results.json", "data.json", "environment.json", "metrics.jsonl", "predictions/test.npz", "predictions/pictures.npz"],
)
@pytest.mark.parametrize("keep", [0, 40])
def test_a_run_with_a_damaged_file_is_an_error_that_names_it(run_copy: RunFolder, damaged: str, keep: int) -> None:
    file = run_copy.path / damaged
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ThawlabError) as caught:
        write_report(run_copy)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("lacking", ["gap", "phases", "model", "test"])
def test_results_that_lack_a_part_are_refused(run_copy: RunFolder, lacking: str) -> None:
    run_copy.report.unlink(missing_ok=True)
    results = read_json(run_copy.results)
    del results[lacking]
    run_copy.results.write_text(json.dumps(results), encoding="utf-8")
    message = rf"results\.json: cannot be read: {lacking}: field required; `thawlab repair` restores it"
    with pytest.raises(ThawlabError, match=message):
        write_report(run_copy)
    assert not run_copy.report.exists()


def test_results_of_a_newer_version_are_refused(run_copy: RunFolder) -> None:
    run_copy.results.write_text(json.dumps({**read_json(run_copy.results), "schema": 2}), encoding="utf-8")
    with pytest.raises(ThawlabError, match=r"results\.json: has schema 2, this thawlab reads 1; use the version that wrote it"):
        write_report(run_copy)


def test_images_that_were_left_out_are_named(run_copy: RunFolder) -> None:
    file = run_copy.path / "data.json"
    data = read_json(file)
    data["quarantined"] = {"count": 1, "files": [{"id": "<i>bad</i>.png", "reason": "empty file"}]}
    file.write_text(json.dumps(data), encoding="utf-8")
    words = "".join(Page(write_report(run_copy).read_text(encoding="utf-8")).words)
    assert "1 images were left out" in words
    assert "<i>bad</i>.png: empty file" in words


def test_a_run_can_be_moved_before_its_report_is_made(run_copy: RunFolder, tmp_path: Path) -> None:
    run_copy.path.rename(tmp_path / "moved run ü")
    moved = RunFolder(tmp_path / "moved run ü")
    assert write_report(moved).is_file()


def test_a_thousand_classes_make_a_report_that_opens(make_run: Callable[..., RunFolder]) -> None:
    folder = make_run([f"class {number:04} <b>'ü" for number in range(1000)], 4, 'phases=[{"epochs" = 1}]')
    report = write_report(folder)
    assert report.stat().st_size < 5_000_000
    text = report.read_text(encoding="utf-8")
    assert "class 0999 &lt;b&gt;" in text and "<b>'ü" not in text


def test_ten_test_images_with_an_absent_class_make_a_report(make_run: Callable[..., RunFolder]) -> None:
    folder = make_run(["train/a", "train/b", "train/c", "test/a", "test/b"], 5, "data.val=0.0", 'phases=[{"epochs" = 2}]')
    results = read_results(folder.results)
    assert results.test.n == 10 and results.test.per_class[2].n == 0 and results.novelty is None
    page = write_report(folder).read_text(encoding="utf-8")
    assert "95 % interval" in page and ">nan" not in page
