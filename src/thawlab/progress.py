"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere. Always on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A plain line at this interval tells a log's reader that work goes on without filling the log.
PLAIN_LINE_SECONDS = 15.0

Advance = Callable[[int], None]
_quiet = False


def silence(quiet: bool = True) -> None:
    """Switch all progress output off (or on again); used by `--json` and by tests."""
    global _quiet  # noqa: PLW0603 - whether anybody reads along is a property of the process
    _quiet = quiet


def is_seen() -> bool:
    """Return whether progress output is on."""
    return not _quiet


def say(message: str) -> None:
    """Print one line on standard error."""
    if not _quiet:
        print(message, file=sys.stderr, flush=True)


@contextmanager
def task(label: str, total: int, unit: str = "images") -> Iterator[Advance]:
    """Show the progress of `total` units of work, named in the plural, and yield the function that reports units done."""
    if _quiet or total == 0:
        yield lambda _count: None
    elif sys.stderr.isatty():
        with _bar(label, total, unit) as advance:
            yield advance
    else:
        yield _plain(label, total, unit)


@contextmanager
def _bar(label: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(label, total=total, rate="")
        [shown] = progress.tasks

        def advance(count: int) -> None:
            rate = (shown.completed + count) / (shown.elapsed or 1e-9)
            progress.update(shown.id, advance=count, rate=f"{rate:,.0f} {unit}/s")

        yield advance


def _plain(label: str, total: int, unit: str) -> Advance:
    started = time.monotonic()
    done, spoken = 0, started

    def advance(count: int) -> None:
        nonlocal done, spoken
        done += count
        now = time.monotonic()
        if now - spoken >= PLAIN_LINE_SECONDS:
            spoken, rate = now, done / max(now - started, 1e-9)
            left = (total - done) / rate if rate else 0.0
            say(f"{label}: {done:,}/{total:,} {unit}, {rate:,.0f} {unit}/s, {left:,.0f} s left")

    return advance
