from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from thawlab.comparison.optimism import Best, best_of
from thawlab.comparison.runs import ComparedRun, variants_of

Make = Callable[..., ComparedRun]
LRS = (0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002)


def chosen(made: Make, table: np.ndarray, own_images: bool = False) -> Best | None:
    """Return the best of variants that get these validation images right (variants × seeds × images)."""
    runs = [
        made([f"seed={seed}", f"phases.0.lr={lr}"], val=row, val_images=f"of {seed if own_images else 0}")
        for lr, rows in zip(LRS, table, strict=False)
        for seed, row in enumerate(rows)
    ]
    return best_of(variants_of(runs))


def test_the_best_on_validation_is_chosen_and_its_test_accuracy_told(made: Make) -> None:
    runs = [
        made(right=[True, False], val=[True, True, False]),
        made(["phases.0.lr=0.03"], [True, True], val=[True, False, False]),
    ]
    best = best_of(variants_of(runs))
    assert best is not None
    assert (best.name, best.among, best.test_accuracy) == ("lr 0.01", 2, 0.5) and best.val_accuracy == pytest.approx(2 / 3)
    assert best.as_json()["optimism"] == best.optimism


def test_no_best_of_one_variant_of_other_images_of_none_or_without_a_common_seed(made: Make) -> None:
    lr = ["phases.0.lr=0.03"]
    assert best_of([]) is None and best_of(variants_of([made()])) is None
    assert best_of(variants_of([made(val=[True]), made(lr, val=[True], val_images="other")])) is None
    assert best_of(variants_of([made(val=[]), made(lr, val=[])])) is None
    assert best_of(variants_of([made(), made([*lr, "seed=1"])])) is None


def test_no_optimism_where_nothing_varies_or_one_is_better_by_far(made: Make) -> None:
    same = chosen(made, np.ones((3, 2, 50), dtype=bool))
    assert same is not None and same.optimism == 0.0
    rng = np.random.default_rng(0)
    far = chosen(made, rng.random((2, 3, 2000)) < np.array([0.5, 0.9])[:, None, None])
    assert far is not None and abs(far.optimism) < 0.0005


@pytest.mark.parametrize("own_images", [False, True])
@pytest.mark.parametrize(("k", "seeds"), [(4, 3), (8, 3), (8, 1)])
def test_the_optimism_expected_is_the_true_one_of_equal_variants(made: Make, k: int, seeds: int, own_images: bool) -> None:
    """The best of k equal ones is ahead by sd · E(largest of k normals); around measured accuracies, a third less came out."""
    rng = np.random.default_rng(k)
    expected = []
    for _ in range(40):
        easy = rng.random((1 if not own_images else seeds, 400)) < 0.7
        table = easy | (rng.random((k, seeds, 400)) < 0.5)
        best = chosen(made, table, own_images)
        assert best is not None
        expected.append(best.optimism)
    sd = np.sqrt(0.3 * 0.25 / (400 * seeds))
    largest = rng.standard_normal((20000, k)).max(axis=1).mean()
    true = sd * largest
    assert np.mean(expected) == pytest.approx(true, rel=0.16)


def test_it_is_the_same_every_time(made: Make) -> None:
    table = np.random.default_rng(1).random((4, 3, 300)) < 0.8
    assert chosen(made, table) == chosen(made, table)
