"""The run folder: where it lies, what is in it, and how it is written so that a crash leaves nothing half done."""

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, final

from filelock import FileLock, Timeout

from thawlab.errors import BusyError, ThawlabError, UsageError, nearest
from thawlab.files import read_json, write_json
from thawlab.recipe import Recipe
from thawlab.recipe_text import read_recipe

Status = Literal["new", "running", "interrupted", "failed", "finished"]


@final
class _Inside:
    """A file or folder with a fixed name in every run."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: "RunFolder", _owner: type) -> Path:
        return folder.path / self.name


@final
@dataclass(frozen=True)
class RunFolder:
    """The files of one run; holds only the path, so that everything after training reads the folder."""

    path: Path
    recipe_file = _Inside("recipe.toml")  # the recipe as it was resolved
    checkpoint = _Inside("checkpoints/last.pt")  # everything that exact resumption needs
    model = _Inside("model")  # the folder to ship: weights and `model.json`
    metrics = _Inside("metrics.jsonl")  # a JSON row per epoch
    results = _Inside("results.json")  # what was measured
    report = _Inside("report.html")  # the page to look at
    shift = _Inside("shift.json")  # accuracy on corrupted test images, where it was asked for
    slices = _Inside("slices.json")  # accuracy by properties of the pictures, where it was asked for
    imported = _Inside("imported.json")  # of a classifier that others trained: the file that it came from
    images = _Inside("predictions/pictures.npz")  # the few images that the report shows, as uint8 arrays

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def predictions(self, split: str) -> Path:
        """Return the file with the ids, labels and logits of a split."""
        return self.path / "predictions" / f"{split}.npz"

    @property
    def recipe(self) -> Recipe:
        """The recipe that made the run."""
        self.refuse_imported()
        if not self.recipe_file.is_file():
            raise ThawlabError(f"{self.recipe_file}: is missing from the run")
        return read_recipe(self.recipe_file)

    def refuse_imported(self) -> None:
        """Refuse what needs a training, where others trained.

        Raises:
            ThawlabError: if the run was imported.
        """
        if self.imported.is_file():
            raise ThawlabError(f"{self.path}: was imported and not trained here, so that it has no recipe, images or results")

    @property
    def origin(self) -> dict[str, Any]:
        """Of an imported run: the file that it came from, its SHA-256, the side of its input and how that is scaled.

        Raises:
            ThawlabError: if it was trained here, or the record is damaged.
        """
        if not self.imported.is_file():
            raise ThawlabError(f"{self.path}: was trained here and not imported")
        try:
            return read_json(self.imported)
        except ThawlabError:
            raise ThawlabError(f"{self.imported}: is damaged; import the file again, which restores it") from None

    @property
    def status(self) -> Status:
        """How far the run is; where that record is lost or damaged, the other files tell."""
        with contextlib.suppress(ThawlabError):
            if (file := self.path / "state.json").is_file():
                status: Status = read_json(file).get("status", "new")
                return status
        return "finished" if self.results.is_file() else "interrupted" if self.checkpoint.is_file() else "new"

    def set_status(self, status: Status, **details: Any) -> None:
        """Record how far the run is, and the process that records it."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(self.path / "state.json", {"status": status, "time": now, "pid": os.getpid(), **details})

    def log(self, message: str) -> None:
        """Append a line with the time to the run's log; a full disk loses the line, not the run."""
        with contextlib.suppress(OSError), (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            ThawlabError: if another process holds it; the message says which. Also if the folder cannot be made.
        """
        lock = FileLock(self.path / ".lock", timeout=0)
        owner = self.path / ".owner"  # beside the lock, which no other process can read on Windows
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with lock:
                owner.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
                lock.acquire()  # once more, so that it outlasts this block
        except Timeout:
            holder = (owner.read_text(encoding="utf-8") if owner.is_file() else "") or "another process"
            raise BusyError(f"{self.path}: this run is being trained by {holder}; wait for it or stop it") from None
        except OSError as error:
            raise ThawlabError(f"{self.path}: cannot be written: {error.strerror}") from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                owner.unlink()
            lock.release()


def run_folder(recipe: Recipe, runs: Path) -> RunFolder:
    """Return the one folder of a recipe: `runs/<name>-<first 12 digits of the digest>`."""
    return RunFolder(runs / f"{recipe.name}-{recipe.digest[:12]}")


TELLING = ("recipe.toml", "imported.json")  # one of them lies in every run
STUDY = "study.json"  # lies in every study, whose runs lie beside it


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run."""
    return any((folder / file).is_file() for file in TELLING)


def find_run(name: str, runs: Path) -> RunFolder:
    """Return an existing run by its folder's name (within a study STUDY/RUN), the beginning of it, or its path.

    Raises:
        UsageError: if there is no such run; the message gives the nearest name.
    """
    for path in (Path(name), runs / name):
        if is_run(path):
            return RunFolder(path)
    study = name.partition("/")[0] if "/" in name else ""
    inside = f"{study}/" if study and (runs / study / STUDY).is_file() else ""  # a run of a study is STUDY/RUN
    known = sorted(f"{inside}{entry.parent.name}" for file in TELLING for entry in runs.glob(f"{inside}*/{file}"))
    starts = [candidate for candidate in known if candidate.startswith(name)]
    if len(starts) == 1:
        return RunFolder(runs / starts[0])
    if starts:
        raise UsageError(f"'{name}' may be any of {', '.join(starts[:5])}; name one of them in full")
    if Path(name).is_dir():
        raise UsageError(f"{name}: this folder is not a run (it has neither recipe.toml nor imported.json)")
    hint = nearest(name, known) or (f" (there are: {', '.join(known[-5:])})" if known else " (it is empty)")
    raise UsageError(f"there is no run '{name}' in {runs}{hint}")
