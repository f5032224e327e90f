"""What a probe found: accuracies of heads on frozen features, with two kinds of interval, and what they show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from thawlab.comparison.paired import PairedComparison
from thawlab.evaluation.metrics.bootstrap import RESAMPLES
from thawlab.evaluation.metrics.measures import accuracy_interval
from thawlab.randomness import derive
from thawlab.values import Interval

# Smaller ones fall below what a float holds and would read as 0.
_LEAST_P = 1e-300


@final
class ProbedBackbone(NamedTuple):
    """A backbone at a size, and what its features cost.

    Attributes:
        backbone: its full name.
        size: of its input in pixels.
        parameters: of the backbone, without a head.
        width: features per image.
        images: whose features were needed.
        computed: of these, the ones that were not in the cache.
        seconds: what computing the features of all images takes, measured when they were computed; None if nobody measured it.
    """

    backbone: str
    size: int
    parameters: int
    width: int
    images: int
    computed: int
    seconds: float | None

    @property
    def label(self) -> str:
        """The end of the backbone's name, without folders or hubs, with its size."""
        return f"{self.backbone.rsplit('/', 1)[-1]} at {self.size} px"


@final
class ProbedHead(NamedTuple):
    """A head on the features of a backbone, fitted to some images a class.

    Attributes:
        of: the backbone.
        head: its kind.
        shots: images a class; None for all.
        n_train: training images.
        tests: the test accuracy of each draw of training images.
        vals: the val accuracy of each draw, with the hyperparameters that were best there.
        chosen: the hyperparameters of each draw.
        ci95_images: how far the mean test accuracy would move with other test images.
        seconds: for fitting and scoring all draws.
    """

    of: ProbedBackbone
    head: str
    shots: int | None
    n_train: int
    tests: tuple[float, ...]
    vals: tuple[float, ...]
    chosen: tuple[dict[str, float], ...]
    ci95_images: Interval
    seconds: float

    @property
    def test(self) -> float:
        """The mean test accuracy over the draws."""
        return float(np.mean(self.tests))

    @property
    def val(self) -> float:
        """The mean val accuracy over the draws."""
        return float(np.mean(self.vals))

    @property
    def ci95_draws(self) -> Interval | None:
        """The 95 % t-interval of the mean test accuracy over draws of training images; None for a single draw."""
        return draws_interval(self.tests)

    def as_json(self) -> dict[str, Any]:
        """Return the head as JSON values."""
        return {
            "backbone": self.of.backbone,
            "size": self.of.size,
            "head": self.head,
            "shots": shots_text(self.shots),
            "n_train": self.n_train,
            "draws": len(self.tests),
            "test_accuracy": self.test,
            "ci95_draws": self.ci95_draws,
            "ci95_images": self.ci95_images,
            "val_accuracy": self.val,
            "chosen": list(self.chosen),
            "seconds": self.seconds,
        }


@final
class Verdict(NamedTuple):
    """What the probe shows of its backbones.

    Attributes:
        best: the head with the best val accuracy, fitted to most images.
        runner_up: the best head on another backbone, or on the same at another size; None where only one was probed.
        paired: the two on the same test images, of the first draw.
    """

    best: ProbedHead
    runner_up: ProbedHead | None = None
    paired: PairedComparison | None = None

    @property
    def shown(self) -> bool:
        """Whether the test images show a difference."""
        return self.paired is not None and self.paired.p_value < 0.05

    @property
    def text(self) -> str:
        """One or two sentences that claim no more than was shown."""
        best, other, pair = self.best, self.runner_up, self.paired
        first = f"{best.of.label} has the best val accuracy ({_percent(best.val)}, head: {best.head}"
        if other is None or pair is None:
            return f"{first}); it is the only one that was probed. On the test images it gets {_percent(best.test)} right."
        first += f"), before {other.of.label} ({_percent(other.val)}, head: {other.head})"
        draw = "" if len(best.tests) == 1 else f", first of {len(best.tests)} draws"
        on = f"{pair.n:,} test images (exact McNemar p = {pair.p_value:.2g}{draw})"
        points = f"{100 * abs(pair.difference):.2f} points"
        if not self.shown:
            smaller = min(best.of, other.of, key=lambda of: of.parameters)
            advice = f"; {smaller.label} has fewer parameters" if best.of.parameters != other.of.parameters else ""
            return f"{first}. No difference shown on {on}{advice}."
        if pair.difference > 0:
            return f"{first}. It is better by {points} on {on}."
        return f"{first}. On {on}, however, {other.of.label} is better by {points}: val does not decide between the two."

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        other, pair = self.runner_up, self.paired
        return {
            "text": self.text,
            "best": _named(self.best),
            "runner_up": other and _named(other),
            "paired": pair
            and {
                "n": pair.n,
                "difference": pair.difference,
                "only_best": pair.only_first,
                "only_runner_up": pair.only_second,
                "p_value": max(pair.p_value, _LEAST_P),
            },
            "difference_shown": self.shown,
        }


