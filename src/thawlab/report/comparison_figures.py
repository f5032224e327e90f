"""The figures of a comparison: effects with their intervals, and variants beside each other; SVG with stand-in colours."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from thawlab.comparison.effects import Effect
from thawlab.comparison.statistics import Estimate
from thawlab.report.figures import short
from thawlab.report.style import BLUE, FOREGROUND, GREEN, MUTED, ORANGE, figure, to_svg
from thawlab.results import EpochRow

_LINE = 34  # letters on a line of a name beside an axis
_DECADE = 10  # within a smaller range powers of ten would be one tick or none
_MOST_DRAWN = 8  # more curves than this cannot be told apart
_STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1.2)))
_COLOURS = (BLUE, ORANGE, GREEN, FOREGROUND)


class _Question(NamedTuple):
    """How the interval of one question is drawn: told apart by marker and line as well as by its colour."""

    key: str
    label: str
    look: dict[str, Any]


_QUESTIONS = (
    _Question("over_both", "other seeds and other images", {"color": FOREGROUND, "marker": "o", "ms": 7, "linewidth": 3}),
    _Question("over_seeds", "other seeds, these images", {"color": BLUE, "marker": "s", "ms": 5.5, "linewidth": 1.6}),
    _Question(
        "over_images",
        "these runs, other images",
        {"color": ORANGE, "marker": "D", "ms": 5.5, "linewidth": 1.6, "linestyle": (0, (3, 1.5))},
    ),
)


def effect_plot(effects: Sequence[Effect], name: str = "effects") -> str:
    """Draw each effect in points of accuracy with the interval of each question that can be answered, the first on top.

    A marker is filled where the difference is shown after the correction. `name` keeps the ids of several figures apart.
    """
    places = np.arange(len(effects))[::-1]
    asked = [question for question in _QUESTIONS if any(getattr(effect, question.key) for effect in effects)]
    with figure(8.2, 1.15 + (0.3 + 0.08 * len(asked)) * len(effects), name) as drawing:
        axes = drawing.add_subplot()
        axes.axvline(0, color=MUTED, linewidth=1.2)
        for number, question in enumerate(asked):
            axes.plot([], [], **question.look, label=question.label)
            for place, effect in zip(places, effects, strict=True):
                _draw_interval(axes, effect, question, place + 0.24 * ((len(asked) - 1) / 2 - number))
        axes.set_yticks(places, [_wrapped(effect.name) for effect in effects])
        axes.set_ylim(-0.6, len(effects) - 0.4)
        axes.set_xlabel("difference in test accuracy in points, with 95 % intervals")
        axes.grid(axis="y", visible=False)
        drawing.legend(loc="outside upper left", ncols=3, fontsize=9)
        return to_svg(drawing)


def _draw_interval(axes: Any, effect: Effect, question: _Question, height: float) -> None:
    estimate: Estimate | None = getattr(effect, question.key)
    if estimate is not None:
        fill = question.look["color"] if effect.is_shown else "none"
        line = {**question.look, "marker": "none", "solid_capstyle": "butt"}
        axes.plot([100 * estimate.low, 100 * estimate.high], [height] * 2, **line)
        point = {**question.look, "linestyle": "none", "markerfacecolor": fill, "markeredgewidth": 1.4}
        axes.plot([100 * effect.difference], [height], **point)


def _wrapped(name: str) -> str:
    """Return a name on at most two lines; of a longer one, how it begins and how it ends."""
    lines = textwrap.wrap(name, _LINE) or [""]
    kept = lines if len(lines) <= 2 else [lines[0], f"…{name[1 - _LINE :]}"]
    return "\n".join(short(line, _LINE) for line in kept)


def accuracy_dots(names: Sequence[str], accuracies: Sequence[Sequence[float]], intervals: Sequence[Sequence[float]]) -> str:
    """Draw the test accuracy of every run of several variants, with their means and intervals, the first on top."""
    places = np.arange(len(names))[::-1]
    with figure(8.2, 0.9 + 0.34 * len(names), "accuracies") as drawing:
        axes = drawing.add_subplot()
        for place, values, (low, high) in zip(places, accuracies, intervals, strict=True):
            axes.plot([100 * low, 100 * high], [place] * 2, color=BLUE, linewidth=5, alpha=0.35, solid_capstyle="butt")
            axes.plot([100 * np.mean(values)] * 2, [place - 0.3, place + 0.3], color=BLUE, linewidth=2.5)
            if len(values) > 1:
                axes.plot(100 * np.array(values), [place] * len(values), "o", ms=5, mfc="none", mec=FOREGROUND, mew=1.1)
        axes.set_yticks(places, [short(name, _LINE) for name in names])
        axes.set_ylim(-0.6, len(names) - 0.4)
        least, most = axes.get_xlim()
        axes.set_xlim(max(least, -1), min(most, 101))  # a t interval does not know that an accuracy ends there
        axes.set_xlabel("test accuracy in %")
        axes.grid(axis="y", visible=False)
        return to_svg(drawing)


def validation_curves(names: Sequence[str], metrics: Sequence[Sequence[Sequence[EpochRow]]]) -> str:
    """Draw the validation accuracy of several variants by epoch: means over their runs, and what these span.

    A curve ends with the shortest of its runs. Of more than eight variants, those that reach most are told apart.
    """
    from matplotlib.ticker import MaxNLocator

    tables = [(name, _validated(runs)) for name, runs in zip(names, metrics, strict=True)]
    drawn = [(name, table) for name, table in tables if table.size]
    leading = sorted(range(len(drawn)), key=lambda place: -float(drawn[place][1].mean(axis=0).max()))[:_MOST_DRAWN]
    with figure(8.2, 3.4 + 0.2 * ((len(leading) + 2) // 2), "validation") as drawing:
        axes = drawing.add_subplot()
        rest = [table for place, (_, table) in enumerate(drawn) if place not in leading]
        for number, table in enumerate(rest):
            others: dict[str, Any] = {"label": f"the other {len(rest)}"} if number == len(rest) - 1 else {}
            axes.plot(*_mean_curve(table), color=MUTED, linewidth=0.8, alpha=0.7, **others)
        for number, place in enumerate(sorted(leading)):
            name, table = drawn[place]
            look: dict[str, Any] = {"color": _COLOURS[(number + number // 4) % 4], "linestyle": _STYLES[number % 4]}
            epochs, mean = _mean_curve(table)
            axes.plot(epochs, mean, **look, marker="o" if table.shape[1] < 3 else None, ms=4, label=short(name, 40))
            if len(table) > 1:
                axes.fill_between(epochs, 100 * table.min(axis=0), 100 * table.max(axis=0), **_band(look["color"]))
        axes.set_xlabel("epoch, counted through all phases")
        axes.set_ylabel("validation accuracy in %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.02)
        if drawn:
            handles, labels = axes.get_legend_handles_labels()
            order = [*range(1 if rest else 0, len(handles)), *([0] if rest else [])]
            shown = [handles[place] for place in order], [labels[place] for place in order]
            drawing.legend(*shown, loc="outside lower left", ncols=2, fontsize=9, handlelength=3.2)
        return to_svg(drawing)


def _validated(runs: Sequence[Sequence[EpochRow]]) -> np.ndarray:
    """Return the validation accuracies, runs × epochs; empty where an epoch was not validated."""
    values = [[row.val_accuracy for row in rows[: min(map(len, runs))]] for rows in runs]
    return np.array([] if any(value is None for row in values for value in row) else values, dtype=np.float64)


def _mean_curve(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(1, table.shape[1] + 1), 100 * table.mean(axis=0)


def _band(colour: str) -> dict[str, Any]:
    return {"color": colour, "alpha": 0.12, "linewidth": 0}


def pareto_front(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """Return the places of those that nothing beats: none costs no more and is better, or costs less and is as good; by cost."""
    front: list[int] = []
    for place in sorted(range(len(costs)), key=lambda k: (costs[k], -accuracies[k])):
        if not front or accuracies[place] > accuracies[front[-1]]:
            front.append(place)
    return front


def trade_offs(costs: Mapping[str, Sequence[float]], accuracies: Sequence[float]) -> str:
    """Draw accuracy against each cost, on logarithmic axes, with the front of those that nothing beats; variants are numbered."""
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

    with figure(8.2, 3.4, "trade-offs") as drawing:
        panels = drawing.subplots(1, len(costs), squeeze=False, sharey=True)[0]
        for panel, (title, values) in zip(panels, costs.items(), strict=True):
            x, y, front = np.array(values, dtype=np.float64), 100 * np.array(accuracies), pareto_front(values, accuracies)
            panel.set_xscale("log")
            panel.step(x[front], y[front], where="post", color=GREEN, linewidth=1.5)
            beaten = [place for place in range(len(x)) if place not in front]
            panel.plot(x[beaten], y[beaten], "o", ms=6, mfc="none", mec=MUTED)
            panel.plot(x[front], y[front], "o", ms=7, color=GREEN)
            for place in [*front, *beaten] if len(x) <= 3 * _MOST_DRAWN else front:
                look: dict[str, Any] = {"fontsize": 8.5, "color": FOREGROUND if place in front else MUTED}
                panel.annotate(f"{place + 1}", (x[place], y[place]), xytext=(4, 4), textcoords="offset points", **look)
            panel.set_xlabel(title)
            panel.margins(0.12)
            ratio = max(x) / min(x)
            powers = LogLocator(subs=(1, 3) if ratio < _DECADE**3 else (1,))
            panel.xaxis.set_major_locator(powers if ratio > _DECADE else MaxNLocator(4, steps=[1, 2, 5, 10]))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panels[0].set_ylabel("test accuracy in %")
        return to_svg(drawing)
