"""What a tracker is told of a run, read from its folder while it trains or afterwards; training knows of no tracker."""

import time
from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from thawlab import progress
from thawlab.comparison.settings import settings
from thawlab.registry import Registry
from thawlab.results import EpochRow, TestResult, read_results, read_rows
from thawlab.run import RunFolder, Status

_POLL_SECONDS = 2.0
_EPOCH = ("train_loss", "val_loss", "val_accuracy", "lr")


class TrackedRow(NamedTuple):
    """The metrics of one epoch, at the step since the run began."""

    step: int
    values: dict[str, float]


class TrackedRun(NamedTuple):
    """A run as a tracker files it: its folder's name, its digest, and its settings by dotted key."""

    name: str
    digest: str
    settings: dict[str, Any]


class Snapshot(NamedTuple):
    """How far a run is.

    Attributes:
        status: of the run.
        rows: of the epochs so far.
        final: what was measured on the test split, by name; empty until the run is finished.
    """

    status: Status
    rows: tuple[TrackedRow, ...]
    final: dict[str, float]

    def lacking(self, written: Container[tuple[str, int]]) -> list[tuple[str, float, int]]:
        """Return name, value and step of every number whose name and step a tracker has not written yet."""
        events = [(name, value, row.step) for row in self.rows for name, value in row.values.items()]
        events += [(name, value, self.step) for name, value in self.final.items()]
        return [event for event in events if (event[0], event[2]) not in written]

    @property
    def step(self) -> int:
        """The last step that a row is about."""
        return self.rows[-1].step if self.rows else 0


class Target(NamedTuple):
    """Where the user wants the rows: a folder or an address, whichever the tracker takes."""

    out: Path | None = None
    uri: str | None = None


# Writes what the tracker does not hold yet, and returns where it is.
Write = Callable[[Snapshot], str]
# Opens the tracker for one run.
Tracker = Callable[[TrackedRun, Target], AbstractContextManager[Write]]
trackers: Registry[Tracker] = Registry("tracker")


def described(folder: RunFolder) -> TrackedRun:
    """Return what stays the same of a run.

    Raises:
        ThawlabError: if the recipe is missing or damaged.
    """
    recipe = folder.recipe
    short = recipe.digest[:12]
    name = folder.name if short in folder.name else f"{folder.name}-{short}"  # a folder may have been renamed or moved
    return TrackedRun(name, recipe.digest, settings(recipe))


def snapshot(folder: RunFolder) -> Snapshot:
    """Read how far a run is.

    Raises:
        ThawlabError: if a file of it is damaged, or a finished run lacks one.
    """
    status = folder.status  # first: rows and results are written before a run is called finished
    finished = status == "finished"
    rows = read_rows(folder.metrics) if finished or folder.metrics.is_file() else []
    return Snapshot(status, tracked(rows), final_metrics(read_results(folder.results).test) if finished else {})


def tracked(rows: Sequence[EpochRow]) -> tuple[TrackedRow, ...]:
    """Return the rows with steps counted since the run began; those of `metrics.jsonl` begin anew with each phase."""
    found: list[TrackedRow] = []
    before, phase = 0, ""
    for row in rows:
        if row.phase != phase:
            before, phase = found[-1].step if found else 0, row.phase
        values = {name: value for name in _EPOCH if (value := getattr(row, name)) is not None}
        found.append(TrackedRow(before + row.step, values))
    return tuple(found)


def final_metrics(test: TestResult) -> dict[str, float]:
    """Return every single number of the test split, those of plug-ins too, as `test_<name>`."""
    content = test.model_dump()
    numbers = {name: test.metric(name) for name, value in content.items() if not isinstance(value, bool)}
    return {f"test_{name}": value for name, value in numbers.items() if value is not None}


def track(
    folders: Sequence[RunFolder], tracker: Tracker, target: Target, follow: bool = False, pause: float = _POLL_SECONDS
) -> dict[str, str]:
    """Write runs to a tracker; with `follow` until all of them are finished, or end without being so.

    Returns:
        Where each run is, by its name.

    Raises:
        UsageError: if the tracker is not installed, or cannot take the target.
        ThawlabError: if a run is damaged or the tracker cannot be written.
    """
    places: dict[str, str] = {}
    with ExitStack() as stack:
        runs = [(folder, described(folder)) for folder in folders]
        open_runs = [(folder, run, stack.enter_context(tracker(run, target))) for folder, run in runs]
        begun: set[str] = set()
        while open_runs:
            left = []
            for folder, run, write in open_runs:
                now = snapshot(folder)
                places[run.name] = write(now)
                if follow and _goes_on(now.status, run.name, begun):
                    left.append((folder, run, write))
            open_runs = left
            if open_runs:
                time.sleep(pause)
    return places


def _goes_on(status: Status, name: str, begun: set[str]) -> bool:
    """Whether more is to come of a run: one that stopped before we looked may just be starting again."""
    if status == "running":
        begun.add(name)
    elif name in begun and status != "finished":
        progress.say(f"{name}: {status}; what there is has been written, follow it again when it resumes")
        return False
    return status != "finished"
