"""Trying again what failed for a reason that may be over in a moment."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def tried_again(work: Callable[[], T], pauses: Sequence[float], waits: Callable[[Exception, float], bool]) -> T:
    """Return what `work` returns, after trying again as often as there are pauses.

    Args:
        work: to do; every error that it raises may be tried again.
        pauses: seconds before each further try.
        waits: is told the error and the pause before each of these; whether another try may mend it.

    Raises:
        Exception: the last error, or the first that no further try mends.
    """
    for pause in pauses:
        try:
            return work()
        except Exception as error:
            if not waits(error, pause):
                raise
        time.sleep(pause)
    return work()
