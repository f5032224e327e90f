from __future__ import annotations

import datetime
import hashlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from small_recipes import MINIMAL, TEXT, one_line

from thawlab.errors import UsageError
from thawlab.recipe import Data, Recipe, parse_part, parse_recipe
from thawlab.recipe_text import with_overrides


def fraction(low: float = 0.0, **bounds: Any) -> st.SearchStrategy[float]:
    return st.floats(low, 1.0, exclude_max=True, **bounds).map(abs)


words = st.text("abcXYZ019_.-é", min_size=1, max_size=12)
texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    head = draw(st.lists(st.integers(1, 4096), max_size=3))
    rates = max(len(head), 1)
    phases = st.fixed_dictionaries(
        {"epochs": st.integers(1, 500)},
        optional={
            "name": words,
            "train": st.sampled_from(["head", "all", "last:3", "stages:12"]),
            "batch_size": st.integers(1, 10_000),
            "optimizer": st.sampled_from(["sgd", "adam", "adamw"]),
            "lr": st.floats(1e-12, 1e6),
            "warmup": fraction(),
            "layer_decay": st.floats(0.0, 1.0, exclude_min=True),
            "batch_norm": st.sampled_from(["eval", "train"]),
            "augment": st.lists(texts, max_size=3),
            "patience": st.integers(1, 50),
        },
    )
    return draw(
        st.fixed_dictionaries(
            {
                "data": st.fixed_dictionaries(
                    {"source": texts},
                    optional={
                        "train_size": st.integers(2, 10**7),
                        "val": fraction(),
                        "test": fraction(exclude_min=True),
                        "image_size": st.integers(4, 4096),
                        "normalize": st.sampled_from(["weights", "unit", "symmetric"]),
                    },
                ),
                "model": st.fixed_dictionaries(
                    {"backbone": texts, "head": st.just(head)},
                    optional={"pretrained": st.booleans(), "dropout": st.lists(fraction(), min_size=rates, max_size=rates)},
                ),
                "phases": st.lists(phases, min_size=1, max_size=4),
            },
            optional={
                "name": words,
                "seed": st.integers(0, 2**63),
                "evaluation": st.fixed_dictionaries({"ece_bins": st.integers(1, 1000)}),
                "system": st.fixed_dictionaries({}, optional={"device": texts, "workers": st.integers(1, 64), "data_dir": texts}),
            },
        )
    )


def test_defaults_are_filled_in_so_that_the_recipe_is_fully_resolved() -> None:
    recipe = parse_recipe(tomllib.loads(TEXT))
    assert recipe.data.val == 0.1 and recipe.data.train_size == 10_000
    assert recipe.model.head == (128, 64)
    assert [phase.name for phase in recipe.phases] == ["head", "train"]
    assert recipe.phases[1].augment == ("flip", "shift:0.1")


@settings(max_examples=40, deadline=None)
@given(tables())
def test_a_recipe_survives_toml_with_the_same_digest(table: dict[str, Any]) -> None:
    recipe = parse_recipe(table)
    again = parse_recipe(tomllib.loads(recipe.to_toml()))
    assert again == recipe
    assert again.digest == recipe.digest


@settings(max_examples=15, deadline=None)
@given(tables(), st.fixed_dictionaries({"device": texts, "threads": st.integers(1, 64), "workers": st.integers(1, 64)}))
def test_the_digest_does_not_see_what_must_not_change_a_result(table: dict[str, Any], system: dict[str, Any]) -> None:
    recipe, moved = parse_recipe(table), parse_recipe({**table, "system": system})
    assert moved.system != recipe.system
    assert moved.digest == recipe.digest


@pytest.mark.parametrize(
    "override", ["seed=1", "data.val=0.2", "model.pretrained=false", "phases.0.lr=0.01", "evaluation.ece_bins=10", "name=other"]
)
def test_the_digest_sees_every_key_that_determines_the_run(override: str) -> None:
    assert parse_recipe(with_overrides(MINIMAL, [override])).digest != parse_recipe(MINIMAL).digest


def test_the_digest_is_the_sha256_of_sorted_compact_json_of_what_differs_from_the_defaults() -> None:
    text = '{"data":{"source":"digits"},"model":{"backbone":"bundled"},"phases":[{"epochs":1}]}'
    assert parse_recipe(MINIMAL).digest == hashlib.sha256(text.encode()).hexdigest()
    text = text.replace('"epochs":1', '"epochs":1,"lr":0.5').replace("}]}", '}],"seed":2}')
    changed = with_overrides(MINIMAL, ["phases.0.lr=0.5", "seed=2", "system.device=cpu"])
    assert parse_recipe(changed).digest == hashlib.sha256(text.encode()).hexdigest()


