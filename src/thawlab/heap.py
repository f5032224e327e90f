"""The C library's heap, where it is GNU's: others are left as they are."""

import platform
from functools import cache
from typing import Any


@cache
def glibc() -> Any:
    """Return GNU's C library, whose heap can be told what to keep; None where the process has another one."""
    if platform.libc_ver()[0] != "glibc":
        return None
    import ctypes

    return ctypes.CDLL(None)


def give_back_freed() -> None:
    """Give what was freed back to the system, which the heap keeps otherwise for whoever asks next."""
    library = glibc()
    if library is not None:
        library.malloc_trim(0)
