"""Slices: what is planted is found and named, what is not there is not, and the correction keeps its promise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import fisher_exact

import thawlab
from thawlab.evaluation.predictions import Predictions
from thawlab.files import read_json
from thawlab.judging.slices import slices_of, worse_p_value
from thawlab.recipe import parse_recipe
from thawlab.report.page import write_report
from thawlab.robustness import Slices
from thawlab.run import RunFolder
from thawlab.runner import train

NULLS = 200
HARD = np.array([0.65, 0.8, 0.85, 0.9])


def table(right: np.ndarray, labels: np.ndarray, classes: int = 4) -> Predictions:
    predicted = np.where(right, labels, (labels + 1) % classes)
    return Predictions(np.array([f"{k}" for k in range(len(labels))]), labels, np.eye(classes, dtype=np.float32)[predicted])


def null_set(seed: int, n: int = 600) -> Slices:
    """Measure a classifier whose mistakes have nothing to do with eight properties, some of which hang together.

    Classes are not equally hard, and in every other set some properties differ between classes.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    base = rng.normal(size=n) + (labels if seed % 2 else 0)
    numbers = {f"p{k}": base + rng.normal(size=n) if k < 3 else rng.normal(size=n) for k in range(6)}
    names = {"folder": rng.choice([f"f{k}" for k in range(8)], n), "column camera": rng.choice(["a", "b", "c"], n)}
    return slices_of(table(rng.random(n) < HARD[labels], labels), numbers, names)


@pytest.fixture(scope="module")
def found() -> list[Slices]:
    """What is found in sets where there is nothing."""
    return [null_set(seed) for seed in range(NULLS)]


def test_on_null_sets_a_slice_is_hardly_ever_named(found: list[Slices]) -> None:
    alarms = sum(any(part.shown for part in one.slices) for one in found)
    assert alarms <= 0.05 * NULLS
    assert all(one.looked_at == 6 * 5 + 8 + 3 == len(one.slices) for one in found)
    uncorrected = sum(any(part.p_value < 0.05 for part in one.slices) for one in found)
    assert uncorrected > 0.5 * NULLS, "without the correction most of these sets would raise a false alarm"
    assert (
        "no kind of picture is shown to be worse than others of the same classes; 41 slices of 600 test images"
        in found[0].words[0]
    )


def test_the_intervals_hold_for_all_slices_together(found: list[Slices]) -> None:
    half = found[::2]  # in which no property says anything of the class
    missed = sum(
        any(not part.accuracy_interval[0] <= HARD.mean() <= part.accuracy_interval[1] for part in one.slices) for one in half
    )
    assert missed <= 0.07 * len(half)


def test_a_planted_slice_is_found_with_the_numbers_that_belong_to_it() -> None:
    rng = np.random.default_rng(0)
    labels, light = rng.integers(0, 4, 1000), rng.uniform(0, 255, 1000)
    right = rng.random(1000) < np.where(light < 51, 0.6, 0.9)
    found = slices_of(table(right, labels), {"brightness": light, "contrast": rng.random(1000)}, {})
    [shown] = [part for part in found.slices if part.shown]
    assert (shown.of, shown.n) == ("brightness", 200) and shown.name.startswith("the darkest 20 % (brightness ")
    dark = light <= shown.high
    assert shown.accuracy == right[dark].mean() and shown.rest == right[~dark].mean()
    assert shown.expected == pytest.approx(right.mean(), abs=0.02)  # all classes are equally hard
    assert found.words[1].startswith("bad at the darkest 20 %") and "10 slices" in found.words[0]


def test_of_one_class_the_test_is_that_of_fisher() -> None:
    rng = np.random.default_rng(0)
    for n in (12, 60, 2000):
        right, members = rng.random(n) < 0.8, rng.random(n) < 0.3
        cells = [[(right & part).sum(), (~right & part).sum()] for part in (members, ~members)]
        reference = fisher_exact(cells, alternative="less").pvalue
        assert worse_p_value(right, members, np.zeros(n, dtype=np.int64)) == pytest.approx(reference, rel=1e-6)


def test_of_several_classes_the_test_is_what_shuffling_within_them_gives() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    right, members = rng.random(90) < np.array([0.4, 0.7, 0.9])[labels], rng.random(90) < np.array([0.6, 0.3, 0.2])[labels]
    few = []
    for _ in range(20_000):
        order = np.lexsort((rng.random(90), labels))
        shuffled = np.empty(90, dtype=bool)
        shuffled[np.argsort(labels, kind="stable")] = right[order]
        few.append((shuffled & members).sum() <= (right & members).sum())
    assert worse_p_value(right, members, labels) == pytest.approx(np.mean(few), abs=0.012)


def test_what_hard_classes_explain_is_not_named_and_what_they_do_not_is() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 500)
    light = np.where(labels == 0, 50, 150) + rng.normal(0, 20, 1000)
    hard = rng.random(1000) < np.where(labels == 0, 0.6, 0.95)
    found = slices_of(table(hard, labels), {"brightness": light}, {})
    dark = found.slices[0]
    assert not any(part.shown for part in found.slices) and dark.accuracy < dark.rest - 0.2
    assert dark.expected == pytest.approx(0.6, abs=0.03)
    worse = hard & ((light > 35) | (rng.random(1000) < 0.3))
    [shown] = [part for part in slices_of(table(worse, labels), {"brightness": light}, {}).slices if part.shown]
    assert shown.name.startswith("the darkest") and shown.accuracy < shown.expected - 0.1


