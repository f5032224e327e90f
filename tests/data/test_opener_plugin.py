"""A plug-in adds a kind of file: written by copying the neighbour, `open_zip`, and nothing but public names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from thawlab.data.images import ArrayImages
from thawlab.data.listing import Listing, Reading
from thawlab.data.openers import openers
from thawlab.data.sources import open_source
from thawlab.errors import UsageError


@pytest.fixture
def plug_in() -> Iterator[None]:
    @openers.register(".npz")
    def open_npz(path: Path, reading: Reading) -> Listing:
        """List the arrays `images` (uint8, n × height × width × 3) and `labels` (int) of an .npz file."""
        reading.refuse("layout", "path_column", "label_column", what="arrays")
        try:
            with np.load(path, allow_pickle=False) as arrays:
                images, labels = arrays["images"], arrays["labels"]
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(f"{path}: cannot be read as arrays of images: {error}") from None
        return Listing(
            name=path.stem,
            classes=tuple(str(number) for number in range(labels.max() + 1)),
            ids=tuple(f"{index:06d}" for index in range(len(labels))),
            labels=labels.astype(np.int64),
            splits=np.repeat("train", len(labels)),
            images=ArrayImages(images),
        )

    yield
    openers._entries.pop(".npz")


@pytest.mark.usefixtures("plug_in")
def test_a_new_kind_of_file_is_a_source(tmp_path: Path) -> None:
    images = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
    np.savez(tmp_path / "four.npz", images=images, labels=[0, 1, 0, 1])
    listing = open_source(str(tmp_path / "four.npz"))
    assert listing.classes == ("0", "1") and listing.labels.tolist() == [0, 1, 0, 1]
    assert np.array_equal(listing.images.read(2), images[2])


@pytest.mark.usefixtures("plug_in")
def test_the_new_kind_is_named_where_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos.7z").write_bytes(b"")
    with pytest.raises(UsageError, match=r"a file that ends in \.csv, \.npz, \.parquet"):
        open_source(str(tmp_path / "photos.7z"))
    (tmp_path / "bad.npz").write_bytes(b"no arrays")
    with pytest.raises(UsageError, match=r"bad\.npz: cannot be read as arrays of images"):
        open_source(str(tmp_path / "bad.npz"))


def test_a_suffix_has_one_opener() -> None:
    with pytest.raises(ValueError, match=r"the opener '\.zip' is already registered"):
        openers.register(".zip")(lambda _: pytest.fail("never called"))
