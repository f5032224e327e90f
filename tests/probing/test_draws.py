from __future__ import annotations

import numpy as np
import pytest

from thawlab.errors import UsageError
from thawlab.probing.draws import distinct, draw, parse_shots, planned_shots

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), [12, 30, 20]))


def test_draws_are_nested_stratified_and_seeded() -> None:
    one, five, ten, every = (set(draw(LABELS, shots, 7).tolist()) for shots in (1, 5, 10, None))
    assert one < five < ten < every == set(range(62))
    assert np.bincount(LABELS[sorted(five)]).tolist() == [5, 5, 5]
    assert set(draw(LABELS, 5, 7).tolist()) == five != set(draw(LABELS, 5, 8).tolist())


def test_shots_that_a_class_lacks_are_left_out_with_a_note() -> None:
    kept, notes = planned_shots(LABELS, ("ant", "bee", "cat"), [None, 20, 12, 1])
    assert kept == [1, 12, None]
    assert notes == ["20 images a class are left out: 'ant' has 12 training images"]


def test_shots_that_no_class_has_are_refused() -> None:
    with pytest.raises(UsageError, match="shots = 31: no class has so many training images; the largest has 30"):
        planned_shots(LABELS, ("ant", "bee", "cat"), [1, 31, None])
    with pytest.raises(UsageError, match="'ant' has only 12 training images; ask for fewer, or for all"):
        planned_shots(LABELS, ("ant", "bee", "cat"), [15, 20])


def test_shots_are_read() -> None:
    assert parse_shots(["1", 5, "all"]) == [1, 5, None]
    for wrong in (["0"], ["many"], [-1], [True], ["1.5"]):
        with pytest.raises(UsageError, match=r"shots: '.*' is not a number of at least 1 or all"):
            parse_shots(wrong)
    with pytest.raises(UsageError, match="shots: 5 is given twice"):
        parse_shots(["5", 5])


def test_lists_are_not_empty_have_nothing_twice_and_are_no_text() -> None:
    assert distinct("backbones", ("a", "b")) == ["a", "b"]
    with pytest.raises(UsageError, match="backbones: the list is empty; give at least one"):
        distinct("backbones", [])
    with pytest.raises(UsageError, match="backbones: a is given twice"):
        distinct("backbones", ["a", "b", "a"])
    with pytest.raises(UsageError, match="backbones = 'abc': must be a list"):
        distinct("backbones", "abc")
