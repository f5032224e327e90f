"""All ordeals by name, whole or in a short form: what is tried, in which processes, and what may come of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from crafted_pictures import crafted
from hostile_archives import ARCHIVES
from hostile_tables import RECIPES, RECORDS, TABLES
from hostile_weights import payloads
from ordeal import Trials, children, joined

HERE = Path(__file__).resolve().parent
FINDS = HERE / "finds"
# How many places `weight_trials.py` knows; it needs torch, which this module does without.
PLACES, RECORD_PLACES = 14, 10
# Those that take seconds to make, or are large; the short form leaves them out.
_SLOW = {
    "hard-links.tar",
    "bomb.tar.bz2",
    "bomb.tar.xz",
    "bomb-bzip2.zip",
    "bomb-bzip2-hidden.zip",
    "nested-zeros.zip",
    "pages.parquet",
}
_SLOW |= {"bomb-of-names.tar.gz", "nested-stored.zip", "names-1-million.zip", "names-1-million.tar", "bomb.tar.gz", "bomb.tgz"}
_SLOW |= {"bomb-hidden.zip", "bomb-no-image.zip", "bomb-inner.zip", "runs.parquet", "columns.parquet", "splits.csv", "lines.csv"}
# Quick to make, and quick to decode or to refuse.
_QUICK_PICTURES = ["png of texts", "png exif of overlapping tags", "jpeg of scans", "jpeg exif in pieces"]
_QUICK_PICTURES += ["jpeg exif of overlapping tags", "tiff of overlapping tags"]
_QUICK_PICTURES += ["png that promises", "icon of a huge bitmap", "noise that is no picture", "gif of many frames"]


class Found(NamedTuple):
    """What came of an ordeal; `names` are those of the numbers in it."""

    trials: Trials
    names: Callable[[int], str]


def pictures(count: int, threads: int, first: int = 0) -> Found:
    """Decode mutated pictures."""
    trials = joined(list(children("picture_trials:mutations", range(first, first + count), threads)))
    return Found(trials, str)


def picture_files(folder: Path, threads: int, times: int = 1) -> Found:
    """Decode the files of a folder, all of them so many times."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix != ".md")
    numbers = range(times * len(names))
    return Found(
        joined(list(children("picture_trials:files", numbers, threads, argument=str(folder)))), lambda k: names[k % len(names)]
    )


def made_pictures(threads: int, whole: bool, times: int = 1) -> Found:
    """Decode the crafted pictures, several at once."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), crafted(None if whole else _QUICK_PICTURES).items())
        return picture_files(Path(folder), threads, times)


def _files(task: str, makers: Mapping[str, Callable[[], bytes]], whole: bool) -> Found:
    """Have hostile files read, each in a process of its own where all are tried, so that memory and crashes are its own."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "in")
        folder.mkdir()
        _write(folder, ((name, make()) for name, make in makers.items() if whole or name not in _SLOW))
        names = sorted(path.name for path in folder.iterdir())
        trials = joined(list(children(task, range(len(names)), 1, 1 if whole else len(names), str(folder))))
        outside = [path.name for path in Path(home).rglob("*canary*")]
        wrong = [*trials.wrong, *((-1, f"was written: {name}") for name in outside)]
        return Found(trials._replace(wrong=wrong), lambda k: names[k] if k >= 0 else "")


def _write(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    for name, content in files:
        (folder / name).write_bytes(content)


def archives(whole: bool) -> Found:
    """Open hostile archives as sources, and read what is in them."""
    return _files("source_trials:sources", ARCHIVES, whole)


def tables(whole: bool) -> Found:
    """Open hostile tables, in text and in Parquet, as sources."""
    return _files("source_trials:sources", TABLES, whole)


def recipes(whole: bool) -> Found:
    """Read hostile recipes, and their texts as values of overrides."""
    found = [_files(task, RECIPES, whole) for task in ("source_trials:recipes", "source_trials:values")]
    return Found(joined([one.trials for one in found]), found[0].names)


def records(step: int) -> Found:
    """Put hostile JSON wherever a record is read; every so many of all pairs."""
    names, numbers = list(RECORDS), range(0, RECORD_PLACES * len(RECORDS), step)
    trials = joined(list(children("weight_trials:records", numbers, 1, len(numbers))))
    return Found(trials, lambda k: f"{names[k % len(names)]}, place {k // len(names)}")


def weights(step: int) -> Found:
    """Put hostile pickles, weights and arrays wherever a file is read; every so many of all pairs."""
    names = list(payloads(Path("canary")))
    numbers = range(0, PLACES * len(names), step)
    trials = joined(list(children("weight_trials:weights", numbers, 1, len(numbers))))
    return Found(trials, lambda k: f"{names[k % len(names)]}, place {k // len(names)}")
