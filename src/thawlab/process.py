"""What only the program may do to its own process; imported into a notebook, the library leaves the process as it is."""

import contextlib
import gc
import os
import signal
import sys
import warnings
from io import TextIOWrapper
from typing import NoReturn

from thawlab.heap import keep_freed
from thawlab.late_imports import put_off

# Importing torch allocates a million objects that all stay; looking for garbage among them takes a second.
_ALLOCATIONS_PER_COLLECTION = 100_000
# GNU's OpenMP lets a waiting thread spin this often before it sleeps; by default so long that, beside a busy process, threads
# spend their time slices waiting for one that has none (measured: benchmarks/README.md).
_SPIN = "1000"
# Pillow keeps a picture in blocks of this size; larger ones than the C library keeps for the thread that had them.
_PICTURE_BLOCK = "64m"
_PARENT_DIED = 1  # PR_SET_PDEATHSIG of Linux' prctl


def prepare() -> None:
    """Make this process fit for computing; to be called before torch and Pillow are imported, which read their settings once."""
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION)
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPIN
    os.environ.setdefault("PILLOW_BLOCK_SIZE", _PICTURE_BLOCK)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows another one
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata in images that are read all the same
    keep_freed()
    put_off()


def rank() -> int:
    """Return the number of this process among those that `torchrun` has started, of which number 0 speaks for all; else 0."""
    number, size = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
    return int(number) if number.isdecimal() and size.isdecimal() and int(number) < int(size) else 0


def end_with(parent: int, number: signal.Signals) -> None:
    """Let this process receive a signal when its parent ends, or at once if that has happened already (Linux)."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PARENT_DIED, number)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)


def leave(code: object) -> NoReturn:
    """End the process at once: taking down torch's modules one by one takes longer than loading a model.

    Args:
        code: as `SystemExit` holds it: a number, None for 0, or a message, which is printed and means 1.
    """
    # Everything that the verbs write is written and synced by now; only the streams hold something back.
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    if isinstance(code, str):
        with contextlib.suppress(OSError):
            print(code, file=sys.stderr, flush=True)
    os._exit(code if isinstance(code, int) else int(code is not None))
