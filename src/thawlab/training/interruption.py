"""Ctrl-C and SIGTERM: the first asks to save and stop, the second does what it would do without us."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, final

from thawlab.errors import Interrupted


@final
class Interruption:
    """Whether a signal asked to stop.

    While `deferred` is true, a request waits in `requested` until the loop has saved its state; otherwise there is nothing
    to save and the request is raised where it finds the program.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self.before: dict[int, Any] = {}
        self.deferred = False

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Take note of a signal."""
        if self.requested is not None:
            signal.signal(number, self.before.get(number, signal.SIG_DFL))
            signal.raise_signal(number)
            return
        self.requested = number
        if not self.deferred:
            raise Interrupted("interrupted; run the same command to resume", number)

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Let requests wait for the loop to save."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False


@contextmanager
def watch_signals() -> Iterator[Interruption]:
    """Receive SIGINT and SIGTERM; outside the main thread, where Python allows no handlers, nothing changes."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    interruption.before = {number: signal.signal(number, interruption.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in interruption.before.items():
            signal.signal(number, handler)
