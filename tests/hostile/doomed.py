"""A task of `ordeal.py` that fails on purpose."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def doomed(_: str) -> Callable[[int], str]:
    def task(number: int) -> str:
        if number == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 12:
            raise ZeroDivisionError("twelve")
        return "done"

    return task