def test_no_default_ever_changes_since_digests_leave_defaults_out() -> None:
    defaults = parse_recipe(MINIMAL).model_dump(mode="json")
    pinned: dict[str, dict[str, Any]] = {
        "data": {
            "train_size": None,
            "val": 0.1,
            "test": 0.2,
            "image_size": None,
            "resize": "upsample",
            "normalize": "weights",
            "exclude": None,
            "corrections": None,
            "group": None,
            "long_tail": None,
        },
        "model": {"pretrained": True, "head": [], "dropout": []},
        "evaluation": {"calibrate": True, "ece_bins": 15, "tta": None, "ood": False},
    }
    phase = {
        "name": "train",
        "train": "all",
        "batch_size": 64,
        "optimizer": "adam",
        "lr": 1e-3,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": "constant",
        "warmup": 0.0,
        "layer_decay": 1.0,
        "label_smoothing": 0.0,
        "batch_norm": None,
        "augment": [],
        "patience": None,
        "accumulate": 1,
        "clip": None,
        "ema": None,
        "head_lr": 1.0,
        "bias_lr": 1.0,
        "views": None,
        "sizes": [],
        "plateau_factor": 0.1,
        "plateau_patience": 10,
        "min_lr": 0.0,
        "l2_head": 0.0,
        "l2_backbone": 0.0,
        "loss": "cross-entropy",
        "focal_gamma": 2.0,
        "class_weights": None,
        "sampling": "shuffle",
        "logit_adjustment": 0.0,
        "monitor": "accuracy",
    }
    assert {key: defaults[key] for key in ("name", "seed", "precision")} == {"name": "run", "seed": 0, "precision": "float32"}
    for part, values in pinned.items():
        assert {key: defaults[part][key] for key in values} == values
    assert {key: defaults["phases"][0][key] for key in phase} == phase


