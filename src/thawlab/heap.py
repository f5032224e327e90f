"""The C library's heap, where it is GNU's: others are left as they are."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

# Of malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_LARGE = 24 << 20
_LOCK = threading.Lock()
_state = {"kept": 0, "within": 0}


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


def keep_freed() -> None:
    """Let freed memory stay with the process, since every training step asks for the same again.

    glibc gives large blocks back to the system at once, which then clears every page anew for the next step: a tenth to a
    third of a step's time on a CPU. Blocks of more than 24 MiB are still given back: few in number, they would leave holes in
    what stays, and clearing them costs little beside computing them. All threads share two heaps: with one for each, the memory
    that stays would grow with their number. Other C libraries are left as they are.
    """
    library = glibc()
    if library is None:
        return
    library.mallopt(_MMAP_THRESHOLD, _LARGE)
    library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
    library.mallopt(_ARENA_MAX, 2)
    _state["kept"] = 1


@contextmanager
def keeping_large() -> Iterator[None]:
    """Let freed blocks of any size stay, too, within; without effect where `keep_freed` was not called.

    A network that only computes asks for the same few blocks with every batch and leaves few holes, and computes so little
    with each value that clearing the pages anew weighs (benchmarks/README.md, "Images at once").
    """
    library = glibc() if _state["kept"] else None
    if library is None:
        yield
        return
    with _LOCK:
        _state["within"] += 1
        library.mallopt(_MMAP_MAX, 0)
    try:
        yield
    finally:
        with _LOCK:
            _state["within"] -= 1
            if not _state["within"]:
                library.mallopt(_MMAP_MAX, 1 << 16)  # as it begins with


def give_back_freed() -> None:
    """Give what was freed back to the system, which the heap keeps otherwise for whoever asks next."""
    library = glibc()
    if library is not None:
        library.malloc_trim(0)
