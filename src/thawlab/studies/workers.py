"""The study's side of its workers: how many there may be, and how one is started, given a cell, stopped and replaced."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Protocol, final

from thawlab.cores import usable_cores
from thawlab.recipe import Recipe

# Memory that a cell may need beside what the system shares between processes; an assumption, on the safe side for small images.
CELL_BYTES = 2 << 30
# What a cell may take to save and end.
KILL_SECONDS = 120.0


def cells_at_once(cells: int, recipe: Recipe, threads: int | None = None) -> int:
    """Return how many cells to run at the same time: as many as cores and memory allow, and one on a GPU.

    Args:
        cells: that are left.
        recipe: of one of them.
        threads: that each computes with; one if None, which wastes least.
    """
    if recipe.system.device != "cpu":
        import torch

        if torch.cuda.is_available() or recipe.system.device != "auto":
            return 1
    return max(1, min(cells, usable_cores() // (threads or 1), _free_memory() // CELL_BYTES))


def _free_memory() -> int:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return 64 << 30  # a system that does not say; its own limits apply


def threads_each(at_once: int) -> int:
    """Return how many threads each of several cells may compute with."""
    return max(1, usable_cores() // at_once)


@final
class Worker:
    """A process that runs one cell at a time; one that dies is replaced when the next cell is given."""

    def __init__(self, threads: int, log: Path) -> None:
        self._threads, self._log = threads, log
        self._process: subprocess.Popen[str] | None = None

    def run(self, recipe: Path, runs: Path) -> dict[str, Any]:
        """Run a cell and return its worker's answer; "failed" with a reason if the process dies."""
        process = self._process = self._living() or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({"recipe": str(recipe), "runs": str(runs)}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = process.wait()
        killed = (
            f"was killed by signal {-code}" + (" (out of memory?)" if code == -9 else "") if code < 0 else f"ended with {code}"
        )
        return {"status": "failed", "reason": f"the process of this cell {killed}; {self._log} has what it said"}

    def stop(self) -> None:
        """Ask the cell that is running to save and stop."""
        process = self._living()
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.write(json.dumps({"stop": True}) + "\n")
                process.stdin.flush()

    def close(self) -> None:
        """Let the process end; a cell that is running is saved first."""
        process = self._living()
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(KILL_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()

    def kill(self) -> None:
        """End the process at once."""
        if (process := self._living()) is not None:
            process.kill()

    def _living(self) -> "subprocess.Popen[str] | None":
        return self._process if self._process is not None and self._process.poll() is None else None

    def _start(self) -> "subprocess.Popen[str]":
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._threads)}
        command = [sys.executable, "-m", "thawlab.studies.worker"]
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C on the terminal reaches the study alone, which asks each worker once.
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=True,
            )


class Pool(Protocol):
    """Where the cells of a study run."""

    answers: queue.Queue[tuple[str, dict[str, Any]]]
    """Names of cells and how each ended: its status, and a reason where it failed."""

    @property
    def running(self) -> list[str]:
        """The names of the cells that are running, or wait for a place that was promised."""

    @property
    def has_room(self) -> bool:
        """Whether another cell can be given."""

    def give(self, name: str, recipe: Path, runs: Path) -> None:
        """Run a cell; its answer comes through `answers`."""

    def stop(self, name: str) -> None:
        """Ask one cell to save and stop."""

    def stop_all(self) -> None:
        """Ask all running cells to save and stop."""

    def close(self) -> None:
        """Wait until the running cells have ended."""

    def kill(self) -> None:
        """End all at once."""


@final
class LocalPool(Pool):
    """Several workers on this machine, each in a thread that gives it one cell after the other."""

    def __init__(self, count: int, threads: int, log: Path) -> None:
        self._workers = [Worker(threads, log) for _ in range(count)]
        self._idle: queue.Queue[Worker] = queue.Queue()
        for worker in self._workers:
            self._idle.put(worker)
        self._busy: dict[str, Worker] = {}
        self.answers: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    @property
    def running(self) -> list[str]:
        """The names of the cells that are running."""
        return list(self._busy)

    @property
    def has_room(self) -> bool:
        """Whether a worker has nothing to do."""
        return not self._idle.empty()

    def give(self, name: str, recipe: Path, runs: Path) -> None:
        """Run a cell on an idle worker; its answer comes through `answers`."""
        worker = self._busy[name] = self._idle.get_nowait()

        def work() -> None:
            answer = worker.run(recipe, runs)
            self._busy.pop(name, None)
            self._idle.put(worker)
            self.answers.put((name, answer))

        threading.Thread(target=work, daemon=True).start()

    def stop(self, name: str) -> None:
        """Ask one cell to save and stop."""
        if (worker := self._busy.get(name)) is not None:
            worker.stop()

    def stop_all(self) -> None:
        """Ask all running cells to save and stop."""
        for worker in list(self._busy.values()):
            worker.stop()

    def close(self) -> None:
        """Let all processes end."""
        for worker in self._workers:
            worker.close()

    def kill(self) -> None:
        """End all processes at once."""
        for worker in self._workers:
            worker.kill()
