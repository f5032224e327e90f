from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thawlab.data import dataset
from thawlab.data.images import ArrayImages, FileImages
from thawlab.data.listing import Listing
from thawlab.data.paths import open_path
from thawlab.data.selection import open_data
from thawlab.data.shapes import draw_shapes
from thawlab.errors import UsageError
from thawlab.files import cache_root
from thawlab.plan.resolve import pretrained_input
from thawlab.quality import data_check
from thawlab.quality.data_check import DataCheck, clean_list, write_rows
from thawlab.quality.findings import findings
from thawlab.quality.label_errors import LabelScores
from thawlab.quality.scan import Files
from thawlab.recipe import Recipe, parse_recipe
from thawlab.report.data_page import write_data_page


def recipe_for(source: Path, **data: object) -> Recipe:
    return parse_recipe(
        {"data": {"source": str(source), **data}, "model": {"backbone": "bundled"}, "phases": [{"train": "head", "epochs": 1}]}
    )


def check_data(listing: Listing, recipe: Recipe) -> DataCheck:
    return data_check.check_data(listing, *pretrained_input(recipe.model.backbone, recipe.data), recipe.system)


def save(path: Path, image: np.ndarray, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, kind)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataCheck, Path]:
    """A folder with one of every fault, and what the check finds."""
    root = tmp_path_factory.mktemp("faults") / "photos"
    images, labels = draw_shapes(160, 40, 0)
    rng = np.random.default_rng(0)
    # Some texture, without which drawn shapes of one kind are nearly each other's copies.
    images = np.clip(images + rng.normal(0, 25, images.shape), 0, 255).astype(np.uint8)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        split = "test" if number >= 120 else "train"
        save(root / split / f"class{label}" / f"{number:03}.png", image)
    save(root / "train" / "class0" / "copy_of_test.png", images[130])  # a leak, with another label unless 130 is a class 0
    save(root / "train" / f"class{labels[3]}" / "again.png", images[3])  # an identical file
    save(root / "train" / f"class{labels[5]}" / "mirrored.png", images[5][:, ::-1])
    save(root / "train" / "class1" / "wrong.png", images[0] // 2 + 60, "JPEG")  # an extension that lies
    (root / "train" / "class1" / "broken.png").write_bytes(b"not an image at all")
    (root / "train" / "class1" / "notes.txt").write_text("hello")
    save(root / "train" / "class2" / "long.png", rng.integers(0, 255, (20, 200, 3), dtype=np.uint8))
    return check_data(open_path(root), recipe_for(root)), root


def ids(found: dict[str, object], key: str) -> list[str]:
    return [entry["id"] for entry in found[key]["first"]]  # type: ignore[index]


def test_every_planted_fault_is_found(checked: tuple[DataCheck, Path]) -> None:
    check, _ = checked
    found = check.as_json()
    assert ids(found, "unreadable") == ["train/class1/broken.png"]
    assert ids(found, "ignored") == ["train/class1/notes.txt"]
    assert ids(found, "wrong_extensions") == ["train/class1/wrong.png"]
    assert ids(found, "long") == ["train/class2/long.png"]
    assert found["identical"]["count"] == 2
    [leak] = [pair for pair in found["leaks"]["first"] if pair["similarity"] == 1]
    assert {leak["first"]["split"], leak["second"]["split"]} == {"train", "test"}
    assert any("mirrored" in pair["first"]["id"] + pair["second"]["id"] for pair in found["near_duplicates"]["first"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_clean_list_keeps_the_test_split_and_one_of_each(checked: tuple[DataCheck, Path], tmp_path: Path) -> None:
    check, root = checked
    file = tmp_path / "list.csv"
    file.write_text(write_rows(clean_list(check)), encoding="utf-8")
    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))}
    assert len(rows) == len(check.listing)
    dropped = {path for path, row in rows.items() if row["keep"] == "no"}
    assert {"train/class1/broken.png", "train/class0/copy_of_test.png"} <= dropped
    assert not any(path.startswith("test/") for path in dropped)
    assert len([path for path in dropped if path.endswith(("again.png", "003.png"))]) == 1
    assert all(rows[path]["reason"] for path in dropped)
    from thawlab.data.selection import open_data

    again = check_data(open_data(recipe_for(root, exclude=str(file)).data, recipe_for(root).system), recipe_for(root))
    assert again.as_json()["identical"]["count"] == 0 and not again.leaks and not again.files.reasons


