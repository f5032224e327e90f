"""Names and digests of millions of images, each in one block of memory; they read like tuples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, final, overload

import numpy as np
import numpy.typing as npt

from thawlab.data.types import Indices

if TYPE_CHECKING:
    import pyarrow as pa

# Texts that are made of a block at a time.
_AT_ONCE = 8192


@final
class Names(Sequence[str]):
    """Names of images: their letters and 8 bytes each, where a tuple of texts takes about 60 more.

    Args:
        texts: an Arrow array of strings, without nulls.
    """

    def __init__(self, texts: pa.Array) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[str, ...]: ...

    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        if isinstance(place, slice):
            return tuple(self.texts.take(np.arange(len(self))[place]).to_pylist())
        name: str = self.texts[range(len(self))[place]].as_py()
        return name

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self.texts.slice(start, _AT_ONCE).to_pylist()

    def chosen(self, indices: Indices) -> Names:
        """Return some of the names."""
        return Names(self.texts.take(indices))


@final
class Digests(Sequence[bytes]):
    """SHA-256 digests: uint8, n × 32."""

    def __init__(self, rows: npt.NDArray[np.uint8]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> bytes: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[bytes, ...]: ...

    def __getitem__(self, place: int | slice) -> bytes | tuple[bytes, ...]:
        if isinstance(place, slice):
            return tuple(row.tobytes() for row in self.rows[place])
        digest: bytes = self.rows[place].tobytes()
        return digest


def picked(names: Sequence[str], indices: Indices) -> Sequence[str]:
    """Return some names, in the form that they came in."""
    return names.chosen(indices) if isinstance(names, Names) else tuple(names[place] for place in indices.tolist())
