"""The table of all runs: what each folder says of its run, read again only where a file changed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
import threading
import uuid
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple, final

from pydantic import Field

from thawlab.comparison.settings import settings
from thawlab.errors import ThawlabError
from thawlab.files import read_json
from thawlab.results import read_results
from thawlab.run import STUDY, TELLING, RunFolder, is_run
from thawlab.values import Value

State = Literal["new", "running", "interrupted", "failed", "finished", "imported", "damaged"]
_STATES = frozenset({"new", "running", "interrupted", "failed", "finished"})
_READ = (*TELLING, "state.json", "metrics.jsonl", "results.json", ".owner")
_TAIL_BYTES = 4096  # of the rows of epochs; the last one is much shorter
Stamps = tuple[tuple[int, int] | None, ...]
_OWNER = re.compile(r"process (\d+) on (.*)", re.DOTALL)


class RunRow(Value):
    """What the table shows of a run; null where it is not known, or not yet."""

    name: str
    status: State
    phase: Annotated[str | None, Field(description="The phase of the last epoch.")] = None
    epoch: Annotated[int | None, Field(description="The last epoch, within its phase.")] = None
    epochs: Annotated[int | None, Field(description="How many that phase has, unless it stops early.")] = None
    test_accuracy: float | None = None
    test_accuracy_ci95: tuple[float, float] | None = None
    val_accuracy: float | None = None
    seconds: Annotated[float | None, Field(description="Of the whole run, or of its epochs so far.")] = None
    changed: Annotated[float, Field(description="When a file of it was last written, in seconds since 1970.")]
    problem: Annotated[str | None, Field(description="What is damaged, or why it failed.")] = None
    settings: Annotated[dict[str, Any], Field(default_factory=dict, description="Its recipe by dotted key.")]


class Rows(Value):
    """The rows that changed since a version, and the names of the runs that are gone."""

    version: Annotated[str, Field(description="To be sent back as `since`, for what changes from now on.")]
    whole: Annotated[bool, Field(description="Whether these are all rows, so that others are to be forgotten.")]
    rows: list[RunRow]
    gone: list[str]


class Held(NamedTuple):
    """A row, the files that it was read from as (time, size), and the version in which it came."""

    row: RunRow
    stamps: Stamps
    version: int


def run_names(runs: Path) -> list[str]:
    """Return the names of all runs in a folder, sorted; those of a study as STUDY/RUN.

    What is no run, or has a name that is not UTF-8 or not one line, is passed over.
    """
    names: list[str] = []
    for name in _folders(runs):
        if is_run(runs / name):
            names.append(name)
        elif (runs / name / STUDY).is_file():
            names += [f"{name}/{cell}" for cell in _folders(runs / name) if is_run(runs / name / cell)]
    return sorted(names)


def _folders(parent: Path) -> list[str]:
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir() and _is_text(entry.name)]
    return []


def _is_text(name: str) -> bool:
    return name.encode("utf-8", "replace").decode() == name and "\n" not in name  # of which a route is one line


def stamps_of(folder: Path) -> Stamps:
    """Return time and size of each file that a row is read from; None for one that is absent."""
    found: list[tuple[int, int] | None] = []
    for name in _READ:
        try:
            status = (folder / name).stat()
            found.append((status.st_mtime_ns, status.st_size))
        except OSError:
            found.append(None)
    return tuple(found)


def row_of(name: str, folder: RunFolder, stamps: Stamps) -> RunRow:
    """Return the row of a run under a name; one with a damaged file says so in its row."""
    changed = max((stamp[0] for stamp in stamps if stamp), default=0) / 1e9
    try:
        if folder.imported.is_file():
            return RunRow(name=name, status="imported", changed=changed, settings=_origin(folder))
        recipe = folder.recipe
        known: dict[str, Any] = {"settings": settings(recipe), "status": status_of(folder)}
        if (last := last_epoch(folder.metrics)) is not None:
            phases = {phase.name: phase.epochs for phase in recipe.phases}
            known |= {"phase": last["phase"], "epoch": last["epoch"], "epochs": phases.get(last["phase"])}
            known |= {"val_accuracy": last.get("val_accuracy"), "seconds": last.get("seconds")}
        known |= _measured(folder) if known["status"] == "finished" else {}
        if known["status"] == "failed":
            known["problem"] = str(read_json(folder.path / "state.json").get("reason", "")) or None
        return RunRow(name=name, changed=changed, **known)
    except ThawlabError as error:
        return RunRow(name=name, status="damaged", changed=changed, problem=str(error), settings={})
    except (ValueError, TypeError, KeyError) as error:
        problem = f"{folder.metrics}: the last row is damaged ({type(error).__name__}); `thawlab repair` restores it"
        return RunRow(name=name, status="damaged", changed=changed, problem=problem, settings={})


def _origin(folder: RunFolder) -> dict[str, Any]:
    return {f"imported.{key}": value for key, value in folder.origin.items() if isinstance(value, str | int | float)}


def _measured(folder: RunFolder) -> dict[str, Any]:
    results = read_results(folder.results)
    known: dict[str, Any] = {"seconds": results.seconds.get("total"), "phase": None, "epoch": None, "epochs": None}
    if results.test.n:
        known |= {"test_accuracy": results.test.accuracy, "test_accuracy_ci95": results.test.accuracy_ci95}
    return known | {"val_accuracy": results.val.accuracy if results.val.n else None}


def status_of(folder: RunFolder) -> State:
    """Return how far a run is; one whose process has ended on this machine without saying so is interrupted.

    Raises:
        ThawlabError: if what is recorded is no state.
    """
    status = folder.status
    if status not in _STATES:
        raise ThawlabError(f"{folder.path / 'state.json'}: '{status}' is no state of a run; `thawlab repair` restores it")
    return "interrupted" if status == "running" and not _is_trained_now(folder) else status


def _is_trained_now(folder: RunFolder) -> bool:
    """Return whether the process that trains a run lives; of one on another machine that is not known, and assumed."""
    try:
        with _opened(folder.path / ".owner") as file:
            owner = _OWNER.match(file.read(_TAIL_BYTES).decode())
    except (OSError, UnicodeDecodeError):
        owner = None
    if owner is not None:
        return owner[2] != platform.node() or is_alive(int(owner[1]))
    with contextlib.suppress(ThawlabError):
        process = read_json(folder.path / "state.json").get("pid")
        return not isinstance(process, int) or is_alive(process)
    return True


def _opened(file: Path) -> BinaryIO:
    """Open a file; a pipe, which would keep whoever reads it, is refused.

    Raises:
        OSError: if it is no file.
    """
    if not file.is_file():
        raise OSError("no file")
    return file.open("rb")


def is_alive(process: int) -> bool:
    """Return whether a process of this machine lives; assumed where it cannot be asked without harm."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def last_epoch(file: Path) -> dict[str, Any] | None:
    """Return the last whole row of `metrics.jsonl`; None where there is none yet.

    Raises:
        ValueError: if it is no row.
    """
    try:
        with _opened(file) as content:
            size = content.seek(0, os.SEEK_END)
            content.seek(max(0, size - _TAIL_BYTES))
            lines = content.read().split(b"\n")[:-1]  # what follows the last end of a line is being written
    except OSError:
        return None
    if not lines:
        return None
    row = json.loads(lines[-1])
    numbers = [row["epoch"], row["seconds"], row["val_accuracy"] or 0.0]
    if not (isinstance(row["phase"], str) and all(isinstance(one, int | float) and math.isfinite(one) for one in numbers)):
        raise ValueError("no row of an epoch")
    return dict(row)


