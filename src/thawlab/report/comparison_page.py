"""The page that shows several runs side by side."""

from pathlib import Path

from markupsafe import Markup

from thawlab.report.figures import accuracy_intervals, validation_curves
from thawlab.report.page import write_page
from thawlab.report.style import for_page
from thawlab.results import read_rows
from thawlab.study.comparison import Comparison


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the page of a comparison; a self-contained HTML file.

    Raises:
        ThawlabError: if the page cannot be written, or the metric rows of a run cannot be read.
    """
    names = [f"{number + 1}: {run.results.name}" for number, run in enumerate(comparison.runs)]
    rows = [read_rows(run.folder.metrics) for run in comparison.runs]
    return write_page(
        "comparison.html",
        path,
        comparison=comparison,
        intervals=Markup(for_page(accuracy_intervals(names, [run.results.test for run in comparison.runs]))),
        curves=Markup(for_page(validation_curves(names, rows))),
    )
