"""Runs and figures as people hold them: opened from a folder, they show themselves, in a notebook too.

What needs torch is imported where it is used: to look at a finished run takes no second.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

from thawlab.errors import ThawlabError, UsageError, listed, nearest
from thawlab.recipe import Recipe
from thawlab.results import Results, read_results
from thawlab.run import RunFolder

if TYPE_CHECKING:
    from thawlab.comparison.paired import PairedComparison
    from thawlab.deploy.predictor import Predictor
    from thawlab.evaluation.predictions import Predictions


def percent(value: float) -> str:
    """Return a fraction as a percentage with two decimals."""
    return f"{100 * value:.2f} %"


@final
class Figure(NamedTuple):
    """A figure that a notebook shows; `svg` is its text."""

    name: str
    svg: str

    def __repr__(self) -> str:
        return f"Figure('{self.name}')"

    def _repr_svg_(self) -> str:
        return self.svg


@final
@dataclass(frozen=True, repr=False)
class Run:
    """A run, read from its folder; a notebook shows its accuracy, its curves and what was found.

    Example:
        >>> import thawlab
        >>> run = thawlab.train("shapes:200x16", backbone="cnn5", size=16, **{"phases.0.epochs": 1})
        >>> run.figure("confusion")
        Figure('confusion')
    """

    folder: RunFolder

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def recipe(self) -> Recipe:
        """The recipe that was trained."""
        return self.folder.recipe

    @property
    def results(self) -> Results:
        """What was measured: the content of `results.json`."""
        self.folder.refuse_imported()
        return read_results(self.folder.results)

    @property
    def imported(self) -> dict[str, Any]:
        """Of a classifier that others trained: the file that it came from, the side of its input and how that is scaled.

        Raises:
            ThawlabError: if it was trained here, or the record is damaged.
        """
        return self.folder.origin

    @cached_property
    def predictor(self) -> Predictor:
        """The trained classifier, ready to predict."""
        from thawlab.deploy.predictor import Predictor
        from thawlab.models.saved import load_model

        return Predictor(load_model(self.folder.model))

    def predictions(self, split: str = "test") -> Predictions:
        """Return the table of predictions of "val" or "test".

        Raises:
            UsageError: for another split.
            ThawlabError: if the run is not finished or the table is damaged.
        """
        from thawlab.evaluation.predictions import load_predictions

        if split == "train":
            raise UsageError("only predictions of val and test are kept; evaluate(run, 'train') judges the training images")
        if split not in {"val", "test"}:
            raise UsageError(f"there is no split '{split}'{nearest(split, ['val', 'test']) or ' (known: val, test)'}")
        return load_predictions(self.folder.predictions(split))

    def report(self) -> Path:
        """Write `report.html` and return its path."""
        from thawlab.report.page import write_report

        self.folder.refuse_imported()
        return write_report(self.folder)

    def figure(self, name: str) -> Figure:
        """Return a figure of the report: "confusion", "curves", "reliability", "distribution", "declining", "shift" or "slices".

        Raises:
            UsageError: for another name, or a figure of what was not measured.
            ThawlabError: if the run is not finished or a file of it is damaged.
        """
        from thawlab.report.drawn import FIGURES
        from thawlab.report.sources import read_sources
        from thawlab.report.style import for_file

        if name not in FIGURES:
            raise UsageError(f"there is no figure '{name}'{nearest(name, FIGURES) or f' (known: {listed(FIGURES)})'}")
        drawn = FIGURES[name](read_sources(self.folder))
        if drawn is None:
            raise UsageError(f"{self.path}: there is nothing to draw of '{name}'; evaluate(run, {name}=True) measures it")
        svg = for_file(drawn)
        return Figure(name, svg.partition("\n")[2])  # without the XML declaration

    def most_confused(self, limit: int = 8) -> list[tuple[str, str, int]]:
        """Return the pairs of classes that are confused most often on the test split: truth, prediction, images."""
        from thawlab.evaluation.metrics.measures import most_confused

        results = self.results
        names, pairs = results.dataset.classes, most_confused(results.test.confusion, limit)
        return [(names[truth], names[predicted], count) for truth, predicted, count in pairs]

    def against(self, other: Run) -> PairedComparison:
        """Compare this run with another one, image by image of the same test split.

        Raises:
            UsageError: if they were not tested on the same images.
        """
        from thawlab.comparison.paired import compare_predictions

        return compare_predictions(self.predictions("test"), other.predictions("test"))

    def _answer(self) -> str:
        """Return the accuracy with its interval, or how far the run is."""
        try:
            if self.folder.imported.is_file():
                return "imported"
            if not self.folder.results.is_file():
                return self.folder.status
            test = self.results.test
        except ThawlabError:
            return "damaged"
        if not test.n:
            return "not tested: there are no test images"
        low, high = test.accuracy_ci95
        return f"test accuracy {percent(test.accuracy)} ({100 * low:.2f} to {100 * high:.2f})"

    def __repr__(self) -> str:
        return f"Run('{self.folder.name}', {self._answer()})"

    def _repr_html_(self) -> str:
        head = f"<p><b>{escape(self.folder.name)}</b>: {escape(self._answer())}</p>"
        try:
            found = "".join(f"<li>{d.severity}: {escape(f'{d.evidence}; {d.advice}')}</li>" for d in self.results.diagnoses)
            return f"{head}{self.figure('curves').svg}<ul>{found}</ul>"
        except ThawlabError:
            return head
