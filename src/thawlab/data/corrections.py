"""Corrections that people made to labels: a table beside the data, so that better labels reach the next run and no file changes.

A correction names an image by its id. What a table says is read, held against a listing, and gives another listing; a page that
shows images to people adds rows to the table with `append_correction`.
"""

import contextlib
import csv
import io
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple, final, get_args

import numpy as np
from filelock import FileLock, Timeout

from thawlab.data.csv_table import pick_column, read_table
from thawlab.data.listing import Listing, chosen
from thawlab.data.types import Indices
from thawlab.errors import BusyError, ThawlabError, UsageError, listed, nearest
from thawlab.files import sync_folder

Decision = Literal["keep", "relabel", "exclude", "unsure"]
COLUMNS = ("id", "decision", "label", "split", "given", "time")
_KEY = "data.corrections"
_NEEDED = COLUMNS[:3]
_DECISIONS: dict[str, Decision] = {decision: decision for decision in get_args(Decision)}
_MARK = b"\xef\xbb\xbf"  # what some programs put before UTF-8
_PATIENCE_SECONDS = 10.0


@final
@dataclass(frozen=True)
class Correction:
    """What a person decided on the label of an image.

    Attributes:
        id: of the image, as the listing of its source names it.
        decision: "keep" and "unsure" change nothing, "relabel" gives the image another class, "exclude" leaves it out.
        label: the other class; empty unless the decision is "relabel".
        split: the split that the image was in; for people.
        given: the class that it had when it was judged; empty where that is not known.
        time: when it was judged; for people.
        line: of the table; 0 where it comes from none.
    """

    id: str
    decision: Decision
    label: str = ""
    split: str = ""
    given: str = ""
    time: str = ""
    line: int = field(default=0, compare=False)


class Changes(NamedTuple):
    """How many images the corrections changed.

    Attributes:
        relabelled: images that have another class.
        excluded: images that are left out.
        in_test: how many of all these are in the test split; None where there are no splits yet.
    """

    relabelled: int
    excluded: int
    in_test: int | None

    @property
    def line(self) -> str:
        """The changes in words."""
        in_test = "" if self.in_test is None else f" (of them {self.in_test:,} in test)"
        return f"corrections: {self.relabelled:,} relabelled, {self.excluded:,} excluded{in_test}"


def read_corrections(path: Path) -> tuple[Correction, ...]:
    """Read a table of corrections, all its rows in their order; of several for one image the last one holds.

    Raises:
        UsageError: if the file cannot be read, lacks a column, or a row makes no sense by itself; the message names the row.
    """
    columns, rows = read_table(path, _KEY)
    if not all(column.isprintable() for column in columns):
        raise UsageError(f"{_KEY}: {path}: is no table of text")
    places = {name: pick_column(columns, [name]) for name in COLUMNS}
    if absent := [name for name in _NEEDED if places[name] is None]:
        raise UsageError(f"{_KEY}: {path} needs a column '{absent[0]}'; found {listed(columns) or 'none'}")
    found = []
    for number, row in rows:
        if not any(value.strip() for value in row.values()):
            continue  # spreadsheets leave rows without a word
        identifier, word, label, split, given, time = ("" if place is None else row[place] for place in places.values())
        decision = word.strip().lower()
        if problem := _problem(identifier, decision, label):
            raise _refusal(f"{path}, line {number}", problem)
        label = label if decision == "relabel" else ""
        found.append(Correction(identifier, _DECISIONS[decision], label, split, given, time, number))
    return tuple(found)


def corrected(listing: Listing, corrections: Iterable[Correction], origin: str = "", gone: Collection[str] = ()) -> Listing:
    """Return a listing with corrected labels and without the images that are excluded; the same one where nothing changes.

    Args:
        listing: as the source gives it.
        corrections: in the order in which they were made; of several for one image the last one holds.
        origin: the table's name, for messages.
        gone: ids that the source has and the listing has no more; corrections of them are passed over.

    Raises:
        UsageError: if an image or a class is unknown, or an image no longer has the label that it had when it was judged.
    """
    places = {identifier: index for index, identifier in enumerate(listing.ids)}
    numbers = {name: number for number, name in enumerate(listing.classes)}
    labels, kept = listing.labels.copy(), np.ones(len(listing), dtype=bool)
    for identifier, history in _by_image(corrections, {*places, *gone}).items():
        last = history[-1]
        place = f"{origin}, line {last.line}" if last.line else f"the correction of '{last.id}'"
        if identifier not in places:
            if identifier in gone:
                continue
            raise _refusal(place, f"{listing.name} has no image '{last.id}'{nearest(last.id, listing.ids)}")
        index = places[identifier]
        source = listing.classes[labels[index]]
        if not _is_current(history, source):
            raise _refusal(
                place,
                f"'{last.id}' was judged when its label was '{last.given}', and now it is '{source}': the data changed since; "
                "judge it again, or remove the row",
            )
        if last.decision == "relabel":
            name = _meant(last.label, numbers)
            if name not in numbers:
                hint = nearest(last.label, listing.classes) or f" (classes: {listed(listing.classes)})"
                raise _refusal(place, f"{listing.name} has no class '{last.label}'{hint}")
            labels[index] = numbers[name]
        kept[index] = last.decision != "exclude"
    if kept.all() and np.array_equal(labels, listing.labels):
        return listing
    rest = replace(listing, labels=labels)
    return replace(rest if kept.all() else chosen(rest, np.flatnonzero(kept)), uncorrected=listing)


