"""The figures of studies, drawn as those of a report are."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from thawlab.comparison.learning_curve import LearningCurve
from thawlab.report.figures import short
from thawlab.report.style import BLUE, GREEN, ORANGE, figure, to_svg

_COLOURS, _MARKERS = (BLUE, ORANGE, GREEN), ("o", "s", "^", "D")
_MOST_TICKS = 9


def learning_curve_figure(curves: Mapping[str, LearningCurve]) -> str:
    """Draw test error against training images, both logarithmic: every seed, and the fit with its 95 % band.

    Beyond the largest size the fit is dashed, up to twice that size. A curve that was refused shows its points alone.
    """
    from matplotlib.ticker import LogFormatter

    with figure(8.2, 3.8, "learning-curve") as drawing:
        axes = drawing.add_subplot()
        axes.set_xscale("log")
        axes.set_yscale("log")
        for number, (name, curve) in enumerate(curves.items()):
            _draw_curve(axes, short(name, 28), curve, _COLOURS[number % 3], _MARKERS[number // 3 % 4])
        sizes = sorted({point.n for curve in curves.values() for point in curve.points})
        shown = sizes[:: -(-len(sizes) // _MOST_TICKS)] if sizes else []
        axes.set_xticks(shown, [f"{n:,}" for n in shown])
        axes.minorticks_off()
        axes.yaxis.minorticks_on()
        for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            set_formatter(LogFormatter(minor_thresholds=(2, 0.5)))  # without powers of ten
        axes.set_xlabel("training images")
        axes.set_ylabel("test error in %")
        if axes.get_legend_handles_labels()[1]:  # a single curve needs no name
            axes.legend()
        return to_svg(drawing)


def _draw_curve(axes: Any, name: str, curve: LearningCurve, colour: str, marker: str) -> None:
    look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "none"}
    points = [(point.n, 100 * error) for point in curve.points for error in point.errors if error > 0]  # no logarithm of 0
    axes.plot(*zip(*points, strict=True), **look, ms=3, alpha=0.5) if points else None
    means = [(point.n, 100 * point.mean) for point in curve.points if point.mean > 0]
    label = f"{name} (no curve)".strip() if curve.refusal else name
    axes.plot(*(zip(*means, strict=True) if means else ([], [])), **look, ms=6, label=label)
    if curve.band is None:
        return
    n, error, low, high = (np.array(values) for values in curve.band)
    axes.fill_between(n, 100 * np.maximum(low, error / 100), 100 * high, color=colour, alpha=0.15, linewidth=0)
    for inside, style in ((n <= curve.n, "-"), (n >= n[n <= curve.n][-1], "--")):
        axes.plot(n[inside], 100 * error[inside], color=colour, linestyle=style)
