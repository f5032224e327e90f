"""Decoded images: kept on the disk by content, or decoded as they are taken; and which of them cannot be decoded."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from thawlab import progress
from thawlab.data.content import UNREADABLE_DIGEST, Scan
from thawlab.data.decode import DECODER, BadImageError, decode
from thawlab.data.images import ArrayImages, content_digest, expect, patiently
from thawlab.data.listing import Listing
from thawlab.data.on_demand import OnDemand
from thawlab.data.parallel import in_threads
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.rowstore import RowStore, marks_in
from thawlab.data.types import Indices, Pixels
from thawlab.errors import ThawlabError
from thawlab.files import read_json, room_for_cache, write_text
from thawlab.recipe import Caching

T = TypeVar("T")
# Decoded rows become valid in portions, so that an interruption loses little of a long decoding; a multiple of the chunks
# that the threads work in.
_PORTION = 1024
# Decoded images that take more bytes are worth a line before they are written.
_WORTH_SAYING = 1 << 30


def ready_rows(listing: Listing, preprocessing: Preprocessing) -> npt.NDArray[np.uint8] | None:
    """Return the images of a listing that holds them at working size already; None where they must be decoded."""
    size = preprocessing.size
    whole = preprocessing.resize != "crop" or preprocessing.crop_pct == 1.0
    images = listing.images
    return images.array if isinstance(images, ArrayImages) and images.array.shape[1:] == (size, size, 3) and whole else None


def _decoder(listing: Listing, preprocessing: Preprocessing, scan: Scan) -> Callable[[int], Pixels | str]:
    """Return the function that gives an image's row, or the reason that its bytes cannot be decoded."""

    def read_and_decode(index: int) -> Pixels:
        content = listing.images.read(index)
        if content_digest(content) != scan.digests[index]:
            raise OSError("has other content")
        return decode(content, preprocessing)

    def decode_one(index: int) -> Pixels | str:
        try:
            return patiently(lambda: read_and_decode(index), listing.ids[index])
        except BadImageError as error:
            return str(error)
        except OSError as error:
            what = "was changed while the data were read; run the command again"
            if listing.known is not None:
                what = f"is not what the index of the shards says ({error}); `thawlab data verify` names what is damaged"
            raise ThawlabError(f"{listing.ids[index]}: {what}") from error

    rows = scan.rows
    return decode_one if rows is None else lambda index: scan.reasons.get(index) or rows[index]


def decoded_rows(
    listing: Listing, indices: Indices, preprocessing: Preprocessing, folder: Path, workers: int | None, scan: Scan, keep: bool
) -> tuple[npt.NDArray[np.uint8], dict[int, str]]:
    """Return all rows as an array of which `indices` are valid, and the reasons of those that could not be decoded.

    Only what the bytes themselves cause is recorded as bad, since the folder stands for the bytes. Where rows are not kept, every
    image is decoded once all the same, to find the bad ones, and a mark is kept of it.
    """
    ready = ready_rows(listing, preprocessing)
    if ready is not None:
        return ready, {}
    size = preprocessing.size
    decode_one = _decoder(listing, preprocessing, scan)
    if not keep and listing.known is not None and listing.known.checked_by == DECODER:
        known = listing.known.reasons
        needed = np.intersect1d(np.array(list(known), dtype=np.int64), indices).tolist()
        return _on_demand(decode_one, listing, size, workers), {index: known[index] for index in needed}
    store = RowStore(folder if keep else folder / "checked", len(listing), (size, size, 3) if keep else (1,), np.uint8)
    bad_file = folder / "bad.json"
    unreadable = {k: reason for k, reason in scan.reasons.items() if scan.digests[k] == UNREADABLE_DIGEST}
    with store.filling(), ThreadPoolExecutor(1) as syncing:
        kept: Future[None] = syncing.submit(lambda: None)
        bad: dict[int, str] = {}
        with suppress(ThawlabError, ValueError):  # where the record is lost or damaged, they are found bad once more
            bad = {int(key): str(reason) for key, reason in read_json(bad_file).items()}
        missing = without(store.missing(indices), [*bad, *unreadable])
        expect(listing.images, missing)
        done = committed = 0
        for chunk, rows in in_threads(decode_one, missing, workers, "decoding" if keep else "checking"):
            found = dict(zip(chunk.tolist(), rows, strict=True))
            bad |= {index: row for index, row in found.items() if isinstance(row, str)}
            good = without(chunk, list(bad))
            if len(good):
                mark = np.ones(1, np.uint8)
                store.write(good, (found[index] if keep else mark for index in good.tolist()))
            done += len(chunk)
            if done % _PORTION == 0 or done == len(missing):
                kept.result()  # the disk takes one portion while the next one is decoded
                good = without(missing[committed:done], list(bad))
                kept, committed = syncing.submit(_keep, store, bad_file, json.dumps(bad, ensure_ascii=False), good), done
        kept.result()
    reasons = bad | unreadable
    found_bad = {index: reasons[index] for index in indices.tolist() if index in reasons}
    if keep:
        return store.array(), found_bad
    return _on_demand(decode_one, listing, size, workers), found_bad


def _keep(store: RowStore, bad_file: Path, bad: str, good: Indices) -> None:
    """Make rows valid, once it is on the disk which ones could not be decoded."""
    write_text(bad_file, bad)
    store.commit(good)


def _on_demand(
    decode_one: Callable[[int], Pixels | str], listing: Listing, size: int, workers: int | None
) -> npt.NDArray[np.uint8]:
    """Return images that are decoded as they are taken; an array in all that is asked of it."""
    images = OnDemand(partial(_sure, decode_one, listing), len(listing), size, workers, partial(expect, listing.images))
    return cast("npt.NDArray[np.uint8]", images)


def _sure(decode_one: Callable[[int], Pixels | str], listing: Listing, index: int) -> Pixels:
    """Return an image that could be decoded before.

    Raises:
        ThawlabError: if it cannot be decoded any more.
    """

    def work() -> Pixels:
        found = decode_one(index)
        if isinstance(found, str):
            raise BadImageError(found)
        return found

    return surely(work, listing.ids[index])


def surely(work: Callable[[], T], name: str) -> T:
    """Return what is done with an image that could be decoded before.

    Args:
        work: reads and decodes it.
        name: of the image.

    Raises:
        ThawlabError: if it cannot be read or decoded any more.
    """
    try:
        return patiently(work, name)
    except (BadImageError, OSError) as error:
        raise ThawlabError(f"{name}: cannot be decoded any more ({error}); run the command again") from error


def keeps_rows(caching: Caching, needed: Indices, listing: Listing, preprocessing: Preprocessing, folder: Path) -> bool:
    """Return whether decoded images are kept, and say so where they take much room."""
    if ready_rows(listing, preprocessing) is not None:
        return True
    room, row = room_for_cache(folder), preprocessing.size**2 * 3
    lacking = row * int((~marks_in(folder, len(listing))[needed]).sum())  # what is there already needs no room
    keeps = caching == "decoded" or (caching == "auto" and lacking <= room)
    takes = f"decoded images take {len(needed) * row / 2**30:,.1f} GiB, of {2 * room / 2**30:,.1f} GiB free in {folder.parent}"
    if not keeps:
        progress.say(f"{takes}: none is kept, each is decoded when it is needed")
    elif lacking > _WORTH_SAYING:
        progress.say(f"{takes}; data.cache=none keeps none of them")
    return keeps


def without(indices: Indices, others: Sequence[int]) -> Indices:
    """Return indices without some others."""
    return indices[~np.isin(indices, others)] if len(others) else indices