def test_properties_that_say_nothing_are_left_out_with_the_reason() -> None:
    labels = np.repeat([0, 1], 100)
    right = np.arange(200) % 3 > 0
    names = {
        "folder": np.where(labels == 0, "test/ant", "test/bee"),
        "column one": np.full(200, "x"),
        "column id": np.array([f"n{k}" for k in range(200)]),
        "column year": np.array([str(1990 + k % 20) for k in range(200)]),
    }
    found = slices_of(table(right, labels), {"size": np.full(200, 32.0)}, names)
    assert {part.of for part in found.slices} == {"column year"}, "numbers in a column make bins"
    assert found.left_out == {
        "folder": "says the class, which the report judges",
        "column one": "has no two values with 10 images each",
        "column id": "has no two values with 10 images each",
        "size": "is the same for all, or the images are too few",
    }
    few = slices_of(table(right[:15], labels[:15]), {"size": np.arange(15.0)}, {})
    assert few.looked_at == 0 and few.words[0].startswith("no kind of picture")
    assert slices_of(table(right[:0], labels[:0]), {}, {}).n == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on coloured pictures of a manifest, of which the dark test pictures, all from one camera, have wrong labels."""
    root, rng = tmp_path_factory.mktemp("slices"), np.random.default_rng(0)
    colours = {"blue": (60, 60, 230), "green": (60, 200, 60), "red": (230, 60, 60)}
    lines = ["path,label,split,camera"]
    for split, count in (("train", 60), ("test", 80)):
        for truth, colour in colours.items():
            for index in range(count):
                dark = split == "test" and index % 4 == 0
                height, width = rng.integers(20, 60, 2)
                pixels = np.array(colour) * (0.25 if dark else 1) + rng.normal(0, 12, (height, width, 3))
                name = f"{split}-{truth}-{index}.png"
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name)
                label = {"blue": "green", "green": "red", "red": "blue"}[truth] if dark else truth
                lines.append(f"{name},{label},{split},{'old' if dark else 'new'}")
    (root / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = {
        "data": {"source": str(root / "list.csv"), "image_size": 16, "val": 0.2},
        "model": {"backbone": "speednet"},
        "phases": [{"train": "all", "epochs": 6, "batch_size": 16, "lr": 0.003}],
        "system": {"threads": 1, "cache_dir": str(root / "cache"), "device": "cpu"},
    }
    folder = train(parse_recipe(table), root / "runs")
    write_report(folder)
    return folder


def test_dark_pictures_with_wrong_labels_are_found_in_pictures_and_named(copy: RunFolder) -> None:
    result = thawlab.evaluate(copy.path, slices=True)
    slices = result.slices
    assert slices is not None and result.shift is None
    darkest = next(part for part in slices.slices if part.name.startswith("the darkest"))
    assert darkest.shown and darkest.accuracy < 0.6 and darkest.rest > 0.85
    camera = next(part for part in slices.slices if part.name == "column camera old")
    assert camera.shown and camera.n == 60 and camera.accuracy < 0.6
    assert not [part for part in slices.slices if part.shown and part.of in {"size", "aspect ratio"}]
    assert any(line.startswith("bad at the darkest") for line in slices.words)
    assert Slices.model_validate(read_json(copy.slices)) == slices and result.as_json()["slices"] == read_json(copy.slices)
    page = " ".join(copy.report.read_text(encoding="utf-8").split())
    assert "<h2>Kinds of pictures</h2>" in page and "Bad at the darkest" in page
    assert (copy.path / "figures" / "slices.svg").is_file()


def test_the_schema_is_held(copy: RunFolder) -> None:
    thawlab.evaluate(copy.path, slices=True)
    document = json.loads(copy.slices.read_text(encoding="utf-8"))
    assert set(document) == {
        *("schema", "split", "source", "n", "pictures", "accuracy", "accuracy_ci95", "looked_at", "left_out", "slices", "words")
    }
    assert set(document["slices"][0]) == {
        *(
            "of",
            "name",
            "low",
            "high",
            "n",
            "accuracy",
            "accuracy_interval",
            "rest",
            "expected",
            "p_value",
            "p_corrected",
            "shown",
        )
    }


def test_sizes_are_those_of_the_files_as_they_are_seen(tmp_path: Path, run: RunFolder) -> None:
    from thawlab.data.dataset import load_other
    from thawlab.data.sources import open_source
    from thawlab.judging.slices import numbers_of
    from thawlab.models.saved import load_model
    from thawlab.recipe import System

    (tmp_path / "photos" / "red").mkdir(parents=True)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (900, 600), (200, 10, 10)).save(tmp_path / "photos" / "red" / "a.jpg")
    Image.new("RGB", (900, 600), (200, 10, 10)).save(tmp_path / "photos" / "red" / "b.jpg", exif=turned)
    card = load_model(run.model).card
    source = str(tmp_path / "photos")
    dataset, _ = load_other(source, card.classes, card.preprocessing, System(cache_dir=str(tmp_path / "cache")))
    numbers = numbers_of(dataset, open_source(source), dataset.splits.test, None, 1)
    assert numbers["size"].tolist() == [600, 600]
    assert numbers["aspect ratio"].tolist() == pytest.approx([1.5, 1 / 1.5])
    assert numbers["sharpness"].tolist() == [0, 0]


def test_a_report_with_slices_is_the_same_twice_and_a_damaged_file_is_named(copy: RunFolder) -> None:
    thawlab.evaluate(copy.path, slices=True)
    first = copy.report.read_bytes()
    assert write_report(copy).read_bytes() == first
    copy.slices.write_bytes(copy.slices.read_bytes()[:50])
    with pytest.raises(thawlab.ThawlabError, match=r"slices\.json: is damaged; `thawlab evaluate RUN --slices` writes it again"):
        write_report(copy)
