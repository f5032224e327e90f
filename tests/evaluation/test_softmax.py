"""Softmax and the normal quantile against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from thawlab.evaluation.softmax import log_softmax, normal_quantile, softmax

SCORES = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(-1e4, 1e4, width=32))


@given(SCORES)
def test_rows_are_those_of_scipy_to_the_bit(scores: np.ndarray) -> None:
    exact = scores.astype(np.float64)
    np.testing.assert_array_equal(softmax(scores), scipy.special.softmax(exact, axis=1))
    np.testing.assert_array_equal(log_softmax(scores), scipy.special.log_softmax(exact, axis=1))


@pytest.mark.parametrize("share", [1e-9, 0.025, 0.5, 0.9, 0.975, 0.999999])
def test_the_normal_quantile_is_that_of_scipy(share: float) -> None:
    assert normal_quantile(share) == pytest.approx(scipy.special.ndtri(share), rel=1e-12, abs=1e-15)


def test_no_rows_stay_no_rows() -> None:
    assert softmax(np.zeros((0, 3), np.float32)).shape == log_softmax(np.zeros((0, 3), np.float32)).shape == (0, 3)
