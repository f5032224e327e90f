"""Moderated variances, against the model that they assume."""

from __future__ import annotations

import math

import numpy as np
import pytest

from thawlab.comparison import statistics
from thawlab.comparison.moderation import Prior, moderated, prior_of


def test_variances_that_chance_explains_are_pooled() -> None:
    rng = np.random.default_rng(0)
    prior = prior_of(4.0 * rng.chisquare(3, 4000) / 3, 3)
    assert prior is not None and prior.variance == pytest.approx(4.0, rel=0.05) and prior.df > 50


def test_the_prior_of_variances_is_recovered() -> None:
    # Variances from a scaled inverse chi-squared with 6 degrees of freedom, as Smyth's model has them.
    rng = np.random.default_rng(1)
    true = 6 * 0.5 / rng.chisquare(6, 20_000)
    prior = prior_of(true * rng.chisquare(4, 20_000) / 4, 4)
    assert prior is not None and (prior.variance, prior.df) == (pytest.approx(0.5, rel=0.05), pytest.approx(6, rel=0.15))


def test_a_moderated_variance_lies_between_its_own_and_the_priors() -> None:
    found = statistics.over_seeds([0.01, 0.011, 0.012])
    assert found is not None
    prior = Prior(2.5e-5, 4.0, 30.0)
    result = moderated(found, prior, 1.0)
    assert (result.low + result.high) / 2 == pytest.approx(0.011)
    assert result.errors.df == 6 and result.errors.seeds**2 * 3 == pytest.approx((4 * 2.5e-5 + 2 * 1e-6) / 6)
    assert moderated(found, prior._replace(df=math.inf, pooled_df=14), 1.0).errors == statistics.Errors(
        pytest.approx(math.sqrt(2.5e-5 / 3)), 14, 0.0
    )
    large = statistics.over_seeds([0.0, 0.1, 0.2])
    assert large is not None and moderated(large, prior, 1.0) == large


def test_few_or_vanishing_variances_have_no_prior() -> None:
    assert prior_of(np.ones(5), 2) is None and prior_of(np.array([0.0, 1, 1, 1, 1, 1, 1]), 2) is None