def changes_of(listing: Listing, test: Indices | None = None) -> Changes | None:
    """Return what corrections changed in a listing; None where they changed nothing.

    Args:
        listing: corrected.
        test: the test split of the listing before it was corrected, if there is one.
    """
    before = listing.uncorrected
    if before is None:
        return None
    now = {name: listing.classes[label] for name, label in zip(listing.ids, listing.labels.tolist(), strict=True)}
    then = [(name, before.classes[label]) for name, label in zip(before.ids, before.labels.tolist(), strict=True)]
    excluded = {index for index, (name, _) in enumerate(then) if name not in now}
    relabelled = {index for index, (name, label) in enumerate(then) if now.get(name, label) != label}
    in_test = None if test is None else len((excluded | relabelled) & set(test.tolist()))
    return Changes(len(relabelled), len(excluded), in_test)


def append_correction(path: Path, correction: Correction) -> None:
    """Add a row to a table of corrections, durably; the table is made where there is none, and no row is ever written over.

    Several processes may add to one table.

    Raises:
        UsageError: if the correction makes no sense, or the file is no table that was written here.
        BusyError: if another process keeps the table for long.
        ThawlabError: if the disk does not take the row; the table then stays as it was.
    """
    problem = _problem(correction.id, correction.decision, correction.label)
    row = _as_csv([getattr(correction, name) for name in COLUMNS])
    if problem or "\0" in row:
        raise UsageError(f"{path}: {problem or 'a text holds a zero byte'}")
    try:
        content = row.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{path}: {correction.id!a} or its label is not UTF-8") from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_PATIENCE_SECONDS), path.open("a+b", buffering=0) as file:
            file.seek(0)
            _append(file, _before(file.read(), path) + content)
        sync_folder(path.parent)
    except Timeout:
        raise BusyError(f"{path}: another process is writing to it; try again") from None
    except OSError as error:
        raise ThawlabError(f"{path}: cannot be written: {error.strerror or error}; no row of it is lost") from error


def _before(held: bytes, path: Path) -> bytes:
    """Return what must stand between what a table holds and a further row: its header, the end of its last line, or nothing."""
    text = held.removeprefix(_MARK)
    if not text:
        return _as_csv(COLUMNS).encode()
    try:
        header = text.decode().splitlines()[0]
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8, so that no row is added; save it as UTF-8, or name another file") from None
    if tuple(next(csv.reader([header]), ())) != COLUMNS:
        raise UsageError(f"{path}: its first line is not {','.join(COLUMNS)}, so that no row is added; name another file")
    if text.count(b'"') % 2:
        read_table(path)  # refuses a quote that is never closed, which would swallow the new row
    return b"" if text.endswith(b"\n") else b"\n"


def _append(file: io.FileIO, content: bytes) -> None:
    """Write at the end of an open file and wait for the disk; a row that does not fit is taken back as a whole."""
    size = file.seek(0, os.SEEK_END)
    try:
        written = 0
        while written < len(content):
            written += file.write(content[written:])
        os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(size)
        raise


def _as_csv(values: Sequence[str]) -> str:
    """Return a row as a line of CSV that is read back to the same values."""
    text = io.StringIO(newline="")
    has_return = any("\r" in value for value in values)  # left bare by the writer, and the end of a line to the reader
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL).writerow(values)
    return text.getvalue()


def _by_image(corrections: Iterable[Correction], known: Collection[str]) -> dict[str, list[Correction]]:
    """Return the corrections of each image in their order, by its id."""
    found: dict[str, list[Correction]] = {}
    for correction in corrections:
        found.setdefault(_meant(correction.id, known), []).append(correction)
    return found


def _meant(written: str, known: Collection[str]) -> str:
    """Return a name as it is where it is known so, and else without the blanks around it."""
    return written if written in known else written.strip()


def _is_current(history: Sequence[Correction], source: str) -> bool:
    """Return whether the last correction of an image was made on the label of its source, or on what earlier ones made of it."""
    labels, is_current = {source}, True
    for correction in history:
        is_current = not correction.given.strip() or _meant(correction.given, labels) in labels
        if is_current and correction.decision == "relabel":
            labels.add(correction.label.strip())
            labels.add(correction.label)
    return is_current


def _problem(identifier: str, decision: str, label: str) -> str:
    """Return what is wrong with a correction, whatever the data are; empty where nothing is."""
    if not identifier:
        return "the id is empty"
    if decision not in _DECISIONS:
        return f"'{decision}' is no decision{nearest(decision, _DECISIONS) or f' (known: {listed(_DECISIONS)})'}"
    if decision == "relabel" and not label:
        return f"relabel needs the new class of '{identifier}' in the column 'label'"
    if decision != "relabel" and label.strip():
        return f"'{identifier}' has the label '{label}', which goes with relabel and not with {decision}; change one of the two"
    return ""


def _refusal(place: str, problem: str) -> UsageError:
    """Return the error for a correction, as one line whatever names it quotes."""
    return UsageError(" ".join(f"{_KEY}: {place}: {problem}".splitlines()))