@final
class Table:
    """The rows of a folder, kept between two looks; several threads may look."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._held: dict[str, Held] = {}
        self._gone: dict[str, int] = {}
        self._version, self._id, self._lock = 0, uuid.uuid4().hex[:8], threading.Lock()

    def look(self, since: str = "") -> Rows:
        """Return what changed since a version that this table gave out; everything, where it gave none such."""
        with self._lock:
            self._refresh()
            mark, _, number = since.partition("-")
            whole = mark != self._id or not number.isdecimal() or int(number) > self._version
            seen = -1 if whole else int(number)
            rows = [held.row for held in self._held.values() if held.version > seen]
            gone = [] if whole else [name for name, version in self._gone.items() if version > seen]
            return Rows(version=f"{self._id}-{self._version}", whole=whole, rows=rows, gone=gone)

    def _refresh(self) -> None:
        names, new = run_names(self._runs), self._version + 1
        for name in self._held.keys() - set(names):
            del self._held[name]
            self._gone[name] = self._version = new
        for name in names:
            folder, held = RunFolder(self._runs / name), self._held.get(name)
            stamps = stamps_of(folder.path)
            # A process may end without writing anything: whether it lives is asked each time.
            ended = held is not None and held.row.status == "running" and not _is_trained_now(folder)
            if held is not None and held.stamps == stamps and not ended:
                continue
            self._held[name] = Held(row_of(name, folder, stamps), stamps, new)
            self._gone.pop(name, None)
            self._version = new
