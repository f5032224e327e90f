"""What is credited to a setting, what is refused, and the contrasts of full grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from thawlab.comparison import statistics
from thawlab.comparison.effects import one_key_effects
from thawlab.comparison.grids import full_grid
from thawlab.comparison.runs import ComparedRun, variants_of

Make = Callable[..., ComparedRun]
HEAD = {"name": "head", "train": "head", "epochs": 3, "lr": 0.01, "batch_size": 32}
WHOLE = {"name": "all", "train": "all", "epochs": 2, "lr": 1e-3, "batch_size": 32, "augment": ["flip", "shift:0.1"]}
LR, DROPOUT = "phases.0.lr=0.03", "model.dropout=[0.5]"

# What changes, and the keys that a refusal names.
CONFOUNDED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "two keys": ({"overrides": [LR, "model.dropout=[0.5]"]}, {"phases.0.lr", "model.dropout"}),
    "three keys": (
        {"overrides": [LR, "model.dropout=[0.5]", "phases.1.ema=0.9"]},
        {"phases.0.lr", "model.dropout", "phases.1.ema"},
    ),
    "a key and the seed": ({"overrides": [LR, "seed=1"]}, {"phases.0.lr", "seed"}),
    "a key and the images": ({"overrides": [LR], "known": {"data.fingerprint": "f2"}}, {"phases.0.lr", "data.fingerprint"}),
    "a key and the weights": ({"overrides": [LR], "known": {"model.weights": "w2"}}, {"phases.0.lr", "model.weights"}),
    "a key and the version": ({"overrides": [LR], "known": {"thawlab": "0.9"}}, {"phases.0.lr", "thawlab"}),
    "a phase and lr": ({"overrides": [LR], "phases": [HEAD, WHOLE, {**WHOLE, "name": "more"}]}, {"phases.0.lr", "phases.2"}),
    "backbone and image_size": (
        {"overrides": ["model.backbone=cnn5", "data.image_size=24"], "known": {"model.weights": None}},
        {"model.backbone", "data.image_size"},
    ),
    "pretrained and batch_norm": (
        {"overrides": ["model.pretrained=false", "phases.1.batch_norm=train"], "known": {"model.weights": None}},
        {"model.pretrained", "phases.1.batch_norm"},
    ),
    "augment and epochs": (
        {"overrides": ['phases.1.augment=["flip"]', "phases.1.epochs=3"]},
        {"phases.1.augment", "phases.1.epochs"},
    ),
    "train_size and dropout": (
        {"overrides": ["data.train_size=100", "model.dropout=[0.5]"]},
        {"data.train_size", "model.dropout"},
    ),
    "precision and batch_size": (
        {"overrides": ["precision=bfloat16", "phases.0.batch_size=16"]},
        {"precision", "phases.0.batch_size"},
    ),
}
CREDITED: dict[str, tuple[dict[str, Any], str]] = {
    "lr": ({"overrides": [LR]}, "phases.0.lr"),
    "dropout": ({"overrides": ["model.dropout=[0.5]"]}, "model.dropout"),
    "train_size": ({"overrides": ["data.train_size=100"]}, "data.train_size"),
    "precision": ({"overrides": ["precision=bfloat16"]}, "precision"),
    "a phase more, whatever it holds": ({"phases": [HEAD, WHOLE, {**WHOLE, "name": "more"}]}, "phases.2"),
    "a phase less": ({"phases": [HEAD]}, "phases.1"),
    "backbone with its revision and weights": (
        {"overrides": ["model.backbone=speednet", "model.revision=3"], "known": {"model.weights": "w2"}},
        "model.backbone",
    ),
    "pretrained with its weights": (
        {"overrides": ["model.pretrained=false"], "known": {"model.weights": None}},
        "model.pretrained",
    ),
    "source with its images": ({"overrides": ["data.source=other"], "known": {"data.fingerprint": "f2"}}, "data.source"),
    "excluded images": ({"overrides": ["data.exclude=list.txt"], "known": {"data.fingerprint": "f2"}}, "data.exclude"),
    "weights alone": ({"known": {"model.weights": "w2"}}, "model.weights"),
    "the version alone": ({"known": {"thawlab": "0.9"}}, "thawlab"),
}
A, B = (True, True, False, False, True, False), (True, False, True, True, True, False)


@pytest.mark.parametrize("case", CONFOUNDED)
def test_a_confounded_pair_is_refused_and_nothing_is_credited(made: Make, case: str) -> None:
    changes, keys = CONFOUNDED[case]
    variants = variants_of([made(right=A), made(**changes, right=B)])
    effects, refusals = one_key_effects(variants)
    assert effects == [] and len(refusals) == 1
    [refusal] = refusals
    assert set(refusal.keys) == keys
    assert {refusal.first, refusal.second} == {variant.name for variant in variants}
    expected = "no seed in common" if "seed" in keys else f"{len(keys)} settings"
    assert expected in refusal.reason and "\n" not in refusal.reason
    assert full_grid(variants) is None


def test_there_are_twelve_confounded_pairs() -> None:
    assert len(CONFOUNDED) == 12


@pytest.mark.parametrize("case", CREDITED)
def test_a_pair_that_differs_in_one_respect_has_its_effect(made: Make, case: str) -> None:
    changes, key = CREDITED[case]
    effects, refusals = one_key_effects(variants_of([made(right=A), made(**changes, right=B)]))
    assert refusals == [] and len(effects) == 1
    [effect] = effects
    assert effect.keys == (key,) and effect.kind == "pair"
    assert (effect.only_second, effect.only_first) == (2, 1) and effect.difference == pytest.approx(1 / 6)
    assert effect.over_both is None and effect.over_seeds is None and effect.widest is effect.over_images


def test_a_difference_is_the_later_minus_the_earlier_with_its_values_in_the_name(made: Make) -> None:
    first, second = made(right=A), made([LR], right=B)
    [there] = one_key_effects(variants_of([first, second]))[0]
    [back] = one_key_effects(variants_of([second, first]))[0]
    assert there.difference == pytest.approx(-back.difference)
    assert there.name == "lr 0.01 → 0.03" and back.name == "lr 0.03 → 0.01"


def test_what_several_settings_make_together_is_measured_and_credited_to_none(made: Make) -> None:
    rows = [np.arange(400) < count for count in (300, 340)]
    runs = [
        made([*change, f"seed={seed}"], np.roll(rows[v], seed))
        for v, change in enumerate(([], [LR, DROPOUT]))
        for seed in (0, 1, 2)
    ]
    effects, [refusal] = one_key_effects(variants_of(runs))
    assert effects == [] and refusal.whole is not None
    assert refusal.whole.difference == pytest.approx(0.1) and set(refusal.whole.keys) == set(refusal.keys)
    assert "cannot be told; together they make +10.00 points (" in refusal.sentence
    assert refusal.as_json()["whole"]["difference"] == pytest.approx(0.1)


def test_what_cannot_be_paired_is_not_measured_as_a_whole(made: Make) -> None:
    _, [refusal] = one_key_effects(variants_of([made(), made([LR, DROPOUT], images="other")]))
    assert refusal.whole is None and refusal.as_json()["whole"] is None and "together" not in refusal.sentence


def test_of_three_variants_each_pair_is_judged_by_itself(made: Make) -> None:
    runs = [made(), made([LR]), made([LR, "model.dropout=[0.5]"])]
    effects, refusals = one_key_effects(variants_of(runs))
    assert [effect.keys for effect in effects] == [("phases.0.lr",), ("model.dropout",)]
    assert [set(refusal.keys) for refusal in refusals] == [{"phases.0.lr", "model.dropout"}]
    assert "(at " in effects[0].name


def test_a_pair_of_variants_to_which_somebody_gave_names_is_called_by_these(made: Make) -> None:
    runs = [made(), made([LR]), made([LR, "model.dropout=[0.5]"])]
    names = {run.folder.name: name for run, name in zip(runs, ("base", "fast", "fast, dropout"), strict=True)}
    effects, _ = one_key_effects(variants_of(runs, names))
    assert [effect.name for effect in effects] == ["base → fast (lr 0.01 → 0.03)", "fast → fast, dropout (dropout [] → [0.5])"]


def test_a_name_that_only_lists_the_settings_is_none(made: Make) -> None:
    runs = [made(), made(["model.dropout=[0.5]"]), made([LR, "model.dropout=[0.5]"])]
    listed = ["lr 0.01, dropout []", "lr 0.01, dropout [0.5]", "lr 0.03, dropout [0.5]"]  # in another order than the recipe's
    variants = variants_of(runs, {run.folder.name: name for run, name in zip(runs, listed, strict=True)})
    assert [variant.name for variant in variants] == listed and not any(variant.is_named for variant in variants)
    assert all("(at " in effect.name for effect in one_key_effects(variants)[0])


def test_only_seeds_that_both_have_are_compared(made: Make) -> None:
    runs = [made([f"seed={seed}"], A) for seed in (0, 1, 2)] + [made([LR, f"seed={seed}"], B) for seed in (1, 2, 3)]
    [effect] = one_key_effects(variants_of(runs))[0]
    assert effect.seeds == (1, 2) and (effect.only_second, effect.only_first) == (4, 2)


def test_runs_tested_on_other_images_are_refused(made: Make) -> None:
    effects, [refusal] = one_key_effects(variants_of([made(), made([LR], images="other")]))
    assert effects == [] and "same images" in refusal.reason


def test_nothing_but_the_machine_differs(made: Make) -> None:
    effects, refusals = one_key_effects(variants_of([made(right=A), made(right=B)]))
    assert refusals == [] and effects[0].keys == () and "same recipe again" in effects[0].name


def test_where_every_seed_has_test_images_of_its_own_they_are_nested(made: Make) -> None:
    rng = np.random.default_rng(0)
    runs, means = [], []
    for seed in range(4):
        first, second = rng.random(200) < 0.8, rng.random(200) < 0.9
        runs += [made([f"seed={seed}"], first, images=f"of {seed}"), made([LR, f"seed={seed}"], second, images=f"of {seed}")]
        means.append(second.mean() - first.mean())
    [effect] = one_key_effects(variants_of(runs))[0]
    assert effect.by_seed == pytest.approx(means)
    assert effect.over_seeds is None and effect.components is None
    assert effect.over_both == statistics.over_seeds(effect.by_seed) and effect.widest is effect.over_both


def test_where_all_seeds_share_their_images_all_three_questions_are_answered(made: Make) -> None:
    rng = np.random.default_rng(1)
    table = rng.random((2, 3, 300)) < 0.85
    runs = [made([*change, f"seed={seed}"], table[v, seed]) for v, change in enumerate(([], [LR])) for seed in range(3)]
    [effect] = one_key_effects(variants_of(runs))[0]
    d = table[1].astype(float) - table[0]
    assert effect.over_both == statistics.over_both(d) and effect.over_images == statistics.over_images(d)
    assert effect.over_seeds == statistics.over_seeds(d.mean(axis=1)) and effect.components == statistics.components(d)
    assert effect.sign_flip == statistics.sign_flip(d.mean(axis=1))
