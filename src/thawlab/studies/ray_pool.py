"""The cells of a study on a Ray cluster: each is a task, retried on another node from its last checkpoint when one is lost.

Runs lie in the study's folder where a node sees it; from a node that does not, the finished run comes back as an archive.
"""

from __future__ import annotations

import contextlib
import platform
import queue
import tempfile
import time
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, final

from thawlab.errors import first_line
from thawlab.files import sha256_of
from thawlab.ray_cluster import archived, connect, unpacked
from thawlab.run import STUDY
from thawlab.studies.workers import CELL_BYTES, KILL_SECONDS, Pool

# How often a cell begins again where it stopped because its process or its node was lost.
_RETRIES = 10
_WAIT_SECONDS = 0.1


class _Order(NamedTuple):
    """What a node is told of a cell.

    Attributes:
        recipe: the path of its recipe file, as this machine names it.
        text: what is in it.
        runs: the study's folder, as this machine names it.
        token: the SHA-256 of the study's record, by which a node knows that it sees that folder.
        folder: from which relative paths start.
    """

    recipe: Path
    text: str
    runs: Path
    token: str
    folder: Path


@final
class RayPool(Pool):
    """The cells of a study on a Ray cluster.

    Args:
        address: of the cluster, as Ray takes it ("auto", "HOST:6379", "ray://…"), or "local" for one on this machine.
        threads: that each cell computes with, on as many cores.
        study: the study's folder.
        wants_gpu: whether a cell computes on a GPU where the cluster has some.

    Raises:
        UsageError: if Ray is not installed.
        ThawlabError: if there is no such cluster.
    """

    def __init__(self, address: str, threads: int, study: Path, wants_gpu: bool) -> None:
        self._ray = ray = connect(address)
        self._threads, self._study = threads, study
        gpus = 1 if wants_gpu and ray.cluster_resources().get("GPU") else 0
        options = {"num_cpus": threads, "num_gpus": gpus, "memory": CELL_BYTES, "max_retries": _RETRIES}
        self._task = ray.remote(**options)(_run_on_node)
        self._refs: dict[str, Any] = {}
        self.answers: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()

    @property
    def running(self) -> list[str]:
        """The names of the cells that are running or wait for a node."""
        return list(self._refs)

    @property
    def has_room(self) -> bool:
        """Whether the cluster, as it is now, has cores for another cell."""
        return len(self._refs) < max(1, int(self._ray.cluster_resources().get("CPU", 1) // self._threads))

    def give(self, name: str, recipe: Path, runs: Path) -> None:
        """Run a cell on the cluster; its answer comes through `answers`."""
        order = _Order(recipe.resolve(), recipe.read_text(encoding="utf-8"), runs.resolve(), _token_of(runs), _folder())
        ref = self._refs[name] = self._task.remote(order)
        ref.future().add_done_callback(partial(self._answer, name))

    def _answer(self, name: str, future: Future[dict[str, Any]]) -> None:
        """Put what became of a cell into `answers`."""
        exceptions = self._ray.exceptions
        try:
            answer = future.result()
            if (archive := answer.pop("archive", None)) is not None:
                unpacked(archive, self._study)
        except (exceptions.TaskCancelledError, CancelledError):
            answer = {"status": "interrupted"}
        except exceptions.RayError as error:
            answer = {"status": "failed", "reason": f"Ray lost the cell {_RETRIES + 1} times ({first_line(error)[:200]})"}
        except Exception as error:  # a cell without an answer would be waited for for ever
            reason = f"{self._study}: the run that came back cannot be read or written ({first_line(error)})"
            answer = {"status": "failed", "reason": reason}
        self._refs.pop(name, None)
        self.answers.put((name, answer))

    def stop(self, name: str) -> None:
        """Ask one cell to save and stop."""
        if (ref := self._refs.get(name)) is not None:
            self._ray.cancel(ref, force=False)

    def stop_all(self) -> None:
        """Ask all cells to save and stop; those that wait for a node do not begin."""
        for name in self.running:
            self.stop(name)

    def close(self) -> None:
        """Leave the cluster once the running cells have ended."""
        end = time.monotonic() + KILL_SECONDS
        while self._refs and time.monotonic() < end:
            time.sleep(_WAIT_SECONDS)
        self._ray.shutdown()

    def kill(self) -> None:
        """End all cells at once."""
        for ref in list(self._refs.values()):
            self._ray.cancel(ref, force=True)


def _folder() -> Path:
    """Return the folder from which relative paths start."""
    return Path.cwd()


def _token_of(study: Path) -> str:
    record = study / STUDY
    return sha256_of(record) if record.is_file() else ""


def _run_on_node(order: _Order) -> dict[str, Any]:
    """Train a cell, in a process of Ray's; the run lies in the study's folder or is returned as an archive."""
    from thawlab.studies.worker import run_cell

    _prepare_once()
    shares = _token_of(order.runs) == order.token != ""
    with tempfile.TemporaryDirectory(prefix="thawlab-cell-") as place, ExitStack() as stack:
        if order.folder.is_dir():
            stack.enter_context(contextlib.chdir(order.folder))
        recipe, runs = (order.recipe, order.runs) if shares else (Path(place) / order.recipe.name, Path(place) / "runs")
        if not shares:
            recipe.write_text(order.text, encoding="utf-8")
        answer = run_cell(recipe, runs)
        if answer["status"] == "failed":
            answer["reason"] = f"on node {platform.node()}: {answer['reason']}"
        if answer["status"] == "finished" and not shares:
            answer["archive"] = archived(runs / answer["run"])
    return answer


_while_it_lives = ExitStack()


@cache
def _prepare_once() -> None:
    """Make a process of Ray's fit for computing, and let it keep what its cells share."""
    from thawlab import process
    from thawlab.memory import remembering

    process.prepare()
    _while_it_lives.enter_context(remembering())
