"""The folder of Parquet parts: one per block, whole or absent, each saying whose predictions it holds."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout

from thawlab.errors import BusyError, ThawlabError, UsageError
from thawlab.files import mark_ours, write_atomically, write_json

if TYPE_CHECKING:
    from thawlab.deploy.prediction import Prediction

_KEY = b"thawlab"
# Readers of folders of Parquet files pass over names that begin with an underscore.
SUMMARY = "_predictions.json"


class Identity(NamedTuple):
    """Whose predictions a folder holds: parts of another one are not mixed with them.

    Attributes:
        model: a digest of the model, and the engine.
        top_k: how many classes each prediction names.
        sources: what is predicted, as the command names it.
    """

    model: str
    top_k: int
    sources: tuple[str, ...]


class Part(NamedTuple):
    """What a part says of itself: its rows, how many of them hold an error, and what is wrong with its shard, or nothing."""

    rows: int
    failed: int
    flaws: tuple[str, ...] = ()


def part_of(predictions: Iterable[Prediction], identity: Identity, flaws: list[str]) -> bytes:
    """Return the predictions of a block as a Parquet file.

    Args:
        predictions: of its pictures.
        identity: of the folder that it goes to.
        flaws: of the shard; may grow until the last prediction was taken.
    """
    from thawlab.deploy.output import row_of, write_parquet  # torch, which a process that only looks around does without

    counts = {"rows": 0, "failed": 0}

    def rows() -> Iterator[dict[str, Any]]:
        for prediction in predictions:
            counts["rows"] += 1
            counts["failed"] += prediction.error is not None
            yield row_of(prediction)

    def note() -> dict[str, str]:
        return {_KEY.decode(): json.dumps({**identity._asdict(), **counts, "flaws": flaws})}

    content = io.BytesIO()
    write_parquet(content, rows(), identity.top_k, note)
    return content.getvalue()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a folder of parts, if needed, and hold it for this process.

    Raises:
        BusyError: if another process writes into it.
        UsageError: if it is something else.
        ThawlabError: if it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; with --ray predictions go to a folder")
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        mark_ours(folder)
        lock.acquire()
    except Timeout:
        raise BusyError(f"{folder}: another process is predicting into it; wait for it, or give another --out") from None
    except OSError as error:
        raise ThawlabError(f"{folder}: cannot be written: {error.strerror or error}") from None
    try:
        for left_over in folder.glob(".part-*.tmp"):  # of a process that was killed while it wrote
            left_over.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def parts_in(folder: Path, identity: Identity) -> dict[str, Part]:
    """Return the parts of a folder by their names.

    Raises:
        UsageError: if one is of another model, source or `top_k`, or the folder holds something else.
        ThawlabError: if one is damaged.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        said = _said(path) if path.suffix == ".parquet" and path.is_file() else {}
        theirs = Identity(said.get("model", ""), said.get("top_k", 0), tuple(said.get("sources", ())))
        if theirs != identity:
            raise UsageError(f"{path}: {_difference(theirs, identity)}; move it away, or give another --out")
        found[path.name] = Part(said["rows"], said["failed"], tuple(said["flaws"]))
    return found


def _said(path: Path) -> dict[str, Any]:
    """Return what a Parquet file says of itself; nothing where it is none of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path).metadata or {}
        said: dict[str, Any] = json.loads(metadata.get(_KEY, b"{}"))
        return said
    except (pa.ArrowException, OSError, ValueError):
        raise ThawlabError(f"{path}: is damaged; delete it, and the same command predicts its pictures again") from None


def _difference(theirs: Identity, ours: Identity) -> str:
    if not theirs.model:
        return "is none of this command's parts"
    if theirs.model != ours.model:
        return "holds predictions of another model, or with another --engine"
    if theirs.top_k != ours.top_k:
        return f"holds predictions with --top-k {theirs.top_k}"
    return f"holds predictions of {', '.join(theirs.sources)}"


def add_part(folder: Path, name: str, content: bytes) -> Part:
    """Write a part, all of it or nothing, and return what it says of itself.

    Raises:
        ThawlabError: if it cannot be written.
    """
    write_atomically(folder / name, lambda file: file.write(content))
    said = _said(folder / name)
    return Part(said["rows"], said["failed"], tuple(said["flaws"]))


def unseal(folder: Path) -> None:
    """Take away the summary, since parts are about to come."""
    (folder / SUMMARY).unlink(missing_ok=True)


def seal(folder: Path, identity: Identity, parts: dict[str, Part]) -> None:
    """Write the summary that says that all parts are there."""
    totals = {"count": sum(part.rows for part in parts.values()), "failed": sum(part.failed for part in parts.values())}
    flaws = [flaw for part in parts.values() for flaw in part.flaws]
    write_json(folder / SUMMARY, {**identity._asdict(), **totals, "parts": len(parts), "flaws": flaws})
