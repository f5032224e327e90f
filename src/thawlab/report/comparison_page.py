"""The page that shows variants side by side, with the effect of each setting."""

from pathlib import Path

from thawlab.comparison.comparison import Comparison
from thawlab.report.page import write_page


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the page of a comparison; a self-contained HTML file.

    Raises:
        ThawlabError: if the page cannot be written, or the metric rows of a run cannot be read.
    """
    return write_page("comparison.html", path, comparison=comparison)
