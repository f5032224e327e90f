"""Whole small runs with corrected labels: the pictures stay, the labels that are trained and judged by do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from thawlab.comparison.comparison import compare_runs
from thawlab.comparison.paired import compare_predictions
from thawlab.data.corrections import Correction, append_correction
from thawlab.errors import ThawlabError, UsageError
from thawlab.evaluation.predictions import load_predictions
from thawlab.files import read_json
from thawlab.judging.evaluate import evaluate
from thawlab.recipe import Recipe
from thawlab.results import read_results
from thawlab.run import RunFolder
from thawlab.runner import train

Start = Callable[..., RunFolder]


@pytest.fixture
def start(recipe: Callable[..., Recipe], photos: Path, tmp_path: Path) -> Start:
    """Train on the photos for an epoch."""

    def begin(*overrides: str) -> RunFolder:
        phases = [{"name": "head", "train": "head", "epochs": 1, "lr": 0.01, "batch_size": 8}]
        return train(recipe(f"data.source={photos}", "data.image_size=16", *overrides, phases=phases), tmp_path / "runs")

    return begin


def labels(folder: RunFolder, split: str = "test") -> dict[str, str]:
    table, classes = load_predictions(folder.predictions(split)), read_json(folder.path / "data.json")["classes"]
    return {name: classes[label] for name, label in zip(table.ids.tolist(), table.labels.tolist(), strict=True)}


def test_a_run_is_trained_and_judged_by_the_corrected_labels(start: Start, photos: Path) -> None:
    before = start()
    pictures = {path: path.read_bytes() for path in photos.rglob("*.png")}
    tested, validated = sorted(labels(before)), sorted(labels(before, "val"))
    trained = [
        name for name in (f"{c}/{k:02}.png" for c in ("blue", "red") for k in range(12)) if name not in {*tested, *validated}
    ]
    table = photos / "corrections.csv"  # among the photos, and taken for none
    append_correction(table, Correction(tested[0], "relabel", "red", "test", "blue"))
    append_correction(table, Correction(tested[1], "exclude"))
    append_correction(table, Correction(validated[0], "relabel", "red"))
    append_correction(table, Correction(trained[0], "exclude"))
    append_correction(table, Correction(trained[1], "relabel", "red"))
    append_correction(table, Correction(trained[2], "unsure"))
    after = start(f"data.corrections={table}")
    assert labels(after) == {**{name: name.split("/")[0] for name in tested if name != tested[1]}, tested[0]: "red"}
    assert labels(after, "val") == {**{name: name.split("/")[0] for name in validated}, validated[0]: "red"}
    then, now = (read_json(folder.path / "data.json") for folder in (before, after))
    assert now["fingerprint"] != then["fingerprint"]
    assert [now["n"][split] - then["n"][split] for split in ("train", "val", "test")] == [-1, 0, -1]
    assert now["per_class"]["train"] == [then["per_class"]["train"][0] - 2, then["per_class"]["train"][1] + 1]
    assert {path: path.read_bytes() for path in photos.rglob("*.png")} == pictures
    assert "corrections: 3 relabelled, 2 excluded (of them 2 in test)" in (after.path / "log.txt").read_text("utf-8")
    assert [d.evidence for d in read_results(after.results).diagnoses if d.id == "corrected-test"] == [
        "data.corrections changes 2 test images: accuracies from before are not comparable"
    ]
    assert evaluate(after).measured.confusion == read_results(after.results).test.confusion


def test_runs_whose_test_labels_differ_are_not_paired_and_those_that_share_them_are(start: Start, tmp_path: Path) -> None:
    plain = start()
    tested = sorted(labels(plain))
    held = {*tested, *labels(plain, "val")}
    trained = next(name for name in (f"blue/{k:02}.png" for k in range(12)) if name not in held)
    append_correction(tmp_path / "test.csv", Correction(tested[0], "relabel", "red"))
    append_correction(tmp_path / "train.csv", Correction(trained, "relabel", "red"))
    other, same = (start(f"data.corrections={tmp_path / name}") for name in ("test.csv", "train.csv"))
    assert labels(other).keys() == labels(plain).keys() and labels(same) == labels(plain)
    with pytest.raises(UsageError, match="were not tested on the same images and labels"):
        compare_runs([plain, other])
    with pytest.raises(UsageError, match="were not tested on the same images and labels"):
        compare_predictions(load_predictions(plain.predictions("test")), load_predictions(other.predictions("test")))
    [effect] = compare_runs([plain, same]).pairs
    assert effect.keys == ("data.corrections",)
    assert not any(found.id == "corrected-test" for found in read_results(same.results).diagnoses)


def test_a_table_that_changed_is_noticed_as_a_list_of_excluded_images_is(start: Start, tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    append_correction(table, Correction("blue/00.png", "exclude", given="blue"))
    folder = start(f"data.corrections={table}")
    append_correction(table, Correction("blue/01.png", "keep"))
    assert start(f"data.corrections={table}").path == folder.path  # nothing that matters
    append_correction(table, Correction("blue/02.png", "relabel", "red"))
    with pytest.raises(ThawlabError, match="the data changed since this run began"):
        start(f"data.corrections={table}")
    with pytest.raises(ThawlabError, match="the data have changed since the training"):
        evaluate(folder)
    table.unlink()
    assert start(f"data.corrections={table}").path == folder.path  # as for images that are gone
    with pytest.raises(UsageError, match=r"^data\.corrections: .*list\.csv: cannot be read as CSV"):
        start(f"data.corrections={table}", "seed=1")