@final
@dataclass(frozen=True, repr=False)
class Probe:
    """What a probe of several backbones found; shows itself as a table.

    Attributes:
        name: of the source.
        fingerprint: of its images.
        classes: their names.
        n: images in train, val and test.
        backbones: that were probed, each at each size.
        heads: what was measured.
        verdict: which backbone is best, and whether that is shown.
        notes: what was left out.
    """

    name: str
    fingerprint: str
    classes: tuple[str, ...]
    n: dict[str, int]
    backbones: tuple[ProbedBackbone, ...]
    heads: tuple[ProbedHead, ...]
    verdict: Verdict
    notes: tuple[str, ...]
    columns = ("backbone", "size", "images a class", "best head", "test", "95 % over images", "95 % over draws", "val")

    def best_heads(self, of: ProbedBackbone) -> list[ProbedHead]:
        """Return for each number of images a class the head on a backbone with the best val accuracy, fewest images first."""
        best: dict[int | None, ProbedHead] = {}
        for row in self.heads:
            if row.of == of and (row.shots not in best or row.val > best[row.shots].val):
                best[row.shots] = row
        return list(best.values())

    def rows(self) -> list[list[str]]:
        """Return the table's rows as text: of the heads on a backbone the one that is best on val."""
        return [
            [
                row.of.backbone,
                str(row.of.size),
                shots_text(row.shots),
                row.head,
                _percent(row.test),
                _between(row.ci95_images),
                "–" if row.ci95_draws is None else _between(row.ci95_draws),
                _percent(row.val),
            ]
            for of in self.backbones
            for row in self.best_heads(of)
        ]

    def __repr__(self) -> str:
        rows = [list(self.columns), *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, self.verdict.text, *(f"note: {line}" for line in self.notes)])

    def as_json(self) -> dict[str, Any]:
        """Return the probe as JSON values."""
        return {
            "schema": 1,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "classes": list(self.classes),
            "n": self.n,
            "backbones": [backbone._asdict() for backbone in self.backbones],
            "heads": [row.as_json() for row in self.heads],
            "verdict": self.verdict.as_json(),
            "notes": list(self.notes),
        }


def draws_interval(values: Sequence[float]) -> Interval | None:
    """Return the 95 % t-interval of a mean accuracy, within [0, 1]; None of fewer than two values."""
    if len(values) < 2:
        return None
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return max(float(np.mean(values)) - half, 0.0), min(float(np.mean(values)) + half, 1.0)


def images_interval(right: npt.NDArray[np.bool_]) -> Interval:
    """Return the 95 % interval of a mean accuracy over other test images.

    For one draw it is Wilson's; for several, whose answers to one image are not independent, a bootstrap over images
    (Efron 1979).

    Args:
        right: draws × images, whether each was right.
    """
    draws, n = right.shape
    if draws == 1:
        return accuracy_interval(int(right.sum()), n)
    # Of an image only counts how many draws were right: drawing n images with replacement is one multinomial draw.
    counts = np.bincount(right.sum(axis=0), minlength=draws + 1)
    drawn = np.random.default_rng(derive(0, "bootstrap")).multinomial(n, counts / n, size=RESAMPLES)
    low, high = np.percentile(drawn @ (np.arange(draws + 1) / draws) / n, [2.5, 97.5])
    return float(low), float(high)


def shots_text(shots: int | None) -> str:
    """Return how many images a class, as users write it."""
    return "all" if shots is None else str(shots)


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _between(interval: Interval) -> str:
    return " – ".join(map(_percent, interval))


def _named(row: ProbedHead) -> dict[str, Any]:
    return {"backbone": row.of.backbone, "size": row.of.size, "head": row.head, "shots": shots_text(row.shots)}
