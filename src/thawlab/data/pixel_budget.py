"""How many bytes of pixels the threads of this process hold at once while they decode; who finds too few left waits its turn."""

import os
import threading
from collections import deque
from typing import final

from thawlab.heap import give_back_freed

# Bytes that are worth asking the C library for what it keeps.
_LARGE = 32_000_000


@final
class PixelBudget:
    """Bytes that threads take and give back, in the order in which they asked: a large picture is not passed by small ones.

    A thread takes once, and takes nothing more before it has given back: this is why no two can wait for each other. The C
    library keeps freed blocks for the thread that had them, so that each thread would keep its largest picture: whoever takes
    much has them given back to the system first.

    Args:
        size: bytes in all; whoever asks for more waits for all of them, and is then alone.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._begin()
        if hasattr(os, "register_at_fork"):  # the other threads, and what they hold, are not in the child
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._free, self._lock = self.size, threading.Lock()
        self._waiting: deque[tuple[int, threading.Lock]] = deque()

    @property
    def free(self) -> int:
        """Bytes that nobody has taken."""
        return self._free

    def take(self, count: int) -> int:
        """Wait until bytes are free, and until everyone who asked before has theirs.

        Returns:
            How many were taken, to be given back.
        """
        count, turn = min(count, self.size), None
        with self._lock:
            if self._waiting or count > self._free:
                turn = threading.Lock()
                turn.acquire()
                self._waiting.append((count, turn))
            else:
                self._free -= count
        if turn is not None:
            self._wait(count, turn)
        if count > _LARGE:
            give_back_freed()
        return count

    def give(self, count: int) -> None:
        """Give back bytes that were taken."""
        with self._lock:
            self._free += count
            while self._waiting and self._waiting[0][0] <= self._free:
                wanted, turn = self._waiting.popleft()
                self._free -= wanted
                turn.release()

    def _wait(self, count: int, turn: threading.Lock) -> None:
        try:
            turn.acquire()  # whoever gives back enough releases it
        except BaseException:  # an interruption: what stands in the queue would be given to nobody
            with self._lock:
                waits = (count, turn) in self._waiting
                if waits:
                    self._waiting.remove((count, turn))
            self.give(0 if waits else count)
            raise
