"""The figures of robustness: accuracy under corruptions, and by properties of the pictures; SVG with stand-in colours."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from thawlab.report.figures import short
from thawlab.report.style import BLUE, MUTED, ORANGE, figure, to_svg
from thawlab.robustness import Shift, Slice, Slices, UnderCorruption

_ACROSS = 4  # panels beside each other


def shift_figure(shift: Shift) -> str:
    """Draw the accuracy under each corruption, the one that costs most first: by strength or, of one strength, as points."""
    ordered = sorted(shift.corruptions, key=lambda one: one.accuracy)
    return _points(shift, ordered) if len(shift.strengths) == 1 else _panels(shift, ordered)


def _panels(shift: Shift, ordered: Sequence[UnderCorruption]) -> str:
    rows = -(-len(ordered) // _ACROSS)
    with figure(8.2, 1.75 * rows + 0.3, "shift") as drawing:
        grid = drawing.subplots(rows, _ACROSS, sharex=True, sharey=True, squeeze=False)
        for panel in grid.flat[len(ordered) :]:
            panel.set_visible(False)
        for panel, one in zip(grid.flat, ordered, strict=False):
            panel.axhline(100 * shift.clean_accuracy, color=MUTED, linestyle="--", linewidth=1)
            strengths = [cell.strength for cell in one.strengths]
            low, high = zip(*(cell.accuracy_ci95 for cell in one.strengths), strict=True)
            panel.fill_between(strengths, 100 * np.array(low), 100 * np.array(high), color=BLUE, alpha=0.18, linewidth=0)
            panel.plot(strengths, [100 * cell.accuracy for cell in one.strengths], "o-", color=BLUE, ms=3.5)
            if one.falls_at is not None:
                at = one.strengths[strengths.index(one.falls_at)]
                panel.plot([at.strength], [100 * at.accuracy], "o", color=ORANGE, ms=6)
            panel.set_title(short(one.corruption))
            panel.set_xticks(strengths)
        grid[0, 0].set_ylim(bottom=min(0, panel.get_ylim()[0]), top=102)
        drawing.supxlabel("strength", fontsize=10)
        drawing.supylabel("accuracy in %", fontsize=10)
        return to_svg(drawing)


def _points(shift: Shift, ordered: Sequence[UnderCorruption]) -> str:
    places = np.arange(len(ordered))[::-1]
    with figure(8.2, 0.9 + 0.26 * len(ordered), "shift") as drawing:
        axes = drawing.add_subplot()
        axes.axvline(100 * shift.clean_accuracy, color=MUTED, linestyle="--", linewidth=1)
        for place, one in zip(places, ordered, strict=True):
            [cell] = one.strengths
            axes.plot([100 * bound for bound in cell.accuracy_ci95], [place] * 2, color=BLUE, linewidth=1.6)
            axes.plot([100 * cell.accuracy], [place], "o", color=BLUE, ms=5.5)
        axes.set_yticks(places, [short(one.corruption) for one in ordered])
        axes.set_ylim(-0.6, len(ordered) - 0.4)
        axes.set_xlim(-1, 101)
        axes.set_xlabel(f"accuracy in % at strength {shift.strengths[0]}, with 95 % intervals; dashed: the clean images")
        axes.grid(axis="y", visible=False)
        return to_svg(drawing)


def slices_figure(slices: Slices) -> str | None:
    """Draw the accuracy by each property that is a number, with intervals that hold together; None where there is none."""
    properties: dict[str, list[Slice]] = {}
    for part in slices.slices:
        if part.low is not None:
            properties.setdefault(part.of, []).append(part)
    if not properties:
        return None
    across = 2 if len(properties) in {2, 4} else min(3, len(properties))
    rows = -(-len(properties) // across)
    with figure(8.2, 2.1 * rows + 0.2, "slices") as drawing:
        grid = drawing.subplots(rows, across, sharey=True, squeeze=False)
        for panel in grid.flat[len(properties) :]:
            panel.set_visible(False)
        for panel, (name, parts) in zip(grid.flat, properties.items(), strict=False):
            _draw_property(panel, name, parts, slices.accuracy)
        for row in grid:
            row[0].set_ylabel("accuracy in %")
        return to_svg(drawing)


def _draw_property(panel: Any, name: str, parts: Sequence[Slice], accuracy: float) -> None:
    panel.axhline(100 * accuracy, color=MUTED, linestyle="--", linewidth=1)
    for place, part in enumerate(parts):
        look: dict[str, Any] = {"color": ORANGE if part.shown else BLUE}
        panel.plot([place] * 2, [100 * bound for bound in part.accuracy_interval], linewidth=1.6, **look)
        panel.plot([place], [100 * part.accuracy], "D" if part.shown else "o", ms=5.5, **look)
    labels = [f"{part.low:.3g}–\n{part.high:.3g}" if part.low != part.high else f"{part.low:.3g}" for part in parts]
    panel.set_xticks(range(len(parts)), labels, fontsize=8)
    panel.set_xlim(-0.5, len(parts) - 0.5)
    panel.set_title(short(name, 28))
    panel.grid(axis="x", visible=False)
