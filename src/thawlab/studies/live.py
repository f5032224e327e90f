"""The live table of a study: what is done, running and left, the best so far on validation, and the time left."""

import contextlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import numpy as np

from thawlab import progress
from thawlab.errors import ThawlabError
from thawlab.results import read_results, read_rows
from thawlab.studies.folder import Entry, Record, StudyFolder

_REFRESH_SECONDS = 0.5
_MOST_ROWS = 24


@final
class Table:
    """Counts cells as they start and end, and shows them: a table on a terminal, a line per cell elsewhere.

    Only validation accuracies are shown: the test split is looked at when all is done.
    """

    def __init__(self, study: StudyFolder, record: Record) -> None:
        self._study, self._record = study, record
        self._status = {entry.run: study.status(entry) for entry in record.entries}
        self._val: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._begun, self._run_now, self._drawn = time.monotonic(), 0, 0.0
        self._live: Any = None
        for entry in record.entries:
            if self._status[entry.run] == "finished":
                self._note(entry)
            elif self._status[entry.run] == "running":
                self._status[entry.run] = "interrupted"  # by the process that was killed

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the table within, where there is a terminal."""
        if not progress.is_seen() or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.live import Live

        with Live(self._drawing(), console=Console(stderr=True), transient=True, auto_refresh=False) as live:
            self._live = live
            yield

    def started(self, entry: Entry) -> None:
        """Count a cell as running."""
        self._status[entry.run], self._started[entry.run] = "running", time.monotonic()

    def ended(self, entry: Entry, answer: dict[str, Any]) -> None:
        """Count a cell as its worker's answer says."""
        self._status[entry.run] = answer["status"]
        if answer["status"] == "finished":
            self._run_now += 1
            self._note(entry)
        if self._live is None and answer["status"] != "busy":
            shown = (
                f"val accuracy {self._val[entry.run]:.4f}" if entry.run in self._val else answer.get("reason", answer["status"])
            )
            progress.say(
                f"{self._count('finished')}/{len(self._status)} {entry.variant}, seed {entry.seed}: {shown}{self._left()}"
            )

    def refresh(self) -> None:
        """Draw the table again, now and then."""
        if self._live is not None and time.monotonic() - self._drawn > _REFRESH_SECONDS:
            self._drawn = time.monotonic()
            self._live.update(self._drawing(), refresh=True)

    def _note(self, entry: Entry) -> None:
        with contextlib.suppress(ThawlabError):
            val = read_results(self._study.run(entry).results).val
            if val.n:
                self._val[entry.run] = val.accuracy

    def _count(self, status: str) -> int:
        return sum(value == status for value in self._status.values())

    def _left(self) -> str:
        left = len(self._status) - self._count("finished") - self._count("failed")
        if not self._run_now or not left:
            return ""
        seconds = (time.monotonic() - self._begun) / self._run_now * left
        return f"; {duration(seconds)} left"

    def _drawing(self) -> Any:
        from rich.table import Table as RichTable

        best = self._best()
        counts = {
            name: self._count(status) for name, status in (("done", "finished"), ("running", "running"), ("failed", "failed"))
        }
        left = len(self._status) - sum(counts.values())
        head = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "done")
        table = RichTable(title=f"{self._record.name}: {head}, {left} to come{self._left()}", title_justify="left")
        for column in ("variant", "done", "running", "val accuracy"):
            table.add_column(column, justify="left" if column == "variant" else "right")
        variants = list(dict.fromkeys(entry.variant for entry in self._record.entries))
        for variant in variants[:_MOST_ROWS]:
            entries = [entry for entry in self._record.entries if entry.variant == variant]
            values = [self._val[entry.run] for entry in entries if entry.run in self._val]
            done = sum(self._status[entry.run] == "finished" for entry in entries)
            mean = f"{100 * np.mean(values):.2f} %{' ★' if variant == best else ''}" if values else ""
            table.add_row(variant, f"{done}/{len(entries)}", self._epochs(entries), mean)
        if len(variants) > _MOST_ROWS:
            table.add_row(f"… and {len(variants) - _MOST_ROWS} more variants", "", "", "")
        return table

    def _epochs(self, entries: list[Entry]) -> str:
        shown = []
        for entry in entries:
            if self._status[entry.run] == "running":
                with contextlib.suppress(ThawlabError):
                    rows = read_rows(self._study.run(entry).metrics)
                    shown.append(f"{rows[-1].phase} {rows[-1].epoch}")
                    continue
                shown.append("starting")
        return ", ".join(shown)

    def _best(self) -> str | None:
        means = {
            variant: float(
                np.mean([self._val[e.run] for e in self._record.entries if e.variant == variant and e.run in self._val])
            )
            for variant in {entry.variant for entry in self._record.entries if entry.run in self._val}
        }
        return max(means, key=lambda variant: means[variant]) if means else None


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
