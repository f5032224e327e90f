"""Pictures in the forms that a cluster reads."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encoded(number: int, form: str = "PNG") -> bytes:
    """Return a picture that no other number has."""
    rng = np.random.default_rng(number)
    height, width = rng.integers(20, 60, 2)
    pixels = rng.integers(0, 256, 3) + rng.normal(0, 40, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


def named_pictures(count: int, start: int = 0) -> dict[str, bytes]:
    return {f"{number % 3}/{number:05d}.png": encoded(number) for number in range(start, start + count)}


def write_folder(folder: Path, pictures: dict[str, bytes]) -> Path:
    for name, content in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tar_of(members: Iterable[tuple[str, bytes]], mode: Any = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def shard_of(pictures: dict[str, bytes], mode: Any = "w") -> bytes:
    """Return a shard of WebDataset: each picture with its label beside it."""
    members = []
    for name, content in pictures.items():
        members += [(name, content), (name.removesuffix(".png") + ".cls", name[:1].encode())]
    return tar_of(members, mode)


def parquet_of(pictures: dict[str, bytes], group: int = 10, plain: bool = False) -> bytes:
    """Return a Parquet file as Hugging Face writes it, or one with a column of bytes."""
    cells: list[Any] = [content if plain else {"bytes": content, "path": name} for name, content in pictures.items()]
    kind = pa.binary() if plain else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    buffer = io.BytesIO()
    table = pa.table({"image": pa.array(cells, kind), "label": [int(name[0]) for name in pictures]})
    pq.write_table(table, buffer, row_group_size=group)
    return buffer.getvalue()
