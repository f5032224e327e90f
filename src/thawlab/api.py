"""The Python face: it mirrors the verbs of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from thawlab.deploy.predictor import Predictor, load_predictor
from thawlab.evaluation.predictions import Predictions, load_predictions
from thawlab.files import read_json
from thawlab.recipe import Recipe
from thawlab.report.page import write_report
from thawlab.run import RunFolder, find_run
from thawlab.runner import train as _train


@final
@dataclass(frozen=True)
class Run:
    """A run, read from its folder."""

    folder: RunFolder

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def recipe(self) -> Recipe:
        """What was done."""
        return self.folder.recipe

    @property
    def results(self) -> dict[str, Any]:
        """What was measured: the content of `results.json`."""
        return read_json(self.folder.results)

    def predictions(self, split: str = "test") -> Predictions:
        """Return the table of predictions of "val" or "test"."""
        return load_predictions(self.folder.predictions(split))

    def report(self) -> Path:
        """Write `report.html` and return its path."""
        return write_report(self.folder)


def train(recipe: Recipe, runs: str | Path = "runs") -> Run:
    """Train, judge and save what a recipe describes; a finished recipe is returned as it is.

    Raises:
        UsageError: if the recipe or the data are wrong.
        ThawlabError: if something failed on the way.
    """
    return Run(_train(recipe, Path(runs)))


def load(run: Run | str | Path, runs: str | Path = "runs") -> Predictor:
    """Load the classifier of a run, by value, name or path, ready to predict.

    Raises:
        UsageError: if there is no such run.
        ThawlabError: if its model is missing or damaged.
    """
    folder = run.folder if isinstance(run, Run) else find_run(str(run), Path(runs))
    return load_predictor(folder.model)
