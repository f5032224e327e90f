from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from thawlab.comparison.comparison import NO_CREDIT, Comparison, describe
from thawlab.errors import ThawlabError
from thawlab.report.comparison_page import in_order, write_comparison
from thawlab.report.style import BLUE, FOREGROUND, GREEN, GRID, MUTED, ORANGE

Compared = Callable[..., Comparison]
NASTY = ["<img src=x onerror=alert(1)> & co", "cost $5 {{ 12345 * 67891 }}", "x" * 200]
QUESTION = "Is <b>lr</b> & dropout worth it?"
GRID_OF_FOUR = {
    "phases.0.lr=0.1 model.dropout=[0.1]": 0.4,
    "phases.0.lr=0.2 model.dropout=[0.1]": 0.95,
    "phases.0.lr=0.1 model.dropout=[0.4]": 0.4,
    "phases.0.lr=0.2 model.dropout=[0.4]": 0.95,
}


class _Page(HTMLParser):
    """The tags of a page, and its words outside figures, in one line."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._words: list[str] = []
        self.feed(text)
        self.text = " ".join("".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in {"td", "th", "li", "span", "br", "p"}:
            self._words.append(" ")

    def handle_data(self, data: str) -> None:
        self._words.append(data)


def _written(comparison: Comparison, folder: Path) -> tuple[str, _Page]:
    """Return a page as text and as it is read, after checking that it needs nothing but itself."""
    text = write_comparison(comparison, folder / "comparison.html").read_text(encoding="utf-8")
    page = _Page(text)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form", "img"}
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert not [colour for colour in (FOREGROUND, MUTED, GRID, BLUE, ORANGE, GREEN) if colour in text.lower()]
    assert "nan" not in re.split(r"\W", page.text) and "None" not in page.text
    return text, page


@pytest.fixture(scope="module")
def grid(compared: Compared) -> Comparison:
    return compared(GRID_OF_FOUR, seeds=6, question="Do they help each other?")


def test_the_page_of_a_grid_says_what_is_shown_and_what_is_not(grid: Comparison, tmp_path: Path) -> None:
    text, page = _written(grid, tmp_path)
    assert "<h1>Do they help each other?</h1>" in text
    assert "4 variants, 24 runs; seeds 0, 1, 2, 3, 4, 5; 60 test images" in page.text
    assert grid.verdict in page.text
    assert grid.best is not None and f"{100 * grid.best.optimism:.2f} points" in page.text
    detectable, needed = grid.detectable(), grid.needed(0.01)
    assert detectable is not None and f"{100 * detectable['difference']:.2f} points" in page.text
    assert needed is not None and "1 point in 80 % of all studies" in page.text
    assert all(f"{needed[key]:,}" in page.text for key in ("seeds", "test_images") if needed[key])
    assert [effect.kind for effect in grid.effects] == ["interaction", "main", "main"]
    for effect in grid.effects:
        assert effect.over_seeds and effect.over_both and effect.logit
        for found in (effect.over_seeds, effect.over_images, effect.over_both):
            assert f"{100 * found.low:+.2f} to {100 * found.high:+.2f}" in page.text
        assert f"{effect.logit[0]:+.3f}" in page.text
        assert effect.verdict.removeprefix(f"{effect.name}: ") in page.text
    assert any(effect.is_shown for effect in grid.effects) and not all(effect.is_shown for effect in grid.effects)
    assert f"The {len(grid.pairs)} pairs of variants" in page.text
    for row in map(describe, grid.variants):
        assert all(f"{100 * row[key]:.2f} %" in page.text for key in ("accuracy", "val_accuracy", "macro_f1"))
        assert f"{100 * row['sd']:.2f}" in page.text and f"{row['parameters']:,}" in page.text
        assert all(f"{phase} {count:,}" in page.text for phase, count in row["trainable_parameters"].items())
    assert all(run.folder.name in page.text for run in grid.runs)
    assert all(key in page.text for key in grid.differences)
    assert text.count("<svg") == 4, "effects, accuracies, validation, costs"


def test_a_grid_lists_its_interactions_first(grid: Comparison) -> None:
    mixed = [*grid.factorial[::-1], *grid.pairs]
    assert [effect.kind for effect in in_order(mixed[::-1])] == ["interaction", "main", "main", *["pair"] * 4]


def test_one_seed_has_no_interval_over_seeds_and_a_confounded_pair_is_refused_first(compared: Compared, tmp_path: Path) -> None:
    overrides = ("phases.0.lr=0.1", "phases.0.lr=0.2", "phases.0.lr=0.2 model.dropout=[0.4]")
    comparison = compared(dict.fromkeys(overrides, 0.6), seeds=1)
    assert comparison.refusals and not comparison.factorial
    text, page = _written(comparison, tmp_path)
    caveats = re.findall(r'<li class="warning">(.*?)</li>', text)
    assert [html.unescape(line) for line in caveats] == [f"{line}." for line in comparison.caveats]
    assert "2 settings" in caveats[0] and "one seed" in caveats[-1]
    assert "<h1>3 variants side by side</h1>" in text and "seed 0;" in page.text
    assert "Cannot be told from one seed" in page.text and "sign-flip p" not in page.text and "over test images" in page.text
    assert "1,000 seeds" not in page.text and "would find" not in page.text


def test_a_confounded_pair_alone_is_shown_as_a_whole_and_credited_to_no_setting(compared: Compared, tmp_path: Path) -> None:
    comparison = compared({"phases.0.lr=0.1": 0.5, "phases.0.lr=0.2 model.dropout=[0.4]": 0.7}, seeds=2)
    text, page = _written(comparison, tmp_path)
    assert "<h2>Effects</h2>" not in text and "<h2>What several settings do together</h2>" in text
    assert comparison.effects == comparison.wholes and comparison.verdict.endswith(NO_CREDIT)
    assert comparison.verdict in page.text
    assert f"<span>{NO_CREDIT}</span>" in text  # it begins a line
    assert "<h2>Variants</h2>" in text and "phases.0.lr" in page.text


def test_seeds_with_images_of_their_own_are_not_told_from_them(compared: Compared, tmp_path: Path) -> None:
    comparison = compared({"phases.0.lr=0.1": 0.5, "phases.0.lr=0.2": 0.7}, seeds=3, own_images=True)
    assert comparison.pairs[0].over_seeds is None and comparison.pairs[0].over_both is not None
    _, page = _written(comparison, tmp_path)
    assert "test images of its own" in page.text and "Other seeds, these images" not in page.text


def test_nothing_but_the_seed_can_be_compared_too(compared: Compared, tmp_path: Path) -> None:
    _, page = _written(compared({"": 0.6}, seeds=2), tmp_path)
    assert "1 variant, 2 runs" in page.text and "Nothing but the seed" in page.text


def test_hostile_names_are_inert_and_present(compared: Compared, tmp_path: Path) -> None:
    overrides = [f"phases.0.lr=0.{number}" for number in (1, 2, 3)]
    comparison = compared(dict.fromkeys(overrides, 0.6), 2, QUESTION, dict(zip(overrides, NASTY, strict=True)))
    text, page = _written(comparison, tmp_path)
    assert all(name in page.text for name in [*NASTY, QUESTION])
    assert "<img" not in text and "<b>lr</b>" not in text and "838114395" not in re.findall(r"(?<![\d.])\d+(?![\d.])", page.text)


def test_the_first_twenty_of_many_effects_are_open(compared: Compared, tmp_path: Path) -> None:
    comparison = compared({f"phases.0.lr=0.{number + 10}": 0.3 + number / 15 for number in range(8)}, seeds=3)
    assert len(comparison.effects) == 28
    last = comparison.pairs[-1]._replace(p_holm=0.001)
    comparison = replace(comparison, pairs=(*(pair._replace(p_holm=1.0) for pair in comparison.pairs[:-1]), last))
    text, _ = _written(comparison, tmp_path)
    first, _, rest = text.partition("<details><summary>The other 8 effects</summary>")
    assert first.count('role="region" aria-label="Effects"') == 1 and rest.count('aria-label="The other effects"') == 1
    assert sum(f"<bdi>{html.escape(effect.name)}</bdi>" in first for effect in comparison.effects) == 20
    assert sum(f"<bdi>{html.escape(effect.name)}</bdi>" in rest for effect in comparison.effects) == 8
    assert re.findall(r'<th scope="row"><bdi>(.*?)</bdi>', first)[0] == html.escape(last.name), "what is shown comes first"
    ids = re.findall(r'<clipPath id="(\w+)"', text)
    assert len(ids) == len(set(ids))


def test_training_sizes_make_a_learning_curve(compared: Compared, tmp_path: Path) -> None:
    sizes = {f"data.train_size={size}": 1 - 1 / size**0.25 for size in (40, 80, 160, 320, 640, 1280)}
    comparison = compared(sizes, seeds=3)
    _, page = _written(comparison, tmp_path)
    [curve] = comparison.learning_curves.values()
    assert "What more training images would bring" in page.text and "1,280" in page.text
    if curve.refusal:
        assert curve.refusal in page.text
    else:
        assert curve.reliance is not None and f"{100 * curve.reliance.value:.2f} %" in page.text
        assert all(note in page.text for note in curve.notes)
    two = compared({name: sizes[name] for name in list(sizes)[:2]}, seeds=3)
    [refused] = two.learning_curves.values()
    assert refused.refusal and f"no curve: {refused.refusal}" in _written(two, tmp_path)[1].text


def test_the_same_comparison_is_the_same_page(grid: Comparison, tmp_path: Path) -> None:
    assert _written(grid, tmp_path)[0] == _written(replace(grid), tmp_path)[0]


def test_a_run_without_its_metrics_is_an_error_that_names_the_file(compared: Compared, tmp_path: Path) -> None:
    comparison = compared({"phases.0.lr=0.1": 0.5, "phases.0.lr=0.2": 0.7}, seeds=1)
    file = comparison.runs[1].folder.metrics
    file.unlink()
    with pytest.raises(ThawlabError, match=re.escape(str(file))):
        write_comparison(comparison, tmp_path / "comparison.html")
    assert not (tmp_path / "comparison.html").exists()
