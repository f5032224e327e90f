"""Sources in WebDataset's form: tar files in which `key.jpg` and `key.cls` (or `key.json`) are an image and its label."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from thawlab.data.formats import has_image_extension
from thawlab.data.images import ReadImages
from thawlab.data.layout import Placed
from thawlab.data.listing import Listing, Reading
from thawlab.data.openers import arranged
from thawlab.data.split_names import split_names, split_of_path
from thawlab.errors import UsageError, first_line, listed

if TYPE_CHECKING:
    from thawlab.data.archive_members import Members

_LABELS = (".cls", ".cls.txt", ".label", ".label.txt", ".class", ".json")
_IMAGES = ("image", "img", "input", "rgb", "picture", "photo")
_KEYS = ("label", "class", "cls", "category", "target", "class_name")


def is_webdataset(names: Iterable[str]) -> bool:
    """Return whether the files of an archive are images, beside files of the same keys that hold their labels."""
    images: set[str] = set()
    labels: set[str] = set()
    for name in names:
        key, extension = _key(name)
        if has_image_extension(name):
            images.add(key)
        elif extension in _LABELS and (extension != ".json" or "/" not in name):  # in folders JSON may be any annotation
            labels.add(key)
    return bool(images) and len(images & labels) >= len(images) / 2  # a few may be without a label


def open_shards(path: Path, shards: Mapping[str, Members], reading: Reading) -> Listing:
    """List the images of the tar files of one data set; a shard's name may speak of its split (`train-0000.tar`).

    Raises:
        UsageError: if a label cannot be read.
    """
    reading.refuse("layout", "path_column", "label_column", what="shards of WebDataset")
    placed: list[Placed] = []
    ignored: list[tuple[str, str]] = []
    places: dict[str, tuple[Members, str]] = {}
    splits = split_names(PurePosixPath(shard).stem for shard in shards)
    for shard, members in sorted(shards.items()):
        place = PurePosixPath(shard)
        split = splits[place.stem].split if place.stem in splits else split_of_path(place.parts[:-1]) or "train"
        ignored += [(f"{shard}/{name}", why) for name, why in members.ignored]
        labels = _label_files(members.names)
        for key, names in sorted(_by_key(filter(has_image_extension, members.names)).items()):
            name, *others = _image_first(names, f"{path}: {shard}")
            ignored += [(f"{shard}/{other}", f"lies beside {name}, the image of the same record") for other in others]
            label = _label(partial(members.read, labels[key]), f"{path}: {labels[key]} in {shard}") if key in labels else None
            identifier = f"{shard}/{name}"
            if label is None:
                ignored.append((identifier, "has no label"))
                continue
            places[identifier] = (members, name)
            placed.append(Placed(identifier, label, split))
    if not placed:
        raise UsageError(f"{path}: no image has a label")

    def read(index: int) -> bytes:
        members, name = places[placed[index].path]
        return members.read(name)

    return arranged(
        placed,
        ReadImages(read),
        path.name.split(".")[0],
        str(path),
        layout="WebDataset: the label in a file beside each image",
        ignored=tuple(ignored),
    )


def _by_key(names: Iterable[str]) -> dict[str, list[str]]:
    """Return names by their key, in sorted order."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(_key(name)[0], []).append(name)
    return found


def _label_files(names: Iterable[str]) -> dict[str, str]:
    """Return the file of each key that holds its label; JSON may hold anything, and counts last."""
    found = _by_key(name for name in names if _key(name)[1] in _LABELS)
    return {key: min(of, key=lambda name: _LABELS.index(_key(name)[1])) for key, of in found.items()}


def _image_first(names: Sequence[str], place: str) -> list[str]:
    """Return the images of one record, the one to classify first: the one called so, or the one without a further name.

    Raises:
        UsageError: if several could be it.
    """

    def rank(name: str) -> int:
        middle = _key(name)[1].split(".")[1:-1]
        return 0 if middle and middle[0] in _IMAGES else 1 if not middle else 2

    best = min(map(rank, names))
    if len(names) > 1 and sum(rank(name) == best for name in names) > 1:
        raise UsageError(f"{place}: which of {listed(names, 3)} is the image? Call it KEY.image.png, or leave only it")
    return sorted(names, key=rank)


def _key(name: str) -> tuple[str, str]:
    """Return a member's path up to the first dot of its name, and what follows, as WebDataset takes them apart."""
    folder, _, last = name.rpartition("/")
    stem, dot, extension = last.partition(".")
    return f"{folder}/{stem}" if folder else stem, f"{dot}{extension.lower()}"


def _label(read: Callable[[], bytes], place: str) -> str | None:
    """Return the label in a file; None where it says that there is none."""
    try:
        text = read().decode("utf-8").strip()
        if text.startswith("{"):
            values = json.loads(text)
            value = next(values[key] for key in _KEYS if key in values)
            if value is None:
                return None
            text = str(value).strip()
    except OSError as error:
        raise UsageError(f"{place}: cannot be read: {first_line(error)}") from None
    except (UnicodeDecodeError, ValueError, StopIteration, RecursionError):
        raise UsageError(f"{place}: holds no label; expected a class's number or name, or JSON with 'label'") from None
    if not text:
        raise UsageError(f"{place}: the label is empty")
    return None if text in {"-1", "null"} else text
