"""The runs that are compared, read from their folders, and the variants that they are repetitions of."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thawlab.comparison.settings import differing, settings_of_run, short_keys, shown, value_of
from thawlab.evaluation.predictions import Predictions, load_predictions
from thawlab.recipe import Recipe
from thawlab.results import Results, read_results
from thawlab.run import RunFolder


class Answers(NamedTuple):
    """Which images of a split a run gets right (bool, n), and a digest of the split's ids and labels."""

    right: npt.NDArray[np.bool_]
    images: str


class ComparedRun(NamedTuple):
    """A finished run as a comparison needs it; `settings` are what makes it differ from others (see `settings_of_run`)."""

    folder: RunFolder
    recipe: Recipe
    results: Results
    settings: dict[str, Any]
    val: Answers
    test: Answers

    @property
    def seed(self) -> int:
        """The seed of everything random in the run."""
        return self.recipe.seed


class Variant(NamedTuple):
    """What is compared: runs that differ in nothing but their seed.

    Attributes:
        name: tells it from the other variants.
        settings: of its first run; the others differ in the seed alone.
        values: of the keys in which the variants differ, by key.
        runs: by seed.
    """

    name: str
    settings: dict[str, Any]
    values: dict[str, Any]
    runs: dict[int, ComparedRun]

    @property
    def accuracies(self) -> list[float]:
        """Test accuracy by run, as fractions."""
        return [run.results.test.accuracy for run in self.runs.values()]

    @property
    def is_named(self) -> bool:
        """Whether somebody gave it a name, so that it says more than what its settings are, in whatever order."""
        return sorted(self.name.split(", ")) != sorted(_listed(self.values).split(", "))


def read_run(folder: RunFolder) -> ComparedRun:
    """Read a finished run.

    Raises:
        ThawlabError: if a file of the run is missing or damaged; the message names it.
    """
    results = read_results(folder.results)
    val, test = (_answers(load_predictions(folder.predictions(split))) for split in ("val", "test"))
    recipe = folder.recipe
    return ComparedRun(folder, recipe, results, settings_of_run(folder, recipe), val, test)


def _answers(table: Predictions) -> Answers:
    digest = hashlib.sha256("\n".join(table.ids.tolist()).encode())
    digest.update(np.ascontiguousarray(table.labels).tobytes())
    return Answers(table.predicted == table.labels, digest.hexdigest())


def variants_of(runs: Sequence[ComparedRun], names: Mapping[str, str] | None = None) -> list[Variant]:
    """Group runs by everything but their seed, in the order in which they come.

    Args:
        runs: any; of two that even share their seed, each is a variant of its own.
        names: of the variants, by the name of a run's folder; made from what differs where omitted.
    """
    groups: dict[tuple[str, int], dict[int, ComparedRun]] = {}
    for run in runs:
        content = json.dumps({key: value for key, value in run.settings.items() if key != "seed"}, sort_keys=True, default=str)
        repeated = next(number for number in range(len(runs)) if run.seed not in groups.get((content, number), {}))
        groups.setdefault((content, repeated), {})[run.seed] = run
    members = [dict(sorted(group.items())) for group in groups.values()]
    tables = [next(iter(group.values())).settings for group in members]
    keys = list(dict.fromkeys(key for table in tables[1:] for key in differing(tables[0], table)))
    keys = list(dict.fromkeys([*keys, *(key for one in tables for other in tables for key in differing(one, other))]))
    values = [{key: value_of(table, key) for key in keys} for table in tables]
    return [
        Variant(name, table, own, group)
        for name, table, own, group in zip(_names(members, values, names or {}), tables, values, members, strict=True)
    ]


def _names(members: Sequence[dict[int, ComparedRun]], values: Sequence[dict[str, Any]], given: Mapping[str, str]) -> list[str]:
    firsts = [next(iter(group.values())) for group in members]
    by_name = [given.get(run.folder.name, run.recipe.name) for run in firsts]
    if len(set(by_name)) == len(by_name):
        return by_name
    by_value = [_listed(own) for own in values]
    if len(set(by_value)) == len(by_value) and all(by_value):
        return by_value
    by_folder = [run.folder.name for run in firsts]
    if len(set(by_folder)) == len(by_folder):
        return by_folder
    return [f"{run.folder.path.resolve().parent.name}/{run.folder.name}" for run in firsts]  # the same cell of two studies


def _listed(values: Mapping[str, Any]) -> str:
    """Return what a variant sets each of the varied settings to: the name of one to which nobody gave another."""
    short = short_keys(list(values))
    return ", ".join(f"{short[key]} {shown(value)}" for key, value in values.items())
