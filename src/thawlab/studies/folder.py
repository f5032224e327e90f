"""The study's folder: what was asked, a recipe for every cell, the runs beside them, and how far each is.

Cells, whose design needs torch, are only named here: whether a name is that of a study is soon told.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

from filelock import FileLock, Timeout

from thawlab.errors import ThawlabError, UsageError, first_line, listed, nearest
from thawlab.files import read_json, write_json, write_text
from thawlab.run import STUDY, RunFolder, Status, find_run

if TYPE_CHECKING:
    from thawlab.studies.design import Cell

_SCHEMA = 1


class Entry(NamedTuple):
    """A cell as `study.json` lists it: the names of its variant and its run, its seed, and the file of its recipe."""

    variant: str
    seed: int
    run: str
    recipe: str


class Record(NamedTuple):
    """The content of `study.json`.

    Attributes:
        name: of the study.
        question: that it is to answer.
        threads: that each cell computes with; it stays, since the last bits depend on it.
        entries: the cells.
        extended: when cells were added to a study that had some, and how many: looking before adding is not free.
    """

    name: str
    question: str
    threads: int
    entries: tuple[Entry, ...]
    extended: tuple[dict[str, Any], ...] = ()


@final
@dataclass(frozen=True)
class StudyFolder:
    """The files of one study; its runs lie in it, each in its own folder."""

    path: Path

    @property
    def record_file(self) -> Path:
        """What the study consists of."""
        return self.path / STUDY

    @property
    def journal(self) -> Path:
        """What a search has tried, for several processes at once."""
        return self.path / "search.log"

    @property
    def page(self) -> Path:
        """The page of the comparison."""
        return self.path / "comparison.html"

    @property
    def comparison(self) -> Path:
        """The comparison as JSON."""
        return self.path / "comparison.json"

    @property
    def log(self) -> Path:
        """What the workers say."""
        return self.path / "log.txt"

    def run(self, entry: Entry) -> RunFolder:
        """Return the folder of a cell's run."""
        return RunFolder(self.path / entry.run)

    def recipe(self, entry: Entry) -> Path:
        """Return the recipe file of a cell."""
        return self.path / entry.recipe

    def status(self, entry: Entry) -> Status:
        """Return how far a cell is; one that has lost a file is not finished, and running it again repairs it."""
        run = self.run(entry)
        needed = (
            run.results,
            run.metrics,
            run.recipe_file,
            run.path / "data.json",
            run.predictions("val"),
            run.predictions("test"),
        )
        status = run.status
        return "interrupted" if status == "finished" and not all(file.is_file() for file in needed) else status

    def reason(self, entry: Entry) -> str:
        """Return why a cell failed, as its run recorded it."""
        try:
            return str(read_json(self.run(entry).path / "state.json").get("reason", ""))
        except ThawlabError:
            return ""

    def read(self) -> Record:
        """Read what the study consists of.

        Raises:
            ThawlabError: if the file is missing or damaged.
        """
        try:
            content = json.loads(self.record_file.read_text(encoding="utf-8"))
            if content["schema"] != _SCHEMA:
                raise ThawlabError(f"{self.record_file}: has schema {content['schema']}, this thawlab reads {_SCHEMA}")
            entries = tuple(Entry(**entry) for entry in content["cells"])
            return Record(content["name"], content["question"], content["threads"], entries, tuple(content.get("extended", ())))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ThawlabError(
                f"{self.record_file}: is damaged ({first_line(error)}); move it away and run the study again: finished cells stay"
            ) from None

    def write(self, record: Record) -> None:
        """Write what the study consists of."""
        cells = [entry._asdict() for entry in record.entries]
        head = {"schema": _SCHEMA, "name": record.name, "question": record.question, "threads": record.threads}
        write_json(self.record_file, {**head, "extended": list(record.extended), "cells": cells})

    def add(self, cell: Cell, threads: int) -> Entry:
        """Write the recipe of a cell and return its entry."""
        entry = Entry(cell.variant, cell.seed, cell.run, f"cells/{cell.run}.toml")
        system = cell.recipe.system.model_copy(update={"threads": threads, "workers": cell.recipe.system.workers or threads})
        text = cell.recipe.model_copy(update={"system": system}).to_toml()
        file = self.recipe(entry)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            write_text(file, text)
        return entry

    def lock(self) -> FileLock:
        """Return the lock that is held while the record is changed."""
        return FileLock(self.path / ".lock", timeout=10)


