from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from thawlab.data.files import open_path
from thawlab.data.sources import open_source
from thawlab.quality.scan import inspect_files, wrong_extensions

Tree = Callable[..., Path]


def test_every_file_is_looked_at_once(tree: Tree, encoded: Callable[..., bytes]) -> None:
    folder = tree("a/1.png", "a/2.png", "b/1.png", "b/2.png")
    (folder / "a" / "2.png").write_bytes(encoded(kind="JPEG", size=(30, 20)))
    (folder / "b" / "1.png").write_bytes(b"")
    files = inspect_files(open_path(folder), workers=3)
    assert files.formats == ("PNG", "JPEG", "", "PNG")
    assert files.sizes.tolist() == [[12, 8], [30, 20], [0, 0], [12, 8]]
    assert files.reasons == {2: "empty file"}
    assert files.thumbnails.shape == (4, 32, 32, 3) and files.thumbnails[1].max() > 150
    assert wrong_extensions(open_path(folder).ids, files.formats) == [(1, ".png", "JPEG")]


def test_the_number_of_threads_changes_nothing() -> None:
    listing = open_source("shapes:40x16")
    one, many = inspect_files(listing, 1), inspect_files(listing, 4)
    assert one.digests == many.digests and np.array_equal(one.thumbnails, many.thumbnails)
    assert len(set(one.digests)) > 30 and one.formats == ("",) * 40
