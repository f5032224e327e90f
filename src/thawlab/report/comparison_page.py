"""The page that shows variants side by side, with the effect of each setting and what cannot be told."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from thawlab.comparison.comparison import NO_CREDIT, Comparison, describe
from thawlab.comparison.effects import Effect
from thawlab.comparison.settings import short_keys, shown
from thawlab.files import write_text
from thawlab.report import comparison_figures as figures
from thawlab.report.page import render_page
from thawlab.report.study_figures import learning_curve_figure
from thawlab.report.style import for_page
from thawlab.results import read_rows

_OPEN = 20  # effects that are shown at once
_MOST_VARIANTS = 40  # that one figure shows
_MOST_COLUMNS = 4  # settings that the table of variants shows beside its measures
_PLANNED = (0.01, 0.005)


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the page of a comparison; a self-contained HTML file.

    Raises:
        ThawlabError: if the page cannot be written, or the metric rows of a run cannot be read.
    """
    write_text(path, comparison_html(comparison))
    return path


def comparison_html(comparison: Comparison) -> str:
    """Return the page of a comparison; self-contained HTML.

    Raises:
        ThawlabError: if the metric rows of a run cannot be read.
    """
    rows = [describe(variant) for variant in comparison.variants]
    fronts, drawn = _measures(comparison, rows)
    keys = list(comparison.differences)
    effects = in_order(comparison.effects)
    parts = [part for part in (effects[:_OPEN], effects[_OPEN:]) if part]
    if comparison.learning_curves:
        drawn["learning"] = learning_curve_figure(comparison.learning_curves)
    return render_page(
        "comparison.html",
        comparison=comparison,
        rows=rows,
        keys=short_keys(keys) if len(keys) <= _MOST_COLUMNS else {},
        settings=[(key, [_value(value) for value in values]) for key, values in comparison.differences.items()],
        sentences=_sentences(comparison),
        parts=[(part, _figure(figures.effect_plot(part, f"effects-{number}"))) for number, part in enumerate(parts)],
        pairs=in_order(comparison.pairs) if comparison.factorial else [],
        figures={name: _figure(svg) for name, svg in drawn.items()},
        fronts=fronts,
        detectable=comparison.detectable(),
        needed=[found for found in map(comparison.needed, _PLANNED) if found],
        counted=_counted(comparison),
        crossed=any(effect.over_seeds for effect in effects),
        repeated=any(effect.over_both for effect in effects),
        drawn_of=min(len(rows), _MOST_VARIANTS),
        value=_value,
    )


def in_order(effects: Sequence[Effect]) -> list[Effect]:
    """Return interactions, main effects, pairs and wholes in this order; of many, the shown come first within their kind."""
    kinds = ("interaction", "main", "pair", "whole")
    many = len(effects) > _OPEN
    return sorted(effects, key=lambda effect: (kinds.index(effect.kind), many and not effect.is_shown))


def _measures(comparison: Comparison, rows: Sequence[dict[str, Any]]) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Return the variants that nothing beats, by cost; and the figures of what was measured, by name."""
    names, accuracies = [row["name"] for row in rows], [row["accuracy"] for row in rows]
    few = rows[:_MOST_VARIANTS]
    epochs = [[read_rows(run.folder.metrics) for run in variant.runs.values()] for variant in comparison.variants]
    drawn = {
        "accuracies": figures.accuracy_dots(
            names[: len(few)], [row["accuracies"] for row in few], [row["interval"] for row in few]
        ),
        "validation": figures.validation_curves(names, epochs),
    }
    costs = {"seconds of training": [row["seconds_training"] for row in rows], "parameters": [row["parameters"] for row in rows]}
    costs = {title: values for title, values in costs.items() if len(set(values)) > 1 and min(values) > 0}
    if costs:
        drawn["costs"] = figures.trade_offs(costs, accuracies)
    return {title: figures.pareto_front(values, accuracies) for title, values in costs.items()}, drawn


def _figure(svg: str) -> Markup:
    return Markup(for_page(svg))  # matplotlib escapes the text that it draws


def _value(value: Any) -> str:
    return "–" if value is None else shown(value)


def _sentences(comparison: Comparison) -> list[str]:
    """Return the verdict in the pieces that one effect each answers for, so that each begins a line."""
    text = comparison.verdict
    starts = [f"; {effect.verdict}" for effect in comparison.effects] + ["; and ", f". {NO_CREDIT}"]
    places = sorted({0, len(text), *(text.rfind(start) + 2 for start in starts if start in text)})
    return [text[start:end] for start, end in itertools.pairwise(places)]


def _counted(comparison: Comparison) -> str:
    """Return in words what is compared: variants, runs, seeds and test images."""
    runs = comparison.runs
    seeds, images = sorted({run.seed for run in runs}), sorted({run.results.test.n for run in runs})
    named = ", ".join(map(str, seeds[:8])) + (f", … ({len(seeds)} in all)" if len(seeds) > 8 else "")
    tested = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
    parts = [_number(len(comparison.variants), "variant"), _number(len(runs), "run")]
    return f"{', '.join(parts)}; {'seed' if len(seeds) == 1 else 'seeds'} {named}; {tested} test images"


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
