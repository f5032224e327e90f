"""Arrays in `.npz` files, read without what could execute anything and without unpacking more than a file of its size holds."""

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thawlab.data.unpacking import why_not_unpacked

# What a damaged file raises somewhere in numpy's reader, or `zipfile`'s.
DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
DAMAGED += (MemoryError, RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error)


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of an `.npz` file by name.

    Raises:
        FileNotFoundError: if it is absent.
        DAMAGED: if it is no such file, holds pickled objects, or unpacks to far more than it is.
    """
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if reason := why_not_unpacked(info.file_size, info.compress_size):
                raise ValueError(f"{info.filename} {reason}")
            if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ValueError(f"{info.filename} is packed as numpy packs none")
        found = {}
        for info in archive.infolist():
            with archive.open(info) as file:
                shape, _, dtype = _head(file)
                if math.prod(shape) * dtype.itemsize > info.file_size:
                    raise ValueError(f"{info.filename} says that it holds {math.prod(shape):,} values")
            with archive.open(info) as file:
                found[info.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    return found


def _head(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, order, dtype = read(file)
    return shape, order, dtype
