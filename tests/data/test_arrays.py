from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from thawlab.data.arrays import DAMAGED, read_arrays


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_numpy_reads_them(save: object, tmp_path: Path) -> None:
    columns = {
        "a": np.arange(6).reshape(2, 3),
        "b": np.array(["x", "ü"]),
        "c": np.asfortranarray(np.eye(3)),
        "d": np.zeros((0, 4)),
    }
    save(tmp_path / "x.npz", **columns)  # type: ignore[operator]
    found = read_arrays(tmp_path / "x.npz")
    assert found.keys() == columns.keys()
    for name, column in columns.items():
        assert found[name].dtype == column.dtype and np.array_equal(found[name], column)


def written(path: Path, head: dict[str, object], content: bytes, method: int = zipfile.ZIP_DEFLATED) -> None:
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, head)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.npy", array.getvalue() + content)


@pytest.mark.parametrize(
    ("shape", "kind", "method", "reason"),
    [
        ((2**40,), "<f4", zipfile.ZIP_DEFLATED, "says that it holds 1,099,511,627,776 values"),
        ((2,), "|O", zipfile.ZIP_DEFLATED, "Object arrays cannot be loaded"),
        ((2,), "<f4", zipfile.ZIP_BZIP2, "packed as numpy packs none"),
    ],
)
def test_what_lies_is_refused(shape: tuple[int, ...], kind: str, method: int, reason: str, tmp_path: Path) -> None:
    written(tmp_path / "x.npz", {"descr": kind, "fortran_order": False, "shape": shape}, bytes(64), method)
    with pytest.raises(DAMAGED, match=reason):
        read_arrays(tmp_path / "x.npz")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(40_000_000))
    with pytest.raises(DAMAGED, match="over 100 times what it is stored in"):
        read_arrays(tmp_path / "x.npz")


def test_no_archive_is_none(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(3))
    with pytest.raises(zipfile.BadZipFile):
        read_arrays(tmp_path / "x.npy")
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none.npz")
