"""The page of a probe: which backbone suits the images, with what each costs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup

from thawlab.probing.result import Probe, ProbedBackbone, ProbedHead, shots_text
from thawlab.report.figures import short
from thawlab.report.page import write_page
from thawlab.report.style import BLUE, GREEN, ORANGE, figure, for_page, to_svg

_COLOURS, _STYLES, _MARKERS = (BLUE, ORANGE, GREEN), ("-", "--", ":", "-."), "osD^v"


def write_probe(probe: Probe, path: Path) -> Path:
    """Write the page of a probe; a self-contained HTML file.

    Raises:
        ThawlabError: if the file cannot be written.
    """
    by_shots: dict[str, dict[ProbedBackbone, list[ProbedHead]]] = {}
    for row in probe.heads:
        by_shots.setdefault(shots_text(row.shots), {}).setdefault(row.of, []).append(row)
    return write_page(
        "probe.html",
        path,
        probe=probe,
        tables=dict(reversed(by_shots.items())),
        best=[row for of in probe.backbones for row in probe.best_heads(of)],
        shots_figure=Markup(for_page(accuracy_by_shots(probe))) if len(by_shots) > 1 else None,
        cost_figure=Markup(for_page(accuracy_by_seconds(probe))) if any(of.seconds for of in probe.backbones) else None,
    )


def accuracy_by_shots(probe: Probe) -> str:
    """Draw the test accuracy of each backbone's best head against the images a class, with intervals over draws or images."""
    with figure(8.2, 3.6, "probe-shots") as drawing:
        axes = drawing.add_subplot()
        for of, look in _looks(probe):
            rows = probe.best_heads(of)
            places = [row.shots or row.n_train / len(probe.classes) for row in rows]
            axes.errorbar(
                places, [100 * row.test for row in rows], _reach(rows), label=short(of.label, 40), capsize=3, ms=5, **look
            )
        ticks = {row.shots or row.n_train / len(probe.classes): shots_text(row.shots) for row in probe.heads}
        axes.set_xscale("log")
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set_xticks([], minor=True)
        axes.set_xlabel("training images a class")
        axes.set_ylabel("test accuracy in %")
        _legend(axes)
        return to_svg(drawing)


def accuracy_by_seconds(probe: Probe) -> str:
    """Draw the test accuracy of each backbone's best head, fitted to most images, against the seconds that its features take."""
    with figure(8.2, 3.4, "probe-seconds") as drawing:
        axes = drawing.add_subplot()
        for of, look in _looks(probe):
            row = probe.best_heads(of)[-1]
            if of.seconds:
                reach = [[100 * (row.test - row.ci95_images[0])], [100 * (row.ci95_images[1] - row.test)]]
                point = {**look, "linestyle": "none"}
                axes.errorbar([of.seconds], [100 * row.test], reach, label=short(of.label, 40), capsize=3, ms=7, **point)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.margins(x=0.15)
        axes.set_xlabel(f"seconds for the features of {probe.backbones[0].images:,} images")
        axes.set_ylabel("test accuracy in %")
        _legend(axes)
        return to_svg(drawing)


def _looks(probe: Probe) -> Iterator[tuple[ProbedBackbone, dict[str, Any]]]:
    for number, of in enumerate(probe.backbones):
        style = {"linestyle": _STYLES[number // 3 % 4], "marker": _MARKERS[number % 5]}
        yield of, {"color": _COLOURS[number % 3], **style}


def _legend(axes: Any) -> None:
    """Name the backbones above a figure, where no line is."""
    axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)


def _reach(rows: list[ProbedHead]) -> list[list[float]]:
    """Return how far intervals reach below and above, in points: over draws where there are several, else over images."""
    intervals = [row.ci95_draws or row.ci95_images for row in rows]
    below = [100 * max(row.test - low, 0) for row, (low, _) in zip(rows, intervals, strict=True)]
    above = [100 * max(high - row.test, 0) for row, (_, high) in zip(rows, intervals, strict=True)]
    return [below, above]