def begin(folder: StudyFolder, name: str, question: str, cells: Sequence[Cell], threads: int, extend: bool) -> Record:
    """Record the cells of a study, or go on with those that are recorded.

    Raises:
        UsageError: if the folder holds a study with other cells, or `extend` would lose some of them.
    """
    try:
        if (folder.path / "recipe.toml").is_file():
            raise UsageError(f"{folder.path}: is a run; give the study another name with --name")
        folder.path.mkdir(parents=True, exist_ok=True)
        with folder.lock():
            if not folder.record_file.is_file():
                record = Record(name, question, threads, tuple(folder.add(cell, threads) for cell in cells))
            else:
                record = _continued(folder, question, cells, extend)
            folder.write(record)
            return record
    except Timeout:
        raise ThawlabError(f"{folder.path}: is being written by another process; try again") from None
    except OSError as error:
        raise ThawlabError(f"{folder.path}: cannot be written: {error.strerror}") from None


def _continued(folder: StudyFolder, question: str, cells: Sequence[Cell], extend: bool) -> Record:
    record = folder.read()
    before, now = {entry.run for entry in record.entries}, {cell.run for cell in cells}
    lost, new = [e for e in record.entries if e.run not in now], [c for c in cells if c.run not in before]
    if lost or (new and not extend):
        first = f"{lost[0].variant}, seed {lost[0].seed}" if lost else f"{new[0].variant}, seed {new[0].seed}"
        where = "only there" if lost else "only in the new one"
        advice = "give this study another name with --name" + ("" if lost else ", or add its cells to that one with --extend")
        raise UsageError(f"{folder.path}: holds a study with other cells ({first}: {where}); {advice}")
    entries = [*record.entries, *(folder.add(cell, record.threads) for cell in new)]
    for cell in cells:
        folder.add(cell, record.threads)  # a recipe that was lost is written again
    note = ({"cells_before": len(before), "cells_added": len(new)},) if new else ()
    return record._replace(question=question or record.question, entries=tuple(entries), extended=(*record.extended, *note))


class FoundRuns(NamedTuple):
    """Runs to compare: their folders, the names of their variants where a study gives some, its question, and what it notes."""

    folders: list[RunFolder]
    names: dict[str, str]
    question: str = ""
    notes: tuple[str, ...] = ()


def find_study(name: str, runs: Path) -> StudyFolder | None:
    """Return a study by its name or path; None if there is none."""
    return next((StudyFolder(path) for path in (Path(name), runs / name) if (path / STUDY).is_file()), None)


def find_runs(chosen: Sequence[str], runs: Path) -> FoundRuns:
    """Return the runs that somebody names: a study, patterns of paths, names or paths of runs.

    Raises:
        UsageError: if a name or a pattern fits nothing, or no run of a study has finished.
        ThawlabError: if a study's record is damaged.
    """
    folders: list[RunFolder] = []
    names: dict[str, str] = {}
    question, notes = "", []
    for name in chosen:
        study = find_study(name, runs)
        if study is not None:
            record = study.read()
            finished = [entry for entry in record.entries if study.status(entry) == "finished"]
            if not finished:
                raise UsageError(f"{study.path}: none of its {len(record.entries)} cells has finished; run `thawlab study` first")
            folders += [study.run(entry) for entry in finished]
            names |= {entry.run: entry.variant for entry in finished}
            question = question or record.question
            notes += notes_on(study, record)
        elif any(letter in name for letter in "*?["):
            found = [Path(path) for path in sorted(glob.glob(name) or glob.glob(str(runs / name)))]  # noqa: PTH207 - as a shell
            matched = [RunFolder(path) for path in found if (path / "results.json").is_file()]
            if not matched:
                raise UsageError(f"'{name}' fits no finished run, here or in {runs}")
            folders += matched
        else:
            folders.append(_finished(find_run(name, runs)))
    return FoundRuns(folders, names, question, tuple(notes))


def _finished(folder: RunFolder) -> RunFolder:
    if folder.status in {"running", "interrupted", "failed", "new"} and not folder.results.is_file():
        raise UsageError(f"{folder.path}: is not finished ({folder.status}); train its recipe again to resume it")
    return folder


def notes_on(study: StudyFolder, record: Record) -> list[str]:
    """Return what has to be said of a study beside its numbers: cells that are missing, and cells that were added later."""
    lacking = [entry for entry in record.entries if study.status(entry) != "finished"]
    lines = []
    if lacking:
        first = lacking[0]
        why = study.reason(first) or study.status(first)
        lines.append(
            f"{len(lacking)} of {len(record.entries)} cells are missing, the first is {first.variant}, seed {first.seed}: {why}"
        )
    if record.extended:
        added = listed([str(note["cells_added"]) for note in record.extended])
        lines.append(f"cells were added after the study had begun ({added}): p-values assume that their number was fixed before")
    return lines


def known_studies(runs: Path) -> list[str]:
    """Return the names of the studies in a folder."""
    return sorted(path.parent.name for path in runs.glob(f"*/{STUDY}"))


def study_or_error(name: str, runs: Path) -> StudyFolder:
    """Return a study by name or path.

    Raises:
        UsageError: if there is none; the message gives the nearest name.
    """
    found = find_study(name, runs)
    if found is None:
        raise UsageError(f"there is no study '{name}' in {runs}{nearest(name, known_studies(runs))}")
    return found
