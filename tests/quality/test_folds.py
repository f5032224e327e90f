from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thawlab.quality.folds import fewest_parts, folds_of


@pytest.mark.parametrize(
    ("labels", "groups", "fewest"),
    [
        ([0, 0, 0, 1, 1], None, 2),
        ([0, 0, 0, 1, 1], [0, 0, 1, 2, 2], 1),
        ([0, 0, 0, 2, 2], [0, 1, 2, 3, 4], 2),
        ([0, 0, 1, 1], [0, 0, 0, 0], 1),
    ],
)
def test_a_class_falls_into_as_many_parts_as_it_has_groups(labels: list[int], groups: list[int] | None, fewest: int) -> None:
    assert fewest_parts(np.array(labels), None if groups is None else np.array(groups)) == fewest


def test_every_fold_has_its_share_of_every_class() -> None:
    labels = np.repeat([0, 1, 2], [500, 100, 50])
    folds = folds_of(labels, None, [], 5)
    for label, count in enumerate(np.bincount(labels)):
        assert (np.bincount(folds[labels == label]) == count // 5).all()


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=8), st.integers(0, 5))
def test_what_is_nearly_the_same_is_held_out_together(near: list[tuple[int, int]], seed: int) -> None:
    labels = np.arange(100) % 2
    folds = folds_of(labels, None, near, 4, seed)
    assert folds.min() >= 0 and folds.max() < 4
    assert all(folds[one] == folds[other] for one, other in near)  # at most 9 hang together, of 50 in a class


def test_near_duplicates_join_groups() -> None:
    labels, groups = np.tile([0, 1], 60), np.repeat(np.arange(30), 4)
    folds = folds_of(labels, groups, [(0, 118), (8, 40)], 3)
    assert all(len(set(folds[groups == group].tolist())) == 1 for group in range(30))
    assert folds[0] == folds[118] and folds[8] == folds[40]


def test_a_class_that_hangs_together_is_still_spread_over_the_folds() -> None:
    labels = np.repeat([0, 1], 30)
    film = [(k, k + 1) for k in range(29)]  # each frame looks like the next one
    folds = folds_of(labels, None, film, 3)
    assert len(set(folds[:30].tolist())) == 3
