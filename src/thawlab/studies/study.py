"""A study from its design to its page: the cells that are missing are run, and what they show is compared."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from thawlab import progress
from thawlab.comparison.comparison import Comparison, compare_runs
from thawlab.errors import ThawlabError
from thawlab.files import write_json
from thawlab.report.comparison_page import write_comparison
from thawlab.studies.conduct import Conducted, Places, conduct
from thawlab.studies.design import Cell, Design
from thawlab.studies.estimate import Cost, costs
from thawlab.studies.folder import Record, StudyFolder, begin, find_runs
from thawlab.studies.search import Found, search
from thawlab.studies.workers import cells_at_once, threads_each


class Outcome(NamedTuple):
    """A study that was conducted: its folder, what its cells show, what was run now, and what a search found."""

    folder: StudyFolder
    comparison: Comparison
    conducted: Conducted
    found: Found | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as JSON values."""
        head = {"study": str(self.folder.path), "page": str(self.folder.page), "ran": self.conducted.ran}
        rest = {
            "finished_before": self.conducted.before,
            "failed": self.conducted.failed,
            "search": self.found and self.found.as_json(),
        }
        return {**head, **rest, "comparison": self.comparison.as_json()}


class Forecast(NamedTuple):
    """What a study would run: its cells, which of them have finished, what the others cost, and how many run at once."""

    folder: StudyFolder
    cells: list[Cell]
    finished: list[bool]
    costs: list[Cost]
    at_once: int

    @property
    def seconds(self) -> float:
        """An estimate of the time until all cells have finished."""
        return sum(cost.seconds for cost in self.costs) / self.at_once

    def as_json(self) -> dict[str, Any]:
        """Return the forecast as JSON values."""
        rows = [
            {"variant": cell.variant, "seed": cell.seed, "run": cell.run, "finished": done, "seconds": round(cost.seconds, 1)}
            for cell, done, cost in zip(self.cells, self.finished, self.costs, strict=True)
        ]
        return {"study": str(self.folder.path), "at_once": self.at_once, "seconds": round(self.seconds, 1), "cells": rows}


def forecast(design: Design, runs: Path, parallel: int | None = None) -> Forecast:
    """Return what a study would run and how long that takes; nothing is trained, and nothing is written.

    Raises:
        UsageError: if a variant is no recipe, or two are the same.
    """
    folder, cells = StudyFolder(runs / design.name), design.cells()
    record = folder.read() if folder.record_file.is_file() else None
    status = {entry.run: folder.status(entry) for entry in record.entries} if record else {}
    finished = [status.get(cell.run) == "finished" for cell in cells]
    at_once = parallel or cells_at_once(max(finished.count(False), 1), cells[0].recipe, record.threads if record else None)
    threads = record.threads if record else threads_each(at_once)
    return Forecast(folder, cells, finished, costs(cells, finished, folder, threads), at_once)


def run_study(design: Design, runs: Path, parallel: int | None = None, extend: bool = False, ray: str = "") -> Outcome:
    """Run the cells of a study that are missing and write its page, `comparison.html`, and `comparison.json`.

    Args:
        design: what to run.
        runs: the folder of all runs; the study has a folder in it.
        parallel: how many cells to run at once; as many as cores and memory allow if None.
        extend: whether cells may be added to a study that has some.
        ray: the address of a Ray cluster that runs the cells, or "local" for one on this machine; empty for none.

    Raises:
        UsageError: if a variant is no recipe, two are the same, or the folder holds a study with other cells.
        Interrupted: when a signal asked to stop; every running cell is saved.
        ThawlabError: if fewer than two cells finished.
    """
    folder, cells = StudyFolder(runs / design.name), design.cells()
    found = None
    if design.search is not None:
        found = search(folder, design, parallel, ray)
        cells = [*cells, *(design.cell(found.variant, seed) for seed in design.seeds)] if found.variant.changes else cells
    record = _begin(folder, design, cells, parallel, extend)
    at_once = parallel or cells_at_once(len(record.entries), cells[0].recipe, record.threads)
    where = f"on the Ray cluster {ray}," if ray else f"{at_once} at once"
    progress.say(f"{folder.path}: {len(record.entries)} cells, {where} with {record.threads} threads each")
    conducted = conduct(folder, record, Places(at_once, ray, cells[0].recipe.system.device != "cpu"))
    return Outcome(folder, write_outcome(folder, record), conducted, found)


def _begin(folder: StudyFolder, design: Design, cells: list[Cell], parallel: int | None, extend: bool) -> Record:
    at_once = parallel or cells_at_once(len(cells), cells[0].recipe)
    return begin(folder, design.name, design.question, cells, threads_each(at_once), extend)


def write_outcome(folder: StudyFolder, record: Record) -> Comparison:
    """Compare the cells of a study that have finished, and write the page and the JSON document into its folder.

    Raises:
        ThawlabError: if fewer than two have finished.
    """
    finished = [entry for entry in record.entries if folder.status(entry) == "finished"]
    if len(finished) < 2:
        first = record.entries[0]
        raise ThawlabError(
            f"{folder.path}: {len(finished)} of {len(record.entries)} cells finished; the first that did not is {first.variant}, "
            f"seed {first.seed}: {folder.reason(first) or folder.status(first)}"
        )
    runs = find_runs([str(folder.path)], folder.path.parent)
    compared = compare_runs(runs.folders, runs.names, runs.question, unpaired=True)
    comparison = dataclasses.replace(compared, notes=runs.notes, page=folder.page)
    write_comparison(comparison, folder.page)
    write_json(folder.comparison, comparison.as_json())
    return comparison