def test_the_digest_is_the_same_in_another_process_and_for_another_order_of_keys() -> None:
    program = (
        "import json, sys; from thawlab.recipe import parse_recipe; print(parse_recipe(json.loads(sys.argv[1])).digest)"
        "; assert 'torch' not in sys.modules"
    )
    backwards = {key: MINIMAL[key] for key in reversed(MINIMAL)}
    done = subprocess.run([sys.executable, "-c", program, json.dumps(backwards)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == parse_recipe(MINIMAL).digest


def test_a_default_that_is_written_out_is_the_same_recipe() -> None:
    written = with_overrides(MINIMAL, ["data.val=0.1", "phases.0.lr=1e-3", "phases.0.batch_size=64", "data.train_size=none"])
    assert parse_recipe(written).digest == parse_recipe(MINIMAL).digest


def test_a_recipe_cannot_be_changed() -> None:
    recipe = parse_recipe(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "place", "hint"),
    [
        ("data.train_sise=5", "data.train_sise is not a key", "did you mean 'train_size'?"),
        ("phases.0.learning=5", "phases.0.learning is not a key", ""),
        ("phases.0.epoch=5", "phases.0.epoch is not a key", "did you mean 'epochs'?"),
        ("sead=5", "sead is not a key", "did you mean 'seed'?"),
        ("system.devise=cpu", "system.devise is not a key", "did you mean 'device'?"),
        ("phases.0.optimizer=adamm", "phases.0.optimizer = 'adamm'", "did you mean 'adam'?"),
        ("data.resize=upsampel", "data.resize = 'upsampel'", "did you mean 'upsample'?"),
        ("phases.0.train=heat", "phases.0.train: 'heat'", "did you mean 'head'?"),
        ("phases.0.train=last:0", "phases.0.train: 'last:0'", "'last:N'"),
        ("phases.0.lr=-1", "phases.0.lr = -1", "greater than 0"),
        ("phases.0.lr=nan", "phases.0.lr", "greater than 0"),
        ("phases.0.lr=high", "phases.0.lr = 'high'", "number"),
        ("phases.0.warmup=1", "phases.0.warmup", "leave nothing of the 1 epochs"),
        ("phases=[]", "phases", "at least 1"),
        ("phases.0.plateau_factor=0.5", "phases.0.plateau_factor: ", 'no effect without schedule = "plateau"'),
        ("phases.0.plateau_patience=5", "phases.0.plateau_patience: ", 'no effect without schedule = "plateau"'),
        ("phases.0.min_lr=1e-5", "phases.0.min_lr: ", 'no effect without schedule = "plateau"'),
        ("phases.0.focal_gamma=1", "phases.0.focal_gamma: ", 'no effect without loss = "focal"'),
        ("phases.0.plateau_factor=1", "phases.0.plateau_factor = 1", "less than 1"),
        ("phases.0.class_weights=balance", "phases.0.class_weights = 'balance'", 'must be "balanced", or a list'),
        ("phases.0.class_weights=[1, 0]", "phases.0.class_weights = [1, 0]", "above 0 for each class"),
        ("phases.0.class_weights=[]", "phases.0.class_weights = []", "above 0 for each class"),
        ("phases.0.class_weights=[true]", "phases.0.class_weights = [True]", "above 0 for each class"),
        ("phases.0.class_weights=[nan]", "phases.0.class_weights", "above 0 for each class"),
        ("phases.0.monitor=f1", "phases.0.monitor = 'f1'", "macro_f1"),
        ("data.long_tail=0.5", "data.long_tail = 0.5", "greater than or equal to 1"),
        ("data.val=1.0", "data.val = 1.0", "less than 1"),
        ("data.train_size=10.5", "data.train_size = 10.5", "integer"),
        ("model.pretrained=yes", "model.pretrained = 'yes'", "boolean"),
        ("model.dropout=[0.1, 0.2]", "model.dropout: give one rate", "(1)"),
        ("model.dropout=[1.0]", "model.dropout: every rate", "[0, 1)"),
        ("model.head=[0]", "model.head", "at least 1"),
        ("name=a/b", "name = 'a/b'", "pattern"),
        ("data=5", "data", "object"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_place_in_one_line(override: str, place: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_recipe(with_overrides(MINIMAL, [override]), "my.toml")
    text = one_line(error)
    assert text.startswith("my.toml: ") and place in text and hint in text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.long_tail=10", "data.train_size=50"], "data.long_tail: already says how many images of each class to use; leave"),
        (["phases.0.l2_backbone=1e-4", "phases.0.train=head"], "phases.0.l2_backbone: has no effect with train = "),
        (["phases.0.schedule=plateau", "phases.0.min_lr=0.1"], "phases.0.min_lr: 0.1 is above lr = 0.001"),
        (
            ["phases.0.class_weights=balanced", "phases.0.sampling=balanced"],
            'phases.0.class_weights: "balanced" and sampling = "balanced" would even out the classes twice; keep one of them',
        ),
        (
            ["phases.0.class_weights=balanced", "phases.0.logit_adjustment=1"],
            'phases.0.class_weights: "balanced" and logit_adjustment = 1.0 would even out the classes twice',
        ),
        (
            ["phases.0.sampling=balanced", "phases.0.logit_adjustment=1"],
            'phases.0.sampling: "balanced" and logit_adjustment = 1.0 would even out the classes twice',
        ),
    ],
)
def test_settings_that_make_no_sense_together_are_refused_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_recipe(with_overrides(MINIMAL, overrides))
    assert message in one_line(error)


@pytest.mark.parametrize(
    "overrides",
    [
        ["phases.0.schedule=plateau", "phases.0.plateau_factor=0.5", "phases.0.min_lr=1e-6", "phases.0.l2_backbone=1e-4"],
        ["phases.0.class_weights=[1, 2.5, 3]", "phases.0.loss=focal", "phases.0.focal_gamma=0.5", "phases.0.monitor=macro_f1"],
        ["phases.0.class_weights=balanced", "data.long_tail=100"],
        ["phases.0.class_weights=[1, 2]", "phases.0.sampling=balanced"],
        ["phases.0.logit_adjustment=1", "phases.0.loss=focal"],
    ],
)
def test_settings_for_unequal_classes_survive_toml(overrides: list[str]) -> None:
    recipe = parse_recipe(with_overrides(MINIMAL, overrides))
    again = parse_recipe(tomllib.loads(recipe.to_toml()))
    assert again == recipe and again.digest == recipe.digest != parse_recipe(MINIMAL).digest
    assert parse_recipe(recipe.model_dump(mode="json", exclude_unset=True)) == recipe


@pytest.mark.parametrize("missing", ["data", "model", "phases"])
def test_a_missing_part_is_named(missing: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_recipe({key: value for key, value in MINIMAL.items() if key != missing})
    assert one_line(error) == f"recipe: {missing} is missing"


def test_an_unknown_key_with_no_near_spelling_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as error:
        parse_recipe(with_overrides(MINIMAL, ["evaluation.xyz=1"]))
    assert "(known here: calibrate, ece_bins, tta, ood)" in one_line(error)


def test_values_of_python_are_taken_as_they_are() -> None:
    table = with_overrides(MINIMAL, {"seed": np.int64(3), "system.data_dir": Path("copies"), "phases.0.lr": np.float64(0.5)})
    recipe = parse_recipe(table)
    assert (recipe.seed, recipe.system.data_dir, recipe.phases[0].lr) == (3, "copies", 0.5)
    for wrong in (object(), {1, 2}, datetime.date(2024, 1, 1)):
        with pytest.raises(UsageError) as error:
            parse_recipe(with_overrides(MINIMAL, {"seed": wrong}))
        assert "have no place in a recipe" in one_line(error)


def test_the_shared_recipe_of_the_tests_is_valid(recipe: Callable[..., Recipe]) -> None:
    assert recipe("seed=3").seed == 3


@pytest.mark.parametrize(
    "layout",
    ["class", "split/class", "*/*/split/*/class", "class/split", "group/class", "split/group/class", "split/class/group"],
)
def test_a_layout_gives_each_level_of_folders_a_role(layout: str) -> None:
    assert parse_part(Data, {"source": "x", "layout": layout}, "data").layout == layout


@pytest.mark.parametrize(
    "layout", ["", "split", "class/class", "split/split/class", "class/*/*", "class/split/group", "clas", "split//class", "*/"]
)
def test_a_layout_that_makes_no_sense_is_refused(layout: str) -> None:
    with pytest.raises(UsageError, match="must give the role of each level of folders"):
        parse_part(Data, {"source": "x", "layout": layout}, "data")