def test_findings_name_the_gravest_first_with_evidence_and_one_action(checked: tuple[DataCheck, Path]) -> None:
    found = findings(checked[0].as_json())
    assert (found[0].severity, found[0].title) == ("error", "Leak between splits")
    assert all(entry.evidence and entry.advice for entry in found)
    assert "1 file with an extension that does not match the content" in {entry.evidence for entry in found}


def test_a_check_reads_every_file_once_and_decodes_it_for_training_too(
    checked: tuple[DataCheck, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, root = checked
    reads: list[Path] = []
    read = FileImages.read
    monkeypatch.setattr(FileImages, "read", lambda self, index: (reads.append(self.paths[index]), read(self, index))[1])
    recipe = recipe_for(root)
    check = check_data(open_path(root), recipe)
    assert len(reads) == len(set(reads)) == len(check.listing)
    assert not list((cache_root() / "decoded").glob("scan-*"))
    _, preprocessing = pretrained_input(recipe.model.backbone, recipe.data)
    decoded = dataset.decode_all(check.listing, preprocessing, recipe.system)
    assert len(reads) == 2 * len(check.listing)  # to hash them; nothing was decoded again
    elsewhere = recipe.system.model_copy(update={"cache_dir": str(tmp_path / "cache")})
    anew = dataset.decode_all(check.listing, preprocessing, elsewhere)
    kept = anew.splits.train
    assert np.array_equal(decoded.splits.train, kept) and np.array_equal(decoded.images[kept], anew.images[kept])
    assert decoded.quarantined == anew.quarantined == (("train/class1/broken.png", "not an image in a supported format"),)


def test_thousands_of_identical_files_are_a_matter_of_their_number() -> None:
    count = 6000
    listing = Listing(
        name="placeholders",
        classes=("a", "b"),
        ids=tuple(map(str, range(count))),
        labels=np.zeros(count, dtype=np.int64),
        splits=np.repeat(["train", "val", "test"], count // 3),
        images=ArrayImages(np.zeros((count, 1, 1, 3), np.uint8)),
    )
    blank = np.zeros((count, 2), np.int64)
    files = Files((b"",) * count, ("",) * count, blank, np.zeros((count, 1), np.uint8), {})
    check = DataCheck(listing, files, (tuple(range(count)),), (), (), None, np.arange(count), "none")
    assert count / 2 < len(check.leaks) < 2 * count
    assert {index for one, other, _ in check.leaks for index in (one, other)} == set(range(count))
    assert all(listing.splits[one] != listing.splits[other] for one, other, _ in check.leaks)
    kept = [row["path"] for row in clean_list(check) if row["keep"] == "yes"]
    assert kept == ["4000"]
    assert check.as_json()["leaks"]["count"] == len(check.leaks)


def test_of_identical_files_no_copy_stays_in_two_splits() -> None:
    splits = np.array(["val", "train", "test", "val", "train", "test"])
    listing = Listing(
        "six", ("a", "b"), tuple("012345"), np.zeros(6, np.int64), splits, ArrayImages(np.zeros((6, 1, 1, 3), np.uint8))
    )
    files = Files((b"",) * 6, ("",) * 6, np.zeros((6, 2), np.int64), np.zeros((6, 1), np.uint8), {})
    check = DataCheck(listing, files, ((0, 1, 2, 3, 4, 5),), (), (), None, np.arange(6), "none")
    assert sorted(check.leaks) == [(0, 2, 1.0), (0, 5, 1.0), (1, 2, 1.0), (2, 3, 1.0), (2, 4, 1.0)]
    assert [row["path"] for row in clean_list(check) if row["keep"] == "yes"] == ["2"]


def test_the_page_is_one_file_that_shows_the_images(checked: tuple[DataCheck, Path], tmp_path: Path) -> None:
    page = write_data_page(checked[0], tmp_path / "check.html").read_text(encoding="utf-8")
    assert page.count("data:image/") > 10
    assert "http://" not in page and "https://" not in page
    assert "train/class1/broken.png" in page


def test_a_clean_folder_has_nothing_to_object_to(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for number in range(40):
        shade = 60 if number % 2 else 180
        texture = np.clip(shade + rng.normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
        save(tmp_path / ("dark" if number % 2 else "light") / f"{number}.png", texture)
    check = check_data(open_path(tmp_path), recipe_for(tmp_path))
    found = check.as_json()
    assert [found[key]["count"] for key in ("unreadable", "identical", "near_duplicates", "leaks", "conflicts")] == [0] * 5


def test_a_backbone_without_weights_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", np.zeros((8, 8, 3), np.uint8))
    save(tmp_path / "b" / "1.png", np.ones((8, 8, 3), np.uint8))
    recipe = parse_recipe(
        {"data": {"source": str(tmp_path)}, "model": {"backbone": "cnn5"}, "phases": [{"train": "head", "epochs": 1}]}
    )
    with pytest.raises(UsageError, match="'cnn5' has no pretrained weights"):
        check_data(open_path(tmp_path), recipe)


def test_hostile_names_are_inert(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    names = ["<script>alert(1)<", "a'b\"c", "שלום", "🍎" * 10]
    for label in names:
        for number in range(4):
            save(tmp_path / "in" / label / f"{'x' * 100}{number}.png", rng.integers(0, 255, (24, 24, 3), dtype=np.uint8))
    check = check_data(open_path(tmp_path / "in"), recipe_for(tmp_path / "in"))
    page = write_data_page(check, tmp_path / "check.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)&lt;" in page
    assert "שלום" in page


def test_labels_of_a_single_group_are_not_judged(tmp_path: Path) -> None:
    images, labels = draw_shapes(40, 40, 0)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        save(tmp_path / "p" / f"class{label}" / f"a_{number}.png", image)
    recipe = recipe_for(tmp_path / "p", group=r"(a)_\d+[.]png")
    check = check_data(open_data(recipe.data, recipe.system), recipe)
    assert check.labels is None and check.as_json()["labels_judged"] is False


@pytest.mark.parametrize(
    ("suspected", "kept"), [((), ["3"]), ((1,), ["0", "3"]), ((0, 2), ["1", "3"]), ((0,), ["3"]), ((0, 1, 2), ["3"])]
)
def test_of_copies_with_different_labels_none_is_kept_unless_one_label_alone_is_believed(
    suspected: tuple[int, ...], kept: list[str]
) -> None:
    """Images 0, 1 and 2 are one file, labelled a, b and a; image 3 is another."""
    listing = Listing(
        "four",
        ("a", "b"),
        tuple("0123"),
        np.array([0, 1, 0, 0]),
        np.repeat("train", 4),
        ArrayImages(np.zeros((4, 1, 1, 3), np.uint8)),
    )
    files = Files((b"",) * 4, ("",) * 4, np.zeros((4, 2), np.int64), np.zeros((4, 1), np.uint8), {})
    scores = (
        LabelScores(np.ones(4), np.zeros(4, np.int64), np.array(suspected, dtype=np.int64), np.repeat("another class", 4))
        if suspected
        else None
    )
    check = DataCheck(listing, files, ((0, 1, 2),), (), (), scores, np.arange(4), "none")
    rows = clean_list(check)
    assert [row["path"] for row in rows if row["keep"] == "yes"] == kept
    assert all(("labelled" in row["reason"] or "same file as 0" in row["reason"]) == (row["keep"] == "no") for row in rows)
