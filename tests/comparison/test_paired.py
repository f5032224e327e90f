import numpy as np
import pytest
from scipy.stats import binom

from thawlab.comparison.paired import compare_predictions
from thawlab.errors import UsageError
from thawlab.evaluation.predictions import Predictions


def table(right: list[bool], name: str = "p") -> Predictions:
    logits = np.array([[0.0, 1.0] if good else [1.0, 0.0] for good in right], dtype=np.float32)
    return Predictions(np.array([f"{name}{k}" for k in range(len(right))]), np.ones(len(right), dtype=np.int64), logits)


def test_discordant_images_are_counted_and_tested_exactly() -> None:
    first = table([True] * 9 + [False] * 1 + [True] * 50)
    second = table([False] * 9 + [True] * 1 + [True] * 50)
    found = compare_predictions(first, second)
    assert (found.n, found.only_first, found.only_second) == (60, 9, 1)
    assert found.p_value == pytest.approx(2 * binom.cdf(1, 10, 0.5))
    assert found.difference == pytest.approx(8 / 60)
    assert found.describe().startswith("On 60 test images the first is better by 13.33 points")


def test_a_difference_that_chance_explains_is_not_called_one() -> None:
    found = compare_predictions(table([True, True, False, True]), table([True, False, True, False]))
    assert found.describe().startswith("No difference shown on 4 test images")
    same = table([True, False])
    assert compare_predictions(same, same).p_value == 1.0


def test_different_images_are_refused() -> None:
    with pytest.raises(UsageError, match="not tested on the same images"):
        compare_predictions(table([True]), table([True], name="q"))
