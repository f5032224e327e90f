"""The C library's heap, where it is GNU's: others are left as they are."""

import os
from functools import cache
from typing import Any


@cache
def glibc() -> Any:
    """Return GNU's C library, whose heap can be told what to keep; None where the process has another one."""
    try:
        # `platform.libc_ver` searches the program for the same and is slow to import.
        name = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):  # Windows; macOS and musl
        return None
    if not name or not name.startswith("glibc"):
        return None
    import ctypes

    return ctypes.CDLL(None)


def give_back_freed() -> None:
    """Give what was freed back to the system, which the heap keeps otherwise for whoever asks next."""
    library = glibc()
    if library is not None:
        library.malloc_trim(0)
