"""The page that shows several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from thawlab.files import write_text
from thawlab.report.figures import accuracy_intervals, validation_curves
from thawlab.report.page import templates
from thawlab.report.style import for_page


def write_comparison(comparison: Mapping[str, Any], metrics: Sequence[Sequence[Mapping[str, Any]]], path: Path) -> Path:
    """Write the page of a comparison; a self-contained HTML file.

    Args:
        comparison: as `compare_runs` returns it.
        metrics: the rows of `metrics.jsonl` of each run.
        path: of the page.

    Raises:
        ThawlabError: if the file cannot be written.
    """
    names = [f"{number + 1}: {row['name']}" for number, row in enumerate(comparison["runs"])]
    page = (
        templates()
        .get_template("comparison.html")
        .render(
            comparison=comparison,
            intervals=Markup(for_page(accuracy_intervals(names, [row["test"] for row in comparison["runs"]]))),
            curves=Markup(for_page(validation_curves(names, metrics))),
        )
    )
    write_text(path, page)
    return path
