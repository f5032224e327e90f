"""Variances of few seeds that borrow from each other: an empirical Bayes estimate for a family of contrasts.

With three seeds a variance has two degrees of freedom, and a t interval is more than twice as wide as with many. The contrasts
of one grid are many, and their variances over the seeds alike.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from thawlab.comparison.statistics import Differences, Errors, Estimate, estimate

_LEAST_VARIANCES = 6  # of fewer, as a grid of two by two has, the prior is itself too uncertain
_UNLIKELY = 0.1  # so unlikely a variance is its own


class Prior(NamedTuple):
    """What a family of variances tells of each: their typical value, worth so many degrees of freedom, and what all have."""

    variance: float
    df: float
    pooled_df: float


def prior_of(variances: Differences, df: float) -> Prior | None:
    """Estimate the prior of variances that are alike: a scaled inverse chi-squared, fitted to their logarithms.

    Smyth (2004, "Linear models and empirical Bayes methods for assessing differential expression", section 6.2): where the
    variances scatter no more than chance makes them, they are pooled; the more they do, the less each borrows from the others.

    Returns:
        None for fewer than six, or if one is zero.
    """
    if len(variances) < _LEAST_VARIANCES or not (variances > 0).all():
        return None
    logs = np.log(variances) - special.digamma(df / 2) + math.log(df / 2)
    excess = float(logs.var(ddof=1) - special.polygamma(1, df / 2))
    if excess <= 0:
        return Prior(math.exp(float(logs.mean())), math.inf, df * len(variances))
    own = 2 * float(optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-6, 1e6))
    return Prior(math.exp(float(logs.mean()) + float(special.digamma(own / 2)) - math.log(own / 2)), own, df * len(variances))


def moderated(found: Estimate, prior: Prior, scale: float) -> Estimate:
    """Return an interval whose variance over seeds is its own and the prior's, each weighed by its degrees of freedom.

    A variance that is larger than the prior makes likely borrows nothing (as Phipson et al. 2016, "Robust hyperparameter
    estimation protects against hypervariable genes", let it): what a setting does may really depend on the seed.

    Args:
        found: the interval from its own variance.
        prior: of contrasts whose squared weights add up to one.
        scale: to what the squared weights of this one add up.
    """
    errors, seeds = found.errors, found.errors.df + 1
    own, typical = errors.seeds**2 * seeds, prior.variance * scale
    if stats.f.sf(own / typical, errors.df, min(prior.df, prior.pooled_df)) < _UNLIKELY:
        return found
    variance = typical if math.isinf(prior.df) else (prior.df * typical + errors.df * own) / (prior.df + errors.df)
    df = min(prior.df + errors.df, prior.pooled_df)
    return estimate((found.low + found.high) / 2, Errors(math.sqrt(variance / seeds), df, errors.images))
