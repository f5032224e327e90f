"""Paths as users write them, files that a crash cannot leave half written, and the folder of all caches."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from thawlab.errors import ThawlabError, UsageError

_MARKER = ".written-by-thawlab"
_OF_RUNS = ("state.json", "results.json", "metrics.jsonl")


def user_path(text: str | Path) -> Path:
    """Return a path that a user wrote, with `~` and environment variables replaced."""
    return Path(os.path.expanduser(os.path.expandvars(text)))  # noqa: PTH111 - leaves an unknown `~name` as it is


def mark_ours(folder: Path) -> None:
    """Mark a new folder, made if needed, as written by thawlab, so that images in it are not taken for data."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        (folder / _MARKER).write_text(
            "Images in this folder were written by thawlab; it does not train on them.\n", encoding="utf-8"
        )


def is_ours(folder: Path) -> bool:
    """Return whether thawlab wrote a folder: a run, a study, or images that explain predictions."""
    is_run = (folder / "recipe.toml").is_file() and any((folder / name).is_file() for name in _OF_RUNS)
    return is_run or (folder / "study.json").is_file() or (folder / _MARKER).is_file()


def refuse_overwrite(path: Path, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuse to replace a file that the user may want to keep.

    Args:
        path: about to be written.
        force: whether the user allowed the replacement.
        inputs: files that are being read; they are never replaced.

    Raises:
        UsageError: if the path is one of the inputs, or exists and `force` is false.
    """
    if any(path.resolve() == other.resolve() or _same_file(path, other) for other in inputs):
        raise UsageError(f"{path}: is also read by this command and would be lost; write to another name")
    if not force and os.path.lexists(path):
        raise UsageError(f"{path}: exists already; choose another name, or add --force to replace it")


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that its name always leads to a whole version: temporary name, sync, rename.

    Args:
        path: the final name; missing folders are made.
        write: is given the open temporary file and writes the content.

    Raises:
        ThawlabError: if the disk does not take the file; what stood under the name before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        reason = _why_unwritten(error, path)
        if reason is None:
            raise
        raise ThawlabError(f"{path}: cannot be written: {reason}; the version before it is untouched") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    sync_folder(path.parent)  # so that the rename survives a power cut


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder; some networks' and Windows' file systems cannot say so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _why_unwritten(error: OSError | RuntimeError, path: Path) -> str | None:
    """Return why a file could not be written; None for an error of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if "PytorchStreamWriter" not in str(error) and "write" not in str(error):  # torch hides the system's error behind its own
        return None
    with contextlib.suppress(OSError):
        if shutil.disk_usage(path.parent).free < 1 << 20:
            return "No space left on device"
    return str(error).splitlines()[0]


def found_path(text: str | Path, bases: Sequence[str] = ()) -> Path:
    """Return a path that a user wrote, looked for here and then, if it is relative, in some folders and the three above each.

    A run lies in the folder of all runs, and this in a project's; farther up a folder of the same name is another one.

    Args:
        text: as it was written.
        bases: the folders of the recipe and the run that it stands in.
    """
    path = user_path(text)
    if path.is_absolute() or path.exists():
        return path
    places = [place for base in bases for place in (user_path(base), *list(user_path(base).parents)[:3])]
    return next((found for place in places if (found := place / path).exists()), path)


def size_of(path: Path) -> int | None:
    """Return the bytes of a file; None where there is no such file."""
    return path.stat().st_size if path.is_file() else None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; names of files that are not UTF-8 are escaped."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON document atomically, readable by people."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON document of a run.

    Raises:
        ThawlabError: if the file is absent or damaged; the message names it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ThawlabError(f"{path}: is missing; finish the training, or let `thawlab repair` restore it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ThawlabError(f"{path}: cannot be read ({error}); `thawlab repair` restores it") from None
    if not isinstance(value, dict):
        raise ThawlabError(f"{path}: is not a JSON object")
    return value


def cache_root() -> Path:
    """Return the folder for everything that can be made again: `$THAWLAB_CACHE`, or else the user's cache folder."""
    chosen = os.environ.get("THAWLAB_CACHE")
    if chosen:
        return user_path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return user_path(base) / "thawlab"
    home = user_path("~")
    # In a container with a user of its own there may be no home: "~" stays as it is, or is the root of all.
    if str(home) == "~" or (home == home.parent and not os.access(home, os.W_OK)):
        return Path(tempfile.gettempdir()) / f"thawlab-{os.getuid() if hasattr(os, 'getuid') else os.getpid()}"
    return home / ".cache" / "thawlab"


def room_for_cache(folder: Path) -> int:
    """Return how many bytes a cache may take in a folder, made or not: half of what is free on its disk."""
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(place).free // 2


def cache_folder(cache_dir: str | None, kind: str) -> Path:
    """Return the folder of one kind of cache ("decoded", "features") under `system.cache_dir`, or under `cache_root()`."""
    return (user_path(cache_dir) if cache_dir else cache_root()) / kind
