from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from thawlab.data.paths import open_path
from thawlab.data.sources import open_source
from thawlab.quality.scan import scan_files, wrong_extensions


def test_every_file_is_looked_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for path, kind, size in (("a/1", "PNG", (12, 8)), ("a/2", "JPEG", (30, 20)), ("b/1", "PNG", (1, 1)), ("b/2", "PNG", (12, 8))):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (200, 60, 20)).save(folder / f"{path}.png", kind)
    (folder / "b" / "1.png").write_bytes(b"")
    files = scan_files(open_path(folder), workers=3)
    assert files.formats == ("PNG", "JPEG", "", "PNG")
    assert files.sizes.tolist() == [[12, 8], [30, 20], [0, 0], [12, 8]]
    assert files.reasons == {2: "empty file"}
    assert files.thumbnails.shape == (4, 32, 32, 3) and files.thumbnails[1].max() > 150
    assert wrong_extensions(open_path(folder).ids, files.formats) == [(1, "JPEG")]


def test_the_number_of_threads_changes_nothing() -> None:
    listing = open_source("shapes:40x16")
    one, many = scan_files(listing, 1), scan_files(listing, 4)
    assert one.digests == many.digests and np.array_equal(one.thumbnails, many.thumbnails)
    assert len(set(one.digests)) > 30 and one.formats == ("",) * 40


def test_documents_and_monsters_are_refused_as_in_training(tmp_path: Path) -> None:
    """Ghostscript would be started by Pillow's reader of EPS; a huge image is told by its head."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "a" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + bytes(4))
    files = scan_files(open_path(tmp_path))
    assert files.reasons == {0: "not an image in a supported format", 1: "too large: 60000×60000 pixels"}
    assert files.formats == ("", "")


def test_blank_images_and_jpegs_without_an_end_are_noted(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    nearly = Image.fromarray(np.random.default_rng(0).integers(120, 123, (40, 40, 3), dtype=np.uint8))
    for name, image in (
        ("a/noise", noise),
        ("a/white", Image.new("RGB", (40, 40), "white")),
        ("b/nearly", nearly),
        ("b/cut", noise),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / f"{name}.jpg", quality=95)
    (tmp_path / "b" / "cut.jpg").write_bytes((tmp_path / "b" / "cut.jpg").read_bytes()[:-2])
    listing = open_path(tmp_path)
    files = scan_files(listing, workers=2)
    assert [listing.ids[k] for k in files.blank] == ["a/white.jpg", "b/nearly.jpg"]
    assert [listing.ids[k] for k in files.unended] == ["b/cut.jpg"] and files.reasons == {}
