"""The figures of a report, each a function of what the run folder holds, returned as SVG with stand-in colours."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from thawlab.evaluation.abstention import coverage_curve
from thawlab.evaluation.metrics.calibration import reliability
from thawlab.evaluation.predictions import Predictions
from thawlab.report.style import ACCENT_RGB, BLUE, FOREGROUND, GREEN, MUTED, ORANGE, figure, to_svg
from thawlab.results import EpochRow, PhaseResult

_MOST_NAMES = 40  # more class names than this cannot be read along an axis
_MOST_SLANTED = 20  # more than this overlap unless they stand upright


def short(name: str, length: int = 18) -> str:
    """Return a class name that fits beside an axis, cut in its middle, since names often differ in their ends.

    Dollar signs are escaped, which matplotlib would read as formulas; control characters, which XML forbids, are replaced.
    """
    shown = "".join("\ufffd" if unicodedata.category(letter) == "Cc" else letter for letter in name)
    cut = shown if len(shown) <= length else f"{shown[: length - length // 2]}…{shown[len(shown) - length // 2 + 1 :]}"
    return cut.replace("$", r"\$")


def class_distribution(classes: Sequence[str], per_class: Mapping[str, Sequence[int]]) -> str:
    """Draw how many images of each class each split has."""
    crowded = len(classes) > _MOST_SLANTED
    with figure(8.2, 3.4 if crowded else 2.6, "distribution") as drawing:
        axes = drawing.add_subplot()
        base = np.zeros(len(classes))
        for split, colour in (("train", BLUE), ("val", ORANGE), ("test", GREEN)):
            counts = np.array(per_class[split])
            axes.bar(np.arange(len(classes)), counts, bottom=base, color=colour, width=0.8, label=f"{split} ({counts.sum():,})")
            base += counts
        if len(classes) <= _MOST_NAMES:
            look: dict[str, Any] = {"rotation": 90, "fontsize": 8} if crowded else {"rotation": 35, "ha": "right"}
            axes.set_xticks(np.arange(len(classes)), [short(name) for name in classes], **look)
        else:
            axes.set_xlabel(f"{len(classes)} classes")
        axes.set_ylabel("images")
        axes.grid(axis="x", visible=False)
        axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
        return to_svg(drawing)


def learning_curves(rows: Sequence[EpochRow], phases: Sequence[PhaseResult]) -> str:
    """Draw loss and validation accuracy over the epochs of all phases, with the boundaries between phases."""
    epochs = np.arange(1, len(rows) + 1)
    has_val = all(row.val_loss is not None for row in rows)
    with figure(8.2, 3.1, "curves") as drawing:
        panels = drawing.subplots(1, 2 if has_val else 1, squeeze=False)[0]
        marker = "o" if len(rows) < 30 else None
        panels[0].plot(epochs, [row.train_loss for row in rows], color=BLUE, marker=marker, ms=3, label="training")
        panels[0].set_title("Loss")
        if has_val:
            panels[0].plot(epochs, [row.val_loss for row in rows], color=ORANGE, marker=marker, ms=3, label="validation")
            panels[1].plot(epochs, [row.val_accuracy for row in rows], color=ORANGE, marker=marker, ms=3)
            panels[1].set_title("Validation accuracy")
        panels[0].legend()
        for panel in panels:
            panel.set_xlabel("epoch")
            panel.margins(x=0.03)
            panel.xaxis.get_major_locator().set_params(integer=True)
            _mark_phases(panel, phases, has_val and panel is panels[-1], rows)
        return to_svg(drawing)


def _mark_phases(panel: Any, phases: Sequence[PhaseResult], mark_best: bool, rows: Sequence[EpochRow]) -> None:
    start = 0
    for index, phase in enumerate(phases):
        if index:
            panel.axvline(start + 0.5, color=MUTED, linestyle="--", linewidth=1)
        look = {"ha": "center", "va": "bottom", "color": MUTED, "fontsize": 8.5}
        centre = start + (phase.epochs_run + 1) / 2
        panel.annotate(short(phase.name), (centre, 1), xycoords=("data", "axes fraction"), **look)
        if mark_best:
            best = start + phase.best_epoch
            panel.plot([best], [rows[best - 1].val_accuracy], "o", ms=8, mfc="none", mec=FOREGROUND)
        start += phase.epochs_run
    panel.set_title(panel.get_title(loc="left"), pad=16)


def row_shares(matrix: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """Return a confusion matrix with each row as shares of its class; zeros for a class without images."""
    counts = np.array(matrix, dtype=np.float64)
    shares: npt.NDArray[np.float64] = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def confusion_matrix(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Draw the confusion matrix, each row as fractions of its class; numbers are written where they can be read."""
    counts, share = np.array(matrix), row_shares(matrix)
    n = len(classes)
    cells = np.empty((n, n, 4))
    cells[..., :3], cells[..., 3] = ACCENT_RGB, share**0.6  # a root, so that rare confusions can be seen
    side = 7.4 if n > _MOST_SLANTED else 6.4 if n > 12 else 5.6
    with figure(side + 0.6, side, "confusion") as drawing:
        axes = drawing.add_subplot()
        axes.imshow(cells, interpolation="nearest", aspect="equal")
        axes.grid(visible=False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("truth")
        if n <= _MOST_NAMES:
            size, names = 9 if n <= _MOST_SLANTED else 8, [short(name) for name in classes]
            look: dict[str, Any] = {"rotation": 45, "ha": "right"} if n <= _MOST_SLANTED else {"rotation": 90}
            axes.set_xticks(np.arange(n), names, fontsize=size, **look)
            axes.set_yticks(np.arange(n), names, fontsize=size)
        if n <= _MOST_SLANTED:
            for row, column in zip(*np.nonzero(counts), strict=True):
                axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", fontsize=8 if n <= 12 else 6)
        return to_svg(drawing)


def declining_curve(predictions: Predictions, temperature: float) -> str:
    """Draw accuracy on the images that are answered against their share, the most confident first."""
    with figure(8.2, 2.4, "declining") as drawing:
        axes = drawing.add_subplot()
        if len(predictions.labels):
            shares, accuracies = coverage_curve(predictions.probabilities(temperature), predictions.labels)
            keep = np.unique(np.linspace(0, len(shares) - 1, 400).astype(int))  # more points cannot be told apart
            axes.plot(100 * shares[keep], accuracies[keep], color=BLUE)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of the images answered, the most confident first")
        axes.set_ylabel("accuracy on them")
        return to_svg(drawing)


def reliability_diagram(predictions: Predictions, temperature: float, bins: int) -> str:
    """Draw accuracy against confidence before and after calibration, with the number of images below."""
    with figure(8.2, 3.4, "reliability") as drawing:
        grid = drawing.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
        cases = (("as trained", 1.0, ORANGE), (f"calibrated, temperature {temperature:.2f}", temperature, GREEN))
        for column, (title, t, colour) in enumerate(cases):
            counts, confidence, accuracy = reliability(predictions.probabilities(t), predictions.labels, bins)
            full = counts > 0
            upper, lower = grid[0, column], grid[1, column]
            upper.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
            upper.plot(confidence[full], accuracy[full], "o-", color=colour, ms=4)
            upper.set_title(title)
            lower.bar((np.arange(bins) + 0.5) / bins, counts / max(counts.sum(), 1), width=0.9 / bins, color=colour)
            lower.set_xlabel("confidence")
        grid[0, 0].set_ylabel("accuracy")
        grid[1, 0].set_ylabel("share")
        return to_svg(drawing)
