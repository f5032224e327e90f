"""Server-sent events: the epochs of a run as they are written, for as long as somebody watches and it trains."""

import asyncio
import json
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple, final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from thawlab.results import EpochRow
from thawlab.run import RunFolder
from thawlab.serving.refusals import busy
from thawlab.serving.runs_table import Stamps, row_of, stamps_of

_LOOK_SECONDS = 0.5
_LOOKS_FOR_LIFE = 4  # after which it is asked again whether a silent run still lives
_HEARTBEAT_SECONDS = 15.0
_MOST_STREAMS = 64
_PORTION = 8_000_000  # bytes that are read at once
Stamp = tuple[int, int, int]
_OVER = frozenset({"finished", "imported"})  # nothing more will come


class Read(NamedTuple):
    """What a look at `metrics.jsonl` gave.

    Attributes:
        again: whether the file begins anew, so that earlier rows are void.
        rows: those that are new.
        problem: what is wrong with a line, "" where nothing is.
    """

    again: bool
    rows: list[EpochRow]
    problem: str = ""


@final
class Tail:
    """Reads the rows that were added to a file since it was last read.

    The file is replaced as a whole at each epoch, and is shorter after a run went back to its checkpoint. Where the last line
    that was read still stands in its place, what follows it is new; else everything is.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._place, self._last = file, 0, b""
        self._stamp: Stamp | None = None

    def read(self) -> Read:
        """Return the rows that are new; a last line without its end is left for later."""
        try:
            status = self._file.stat()
            if not stat.S_ISREG(status.st_mode):
                raise OSError("no file")  # a pipe would keep whoever reads it
            stamp: Stamp | None = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return Read(False, [])
            with self._file.open("rb") as file:
                file.seek(self._place - len(self._last))
                kept = file.read(len(self._last)) == self._last
                file.seek(self._place if kept else 0)
                content = file.read(_PORTION)
                stamp = None if len(content) == _PORTION else stamp  # there may be more
        except OSError:
            stamp, kept, content = None, self._place == 0, b""
        self._stamp = stamp
        whole = content[: content.rfind(b"\n") + 1]
        if not kept:
            self._place, self._last = 0, b""
        if whole:
            self._place += len(whole)
            self._last = whole.splitlines(keepends=True)[-1]
        rows, problem = _parsed(whole, self._file)
        return Read(not kept, rows, problem)


def _parsed(content: bytes, file: Path) -> tuple[list[EpochRow], str]:
    rows, problem = [], ""
    for line in content.splitlines():
        try:
            row = EpochRow.model_validate_json(line)
            json.dumps(row.model_dump(), allow_nan=False)
            rows.append(row)
        except ValueError:
            problem = f"{file}: has a damaged row; `thawlab repair` restores it"
    return rows, problem


def event(kind: str, text: str) -> bytes:
    """Return an event as it is sent; its text is JSON, which holds no end of a line."""
    return f"event: {kind}\ndata: {text}\n\n".encode()


@final
class Streams:
    """The streams of one server, all of which end when it does."""

    def __init__(self, most: int = _MOST_STREAMS, heartbeat: float = _HEARTBEAT_SECONDS) -> None:
        self._most, self._heartbeat, self._open = most, heartbeat, 0
        self._ending = asyncio.Event()

    @property
    def open(self) -> int:
        """How many are open."""
        return self._open

    def end(self) -> None:
        """End all streams, now and from now on; called in the server's loop."""
        self._ending.set()

    def watch(self, folder: RunFolder, name: str) -> AsyncIterator[bytes]:
        """Return the events of a run under a name.

        They are `row` and `state` as they come, `again` where rows are void, `end` when nothing follows.

        Raises:
            RefusedError: if too many streams are open.
        """
        if self._open >= self._most:
            raise busy(f"{self._most} runs are being watched", 5)
        self._open += 1
        return self._watched(folder, name)

    def left(self) -> None:
        """Make room: one stream is over."""
        self._open -= 1

    async def _watched(self, folder: RunFolder, name: str) -> AsyncIterator[bytes]:
        tail, sent, looks = Tail(folder.metrics), time.monotonic(), 0
        stamps: Stamps = ()
        row, told = None, None
        while not self._ending.is_set() and folder.path.is_dir():
            now = await asyncio.to_thread(stamps_of, folder.path)
            changed, stamps, looks = now != stamps, now, looks + 1
            if row is None or changed or looks % _LOOKS_FOR_LIFE == 0:
                row = await asyncio.to_thread(row_of, name, folder, now)
            found = await asyncio.to_thread(tail.read)
            pieces = [event("again", "null")] if found.again else []
            pieces += [event("row", one.model_dump_json()) for one in found.rows]
            pieces += [event("problem", json.dumps(found.problem))] if found.problem else []
            shown = row.model_dump_json(exclude={"settings", "changed"})
            pieces += [event("state", shown)] if shown != told else []
            told = shown
            # A run that is over was read whole once a look finds nothing new.
            over = row.status in _OVER and not changed and not found.rows
            pieces += [event("end", json.dumps(row.status))] if over else []
            if not pieces and time.monotonic() - sent >= self._heartbeat:
                pieces = [b": still here\n\n"]
            if pieces:
                sent = time.monotonic()
                yield b"".join(pieces)
            if over:
                return
            await self._pause()

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._ending.wait(), _LOOK_SECONDS)
        except TimeoutError:
            return


@final
class Watching(StreamingResponse):
    """The answer that streams a run's events, and makes room when it is over, however it ends."""

    def __init__(self, streams: Streams, folder: RunFolder, name: str) -> None:
        super().__init__(streams.watch(folder, name), media_type="text/event-stream")
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the run is over, the client leaves or the server ends."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.left()
