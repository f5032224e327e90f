from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from thawlab.comparison.runs import ComparedRun, read_run, variants_of
from thawlab.errors import ThawlabError
from thawlab.evaluation.predictions import load_predictions
from thawlab.recipe import Recipe
from thawlab.runner import train

Make = Callable[..., ComparedRun]


def test_runs_that_differ_in_their_seed_alone_are_one_variant(made: Make) -> None:
    runs = [made([f"seed={seed}", f"phases.0.lr={lr}"]) for seed in (2, 0, 1) for lr in (0.01, 0.03)]
    first, second = variants_of(runs)
    assert list(first.runs) == list(second.runs) == [0, 1, 2]
    assert first.values == {"phases.0.lr": 0.01} and second.values == {"phases.0.lr": 0.03}
    assert (first.name, second.name) == ("lr 0.01", "lr 0.03")


def test_variants_keep_the_order_in_which_they_come(made: Make) -> None:
    values = [variant.values["phases.0.lr"] for variant in variants_of([made([f"phases.0.lr={lr}"]) for lr in (0.1, 0.01, 0.03)])]
    assert values == [0.1, 0.01, 0.03]


def test_a_run_repeated_with_its_seed_is_a_variant_of_its_own(made: Make) -> None:
    variants = variants_of([made(), made(["seed=1"]), made()])
    assert [list(variant.runs) for variant in variants] == [[0, 1], [0]] and variants[0].values == {}


@pytest.mark.parametrize("known", [{"data.fingerprint": "f2"}, {"model.weights": "w2"}, {"thawlab": "0.9"}])
def test_runs_of_other_images_weights_or_versions_are_no_repetitions(made: Make, known: dict[str, str]) -> None:
    variants = variants_of([made(), made(["seed=1"], known=known)])
    assert len(variants) == 2 and list(variants[0].values) == list(known)


def test_values_name_every_key_in_which_any_two_differ(made: Make) -> None:
    variants = variants_of([made(), made(["phases.0.lr=0.03"]), made(["model.dropout=[0.5]"])])
    assert [set(variant.values) for variant in variants] == [{"phases.0.lr", "model.dropout"}] * 3
    assert variants[2].values == {"phases.0.lr": 0.01, "model.dropout": [0.5]}


def test_names_are_those_given_then_those_of_the_recipes_then_the_values(made: Make) -> None:
    plain = [made(), made(["phases.0.lr=0.03"])]
    named = [made(["name=slow"]), made(["name=fast", "phases.0.lr=0.03"])]
    given = {plain[0].folder.name: "reference", plain[1].folder.name: "other"}
    assert [variant.name for variant in variants_of(plain, given)] == ["reference", "other"]
    assert [variant.name for variant in variants_of(named)] == ["slow", "fast"]
    assert [variant.name for variant in variants_of(plain)] == ["lr 0.01", "lr 0.03"]


def test_the_same_cell_of_two_studies_is_told_apart(made: Make) -> None:
    runs = [made(), made()]
    for run, study in zip(runs, ("first", "second"), strict=True):
        run.folder.path = Path("runs") / study / run.folder.name  # type: ignore[misc]
    assert [v.name for v in variants_of(runs)] == [f"{study}/{runs[0].folder.name}" for study in ("first", "second")]


def test_names_are_different_for_phases_of_the_same_key(made: Make) -> None:
    names = [v.name for v in variants_of([made(), made(["phases.0.lr=0.1"]), made(["phases.0.lr=0.1", "phases.1.lr=0.1"])])]
    assert names == ["0.lr 0.01, 1.lr 0.001", "0.lr 0.1, 1.lr 0.001", "0.lr 0.1, 1.lr 0.1"]


def test_no_variant_without_runs() -> None:
    assert variants_of([]) == []


def test_a_finished_run_is_read_with_what_its_recipe_does_not_say(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    folder = train(recipe("phases.0.epochs=1", "phases.1.epochs=1"), tmp_path)
    run = read_run(folder)
    data = json.loads((folder.path / "data.json").read_text("utf-8"))
    assert run.settings["data.fingerprint"] == data["fingerprint"] and run.settings["model.weights"] == data["weights"]
    assert run.settings["thawlab"] and run.seed == 0
    for split, answers in (("val", run.val), ("test", run.test)):
        table = load_predictions(folder.predictions(split))
        assert np.array_equal(answers.right, table.predicted == table.labels)
    assert run.test.right.mean() == pytest.approx(run.results.test.accuracy) and run.val.images != run.test.images
    # A lost description of the machine is no reason to show nothing; lost predictions are.
    (folder.path / "environment.json").unlink()
    assert read_run(folder).settings["thawlab"] is None
    folder.predictions("test").unlink()
    with pytest.raises(ThawlabError, match=r"test\.npz"):
        read_run(folder)
