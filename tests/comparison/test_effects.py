"""What is credited to a setting, what is refused, and the contrasts of full grids."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from thawlab.comparison import statistics
from thawlab.comparison.effects import Grid, factorial_effects, full_grid, one_key_effects
from thawlab.comparison.runs import ComparedRun, Variant, variants_of

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


def grid_of(made: Make, table: np.ndarray, changes: list[list[list[str]]]) -> list[Variant]:
    """Make the variants of a grid: table is levels × … × seeds × images, changes the overrides of each level of each factor."""
    runs = []
    for cell in itertools.product(*(range(len(levels)) for levels in changes)):
        overrides = [text for place, level in enumerate(cell) for text in changes[place][level]]
        runs += [made([*overrides, f"seed={seed}"], row) for seed, row in enumerate(table[cell])]
    return variants_of(runs)


LRS, DROPOUTS = [[], [LR], ["phases.0.lr=0.1"]], [[], ["model.dropout=[0.5]"]]
SMOOTHING = [[], ["phases.0.label_smoothing=0.1"]]
P, Q, R = "phases.0.lr", "model.dropout", "phases.0.label_smoothing"


def answers(seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((*shape, 3, 400)) < rng.uniform(0.7, 0.95, (*shape, 1, 1))


def test_contrasts_of_two_by_two(made: Make) -> None:
    table = answers(1, 2, 2)
    grid = full_grid(grid_of(made, table, [LRS[:2], DROPOUTS]))
    assert grid is not None
    found = {effect.keys: effect for effect in factorial_effects(grid)}
    m = table.mean(axis=(2, 3))
    assert found[P,].difference == pytest.approx((m[1, 0] + m[1, 1] - m[0, 0] - m[0, 1]) / 2)
    assert found[Q,].difference == pytest.approx((m[0, 1] + m[1, 1] - m[0, 0] - m[1, 0]) / 2)
    assert found[Q, P].difference == pytest.approx((m[1, 1] - m[1, 0]) - (m[0, 1] - m[0, 0]))
    assert [effect.kind for effect in factorial_effects(grid)] == ["interaction", "main", "main"]
    d = (table[1].mean(axis=0) - table[0].mean(axis=0)).astype(float)
    wanted = statistics.over_both(d)
    assert wanted is not None and found[P,].over_both is not None
    assert found[P,].over_both[:3] == pytest.approx(wanted[:3])


def test_contrasts_of_three_by_two_are_each_level_against_the_first(made: Make) -> None:
    table = answers(2, 3, 2)
    grid = full_grid(grid_of(made, table, [LRS, DROPOUTS]))
    assert grid is not None
    effects = factorial_effects(grid)
    m = table.mean(axis=(2, 3))
    wanted = [
        (m[1, 1] - m[1, 0]) - (m[0, 1] - m[0, 0]),
        (m[2, 1] - m[2, 0]) - (m[0, 1] - m[0, 0]),
        m[:, 1].mean() - m[:, 0].mean(),
        m[1].mean() - m[0].mean(),
        m[2].mean() - m[0].mean(),
    ]
    assert [effect.difference for effect in effects] == pytest.approx(wanted)
    assert [effect.name for effect in effects][2:] == ["dropout [] → [0.5]", "lr 0.01 → 0.03", "lr 0.01 → 0.1"]


def test_contrasts_of_two_by_two_by_two(made: Make) -> None:
    table = answers(3, 2, 2, 2)
    grid = full_grid(grid_of(made, table, [LRS[:2], DROPOUTS, SMOOTHING]))
    assert grid is not None
    found = {effect.keys: effect.difference for effect in factorial_effects(grid)}
    y = table.mean(axis=(3, 4))
    # The textbook's columns of signs; an interaction is a difference of differences, averaged over what is left.
    signs = np.array([-1.0, 1.0])
    a, b, c = np.meshgrid(signs, signs, signs, indexing="ij")
    wanted = {
        (P,): (a * y).sum() / 4,
        (Q,): (b * y).sum() / 4,
        (R,): (c * y).sum() / 4,
        (P, Q): (a * b * y).sum() / 2,
        (P, R): (a * c * y).sum() / 2,
        (Q, R): (b * c * y).sum() / 2,
        (P, Q, R): (a * b * c * y).sum(),
    }
    assert {tuple(sorted(keys)): value for keys, value in found.items()} == pytest.approx(
        {tuple(sorted(keys)): value for keys, value in wanted.items()}
    )


def test_effects_on_logits_add_where_accuracies_do_not(made: Make) -> None:
    """Odds are multiplied by three by either setting: an interaction of accuracies, none of logits."""
    counts = [[500, 750], [750, 900]]
    table = np.array([[[np.arange(1000) < n] * 2 for n in row] for row in counts])
    grid = full_grid(grid_of(made, table, [LRS[:2], DROPOUTS]))
    assert grid is not None
    interaction, main, _ = factorial_effects(grid)
    assert interaction.logit is not None and main.logit is not None
    assert interaction.difference == pytest.approx(-0.10) and interaction.logit[0] == pytest.approx(0.0, abs=0.01)
    assert main.logit[0] == pytest.approx(math.log(3), abs=0.01)


def test_an_incomplete_grid_or_a_single_factor_is_no_grid(made: Make) -> None:
    variants = grid_of(made, answers(4, 3, 2), [LRS, DROPOUTS])
    assert full_grid(variants) is not None
    for left_out in range(6):
        assert full_grid(variants[:left_out] + variants[left_out + 1 :]) is None
    assert full_grid(variants[::2]) is None and full_grid([]) is None
    assert full_grid([*variants[:5], variants[0]]) is None


def test_a_full_grid_explains_the_pairs_that_differ_in_several_keys(made: Make) -> None:
    variants = grid_of(made, answers(5, 2, 2), [LRS[:2], DROPOUTS])
    effects, refusals = one_key_effects(variants, skip_refusals=True)
    assert len(effects) == 4 and refusals == []
    assert len(one_key_effects(variants)[1]) == 2


def test_a_family_is_corrected_by_holm_and_intervals_agree_with_p_values(made: Make) -> None:
    rng = np.random.default_rng(9)
    for accuracy in (0.80, 0.83, 0.87, 0.95):
        table = rng.random((2, 2, 3, 600)) < np.array([[0.8, accuracy], [0.8, 0.8]])[..., None, None]
        variants = grid_of(made, table, [LRS[:2], DROPOUTS])
        grid = full_grid(variants)
        assert grid is not None
        for effects in (one_key_effects(variants)[0], factorial_effects(grid)):
            assert [e.p_holm for e in effects] == pytest.approx(statistics.holm([e.widest.p_value for e in effects]))
            for effect in effects:
                low, high = effect.corrected
                assert (low <= 0 <= high) != effect.is_shown
                assert low <= effect.difference <= high and high - low >= effect.widest.high - effect.widest.low - 1e-12
                assert ("no difference shown" in effect.verdict) != effect.is_shown


# Moderation


def of_eight(made: Make, seed: int, k0: float = 0.0, effect: float = 0.0) -> Grid:
    """A grid of 2 × 2 × 2 with three seeds whose means scatter by 1 point, the first setting's effect by `k0` more."""
    rng = np.random.default_rng(seed)
    rank = np.arange(2000) / 2000
    shift = rng.normal(0, k0, 3)
    level = rng.normal(0.7, 0.01, (2, 2, 2, 3)) + np.array([0.0, 1.0])[:, None, None, None] * (shift + effect)
    grid = full_grid(grid_of(made, rank < level[..., None], [LRS[:2], DROPOUTS, SMOOTHING]))
    assert grid is not None
    return grid


