"""Pickles that would make a canary file wherever they are unpickled, and files of weights that lie; by name."""

from __future__ import annotations

import builtins
import collections
import gzip
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Reduction = tuple[Callable[..., Any], tuple[Any, ...]]


class Call:
    """An object whose unpickling calls something."""

    def __init__(self, reduction: Reduction) -> None:
        self._reduction = reduction

    def __reduce__(self) -> Reduction:
        return self._reduction


def calls(canary: Path) -> dict[str, Reduction]:
    """Return ways to make a file while something is unpickled."""
    path, code = str(canary), f"open({str(canary)!r}, 'w').close()"
    return {
        "system": (os.system, (f"touch {path}",)),
        "exec": (exec, (code,)),
        "eval": (eval, (f"__import__('pathlib').Path({path!r}).touch()",)),
        "open": (open, (path, "w")),
        "popen": (subprocess.Popen, (["touch", path],)),
        "touch": (Path.touch, (canary,)),
        "copy": (shutil.copyfile, ("/etc/hostname", path)),
        "mkdir": (os.mkdir, (path,)),
        "compile": (collections.namedtuple, ("x", ["y"])),
        "getattr": (builtins.exec, (code, {})),
    }


def old_opcodes(canary: Path) -> bytes:
    """Return a pickle of protocol 0 by hand, which calls without a reduction."""
    return b"(S'touch " + str(canary).encode() + b"'\nios\nsystem\n."


def torch_zip(content: bytes) -> bytes:
    """Return a checkpoint in torch's form of today, whose pickle is the given one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/data/0", bytes(64))
    return buffer.getvalue()


def torch_legacy(content: bytes) -> bytes:
    magic = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join(magic) + content


def npy(content: bytes) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    return buffer.getvalue() + content


def npz(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("ids", "labels", "logits", "samples", "sample_labels", "features"):
            archive.writestr(f"{name}.npy", npy(content))
    return buffer.getvalue()


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda content: content,
    "torch": torch_zip,
    "torch-legacy": torch_legacy,
    "npy": npy,
    "npz": npz,
    "zlib": zlib.compress,
    "gzip": gzip.compress,
}


def pickles(canary: Path) -> dict[str, bytes]:
    """Return hostile pickles in all forms in which they are stored."""
    found = {}
    for number, (name, reduction) in enumerate(calls(canary).items()):
        for form, stored in FORMS.items():
            protocol = (0, 2, 4)[number % 3] if form != "torch" else 2
            found[f"{name}.{form}"] = stored(pickle.dumps({"format": Call(reduction), "state": {}, "model": {}}, protocol))
    for form, stored in FORMS.items():
        found[f"opcodes.{form}"] = stored(old_opcodes(canary))
    return found


def safetensors(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def _one(kind: str = "F32", shape: tuple[int, ...] = (2,), places: tuple[int, int] = (0, 8), **more: object) -> dict[str, object]:
    return {"a": {"dtype": kind, "shape": list(shape), "data_offsets": list(places)}, **more}


SAFETENSORS: dict[str, bytes] = {
    "length-of-all": safetensors(_one(), bytes(8), 2**64 - 1),
    "length-huge": safetensors(_one(), bytes(8), 2**40),
    "length-100-mb": safetensors(_one(), bytes(8), 100_000_000),
    "length-0": safetensors(b"", bytes(8)),
    "offsets-beyond": safetensors(_one(places=(0, 2**40)), bytes(8)),
    "offsets-negative": safetensors(_one(places=(-8, 0)), bytes(8)),
    "offsets-crossed": safetensors(_one(places=(8, 0)), bytes(8)),
    "offsets-shared": safetensors({**_one(), "b": _one()["a"]}, bytes(8)),
    "shape-huge": safetensors(_one(shape=(2**62, 4)), bytes(8)),
    "shape-overflow": safetensors(_one(shape=(2**32, 2**32)), bytes(8)),
    "shape-negative": safetensors(_one(shape=(-2,)), bytes(8)),
    "shape-many": safetensors(_one(shape=(1,) * 10_000, places=(0, 4)), bytes(4)),
    "dtype-unknown": safetensors(_one("F7"), bytes(8)),
    "dtype-object": safetensors(_one("O"), bytes(8)),
    "nan": safetensors(b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}', bytes(8)),
    "lists": safetensors(b"[" * 100_000),
    "objects": safetensors(b'{"a":' * 100_000),
    "duplicates": safetensors(
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, '
        b'"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        bytes(8),
    ),
    "not-utf-8": safetensors(b'{"\xff": {}}'),
    "nul-name": safetensors({"\0": _one()["a"]}, bytes(8)),
    "control-names": safetensors({"\x1b[31m\n": _one()["a"]}, bytes(8)),
    "many-names": safetensors({f"t{k}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for k in range(100_000)}),
    "metadata-odd": safetensors({"__metadata__": {"a": 1}, **_one()}, bytes(8)),
    "metadata-huge": safetensors({"__metadata__": {"a": "x" * 5_000_000}, **_one()}, bytes(8)),
    "other-names": safetensors(_one(), bytes(8)),
    "features-flat": safetensors({"features": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}, bytes(8)),
    "features-text": safetensors({"features": {"dtype": "U8", "shape": [2, 4], "data_offsets": [0, 8]}}, bytes(8)),
    "features-none": safetensors({"features": {"dtype": "F16", "shape": [0, 128], "data_offsets": [0, 0]}}),
    "empty": b"",
    "zeros": bytes(1000),
    "cut": safetensors(_one(), bytes(4)),
    "trailing": safetensors(_one(), bytes(800)),
}


def payloads(canary: Path) -> dict[str, bytes]:
    """Return all of them by name."""
    return {**pickles(canary), **{f"{name}.safetensors": content for name, content in SAFETENSORS.items()}, **_arrays()}


def _arrays() -> dict[str, bytes]:
    """Return tables of arrays that lie, and bombs among them."""
    found = {}
    heads = {
        "shape-huge": {"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**10)},
        "shape-large": {"descr": "<f4", "fortran_order": False, "shape": (2**31,)},
        "shape-negative": {"descr": "<f4", "fortran_order": False, "shape": (-5,)},
        "kind-odd": {"descr": "<U999999999", "fortran_order": False, "shape": (1,)},
        "subarray": {"descr": [("a", "<f4", (2**20, 2**10))], "fortran_order": False, "shape": (4,)},
    }
    for name, head in heads.items():
        array = io.BytesIO()
        np.lib.format.write_array_header_1_0(array, head)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for column in ("ids", "labels", "logits", "samples", "sample_labels"):
                archive.writestr(f"{column}.npy", array.getvalue() + bytes(64))
        found[f"{name}.npz"] = buffer.getvalue()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ids.npy", bytes(60_000_000))
    found["bomb.npz"] = buffer.getvalue()
    for name, columns in {
        "lengths": {"ids": np.array(["a"]), "labels": np.arange(3), "logits": np.zeros((2, 2), np.float32)},
        "flat": {"ids": np.array(["a"]), "labels": np.arange(1), "logits": np.zeros(1, np.float32)},
        "texts": {"ids": np.array(["a"]), "labels": np.array(["b"]), "logits": np.array([["c"]])},
        "labels-beyond": {"ids": np.array(["a"]), "labels": np.array([10**9]), "logits": np.zeros((1, 3), np.float32)},
    }.items():
        buffer = io.BytesIO()
        np.savez(buffer, **columns)
        found[f"{name}.npz"] = buffer.getvalue()
    return found
