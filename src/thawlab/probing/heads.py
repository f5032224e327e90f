"""Heads on features: each is fitted on training samples, chooses its hyperparameters on val, and can then score others."""

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple, final

import torch
import torch.nn.functional as F

from thawlab.probing.linear import train_linear

# Learning rates are divided by the mean squared length of the features, with which the largest stable one falls.
RATES = tuple(10 ** (k / 3 - 0.5) for k in range(10))
DECAYS = tuple(10 ** (k / 2 - 4) for k in range(10))
# Of more classes than this, every second value of each is tried: a grid costs as much as it has logits.
_MOST_CLASSES = 40
# L2 per sample, from strong to weak, as scikit-learn's C = 1 / (penalty · n).
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 1e-4)
# So many weaker ones in turn that do not improve val end the search.
_PATIENCE, _ITERATIONS = 2, 1000
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
# A feature's standard deviation counts as at least this share of the mean one: few images hardly move some features, and what
# is divided by next to nothing would decide everything.
_FLOOR = 0.1
_ROWS = 1024


@final
class Samples(NamedTuple):
    """Features (float32, n × width) with their labels (int64, n)."""

    features: torch.Tensor
    labels: torch.Tensor


@final
class Fitted(NamedTuple):
    """A head with the hyperparameters that were best on val.

    Attributes:
        score: gives n × classes scores of features; the largest is the answer.
        val_accuracy: with these hyperparameters; of those it is the best, and so a little too good.
        chosen: the hyperparameters.
    """

    score: Callable[[torch.Tensor], torch.Tensor]
    val_accuracy: float
    chosen: dict[str, float]


Head = Callable[[Samples, Samples, int, int], Fitted]


def standardiser(features: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that gives features zero mean and unit variance by the statistics of some, those of training."""
    mean, spread = features.mean(dim=0), features.std(dim=0, correction=0)
    floored = spread.clamp(min=max(float(_FLOOR * spread.mean()), 1e-12))
    return lambda others: (others - mean) / floored


def coordinates(features: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that gives features by coordinates in the span of some, those of training, where these are few.

    All heads see features through products with those of training only, and these products stay: the answers are the same
    (Schölkopf et al. 2001, the representer theorem), and ten samples cost ten coordinates instead of a thousand features.
    """
    if len(features) >= features.shape[1]:
        return lambda others: others
    basis = torch.linalg.qr(features.T).Q
    return lambda others: others @ basis


def grid(features: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the learning rates and weight decays of the linear heads that are trained at once: each with each."""
    every = 1 if classes <= _MOST_CLASSES else 2
    scale = float(features.square().sum(dim=1).mean())
    pairs = torch.cartesian_prod(torch.tensor(RATES[::every]) / scale, torch.tensor(DECAYS[::every]))
    return pairs[:, 0].contiguous(), pairs[:, 1].contiguous()


def linear(train: Samples, val: Samples, classes: int, seed: int) -> Fitted:
    """Fit softmax regression by SGD with a grid of learning rates and weight decays, all at once."""
    rates, decays = grid(train.features, classes)
    heads = train_linear(*train, classes, rates, decays, seed)
    judged = heads.judge(*val)
    # Equal accuracies are common on a small val split; of these heads the one with the lower loss was trained well.
    best = max(range(len(judged)), key=lambda k: judged[k])
    head = heads.one(best)
    chosen = {"rate": float(rates[best]), "decay": float(decays[best]), "heads": len(rates)}
    return Fitted(lambda features: head.logits(features)[:, 0], judged[best][0], chosen)


def logistic(train: Samples, val: Samples, classes: int, seed: int) -> Fitted:  # noqa: ARG001 - nothing random in it
    """Fit logistic regression with L2 by scikit-learn's L-BFGS, to its tolerance, from strong to weak regularisation.

    Every fit starts from the one before it. The search ends when weaker regularisation has not improved val twice in turn, or
    needs too many iterations.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    head = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
    found: list[tuple[tuple[float, float], Fitted]] = []
    for penalty in PENALTIES:
        head.C = 1 / (penalty * len(train.labels))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations, which are reported, tell it
            head.fit(train.features.numpy(), train.labels.numpy())
        score = _affine(torch.from_numpy(head.coef_.copy()), torch.from_numpy(head.intercept_.copy()))
        logits, iterations = score(val.features), int(head.n_iter_.max())
        accuracy = _accuracy(logits, val.labels)
        judged = (accuracy, -float(F.cross_entropy(logits, val.labels)))
        found.append((judged, Fitted(score, accuracy, {"C": head.C, "iterations": iterations})))
        best = max(range(len(found)), key=lambda k: found[k][0])
        if len(found) - 1 - best == _PATIENCE or iterations == _ITERATIONS:
            break
    return found[best][1]


def _affine(weight: torch.Tensor, bias: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that gives the logits of scikit-learn's coefficients, which for two classes are one row."""
    if len(bias) == 1:
        weight, bias = torch.cat([torch.zeros_like(weight), weight]), torch.cat([torch.zeros_like(bias), bias])
    return lambda features: torch.addmm(bias, features, weight.T)


def k_nearest(train: Samples, val: Samples, classes: int, seed: int) -> Fitted:  # noqa: ARG001 - nothing random in it
    """Let the training samples with the largest cosine similarity vote (Cover and Hart 1967); ties go to the first class."""
    unit = F.normalize(train.features, dim=1)
    counts = [k for k in NEIGHBOURS if k <= len(unit)]

    def votes(features: torch.Tensor, most: int) -> torch.Tensor:
        """Return the classes of the nearest training samples, n × `most`, the nearest first."""
        parts = torch.split(F.normalize(features, dim=1), _ROWS)
        return torch.cat([train.labels[(part @ unit.T).topk(most, dim=1).indices] for part in parts])

    def tally(cast: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(cast), classes).scatter_add_(1, cast, torch.ones(cast.shape))

    cast = votes(val.features, counts[-1])
    accuracies = [_accuracy(tally(cast[:, :k]), val.labels) for k in counts]
    best = max(range(len(counts)), key=lambda place: accuracies[place])
    k = counts[best]
    return Fitted(lambda features: tally(votes(features, k)), accuracies[best], {"k": k})


def prototypes(train: Samples, val: Samples, classes: int, seed: int) -> Fitted:  # noqa: ARG001 - nothing random in it
    """Answer with the class whose mean direction is nearest by cosine (Snell et al. 2017, Mensink et al. 2013)."""
    unit = F.normalize(train.features, dim=1)
    sums = torch.zeros(classes, unit.shape[1]).index_add_(0, train.labels, unit)
    centres = F.normalize(sums, dim=1)  # of a sum and of a mean the direction is the same

    def score(features: torch.Tensor) -> torch.Tensor:
        return F.normalize(features, dim=1) @ centres.T

    return Fitted(score, _accuracy(score(val.features), val.labels), {})


def _accuracy(scores: torch.Tensor, labels: torch.Tensor) -> float:
    return float((scores.argmax(dim=1) == labels).double().mean())


# The heads of a probe, by name.
HEADS: Mapping[str, Head] = {"linear": linear, "logistic": logistic, "k-NN": k_nearest, "prototypes": prototypes}
