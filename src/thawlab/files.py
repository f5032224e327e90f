"""Files that a crash cannot leave half written, and the folder for everything that can be made again."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from thawlab.errors import ThawlabError


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
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself must survive a power cut
        finally:
            os.close(folder)
    except OSError as error:
        raise ThawlabError(f"{path}: cannot be written: {error.strerror}; the version before it is untouched") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


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
        raise ThawlabError(f"{path}: is missing from the run; was the training finished?") from None
    except (OSError, ValueError) as error:
        raise ThawlabError(f"{path}: cannot be read ({error}); run the training again to restore it") from None
    if not isinstance(value, dict):
        raise ThawlabError(f"{path}: is not a JSON object")
    return value


def cache_root() -> Path:
    """Return the folder for everything that can be made again: `$THAWLAB_CACHE`, or else the user's cache folder."""
    chosen = os.environ.get("THAWLAB_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else base / "thawlab"