def test_contrasts_of_a_grid_borrow_from_each_other(made: Make) -> None:
    effects = factorial_effects(of_eight(made, 0, effect=0.03))
    assert sum(effect.errors.df > 2 for effect in effects) >= 5  # one in ten is taken for an exception by chance
    [main] = [effect for effect in effects if effect.keys == (P,)]
    assert main.is_shown
    own = statistics.over_seeds(main.by_seed)
    assert own is not None and main.over_seeds is not None
    assert main.over_seeds.high - main.over_seeds.low < own.high - own.low


def test_an_effect_that_depends_on_the_seed_borrows_nothing(made: Make) -> None:
    effects = {effect.keys: effect for effect in factorial_effects(of_eight(made, 1, k0=0.2))}
    assert effects[P,].over_seeds == statistics.over_seeds(effects[P,].by_seed)
    assert effects[Q,].errors.df > 2


def test_moderated_effects_of_nothing_are_rarely_shown(made: Make) -> None:
    families = [factorial_effects(of_eight(made, draw)) for draw in range(40)]
    assert sum(any(effect.is_shown for effect in family) for family in families) <= 6
    inside = [e.over_both.low <= 0 <= e.over_both.high for family in families for e in family if e.over_both]
    assert np.mean(inside) >= 0.9


def test_two_by_two_is_too_small_to_borrow(made: Make) -> None:
    grid = full_grid(grid_of(made, answers(1, 2, 2), [LRS[:2], DROPOUTS]))
    assert grid is not None and all(effect.errors.df == 2 for effect in factorial_effects(grid))
