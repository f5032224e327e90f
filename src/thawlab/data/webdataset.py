"""Sources in WebDataset's form: tar files in which `key.jpg` and `key.cls` (or `key.json`) are an image and its label."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from thawlab.data.formats import has_image_extension
from thawlab.data.images import ReadImages
from thawlab.data.layout import Placed
from thawlab.data.listing import Listing, Reading
from thawlab.data.openers import arranged
from thawlab.data.split_names import split_name
from thawlab.errors import UsageError

if TYPE_CHECKING:
    from thawlab.data.archives import Members

_LABELS = (".cls", ".cls.txt", ".label", ".label.txt", ".class", ".json")
_KEYS = ("label", "class", "cls", "category", "target", "class_name")


def is_webdataset(names: Iterable[str]) -> bool:
    """Return whether the files of an archive are images, each beside a file of the same key that holds its label."""
    images: set[str] = set()
    labels: set[str] = set()
    for name in names:
        key, extension = _key(name)
        if has_image_extension(name):
            images.add(key)
        elif extension in _LABELS and (extension != ".json" or "/" not in name):  # in folders JSON may be any annotation
            labels.add(key)
    return bool(images) and images <= labels


def open_shards(path: Path, shards: Mapping[str, Members], reading: Reading) -> Listing:
    """List the images of the tar files of one data set; a shard's name may speak of its split (`train-0000.tar`).

    Raises:
        UsageError: if a label cannot be read.
    """
    reading.refuse("layout", "path_column", "label_column", what="shards of WebDataset")
    placed: list[Placed] = []
    places: dict[str, tuple[Members, str]] = {}
    for shard, members in sorted(shards.items()):
        found = split_name(PurePosixPath(shard).stem)
        labels = {_key(name)[0]: name for name in members.names if _key(name)[1] in _LABELS}
        for name in sorted(filter(has_image_extension, members.names)):
            source = labels.get(_key(name)[0])
            if source is None:
                raise UsageError(f"{path}: {name} in {shard} has no file with its label beside it, e.g. {_key(name)[0]}.cls")
            identifier = f"{shard}/{name}"
            places[identifier] = (members, name)
            label = _label(members.read(source), f"{path}: {source} in {shard}")
            placed.append(Placed(identifier, label, found.split if found else "train"))

    def read(index: int) -> bytes:
        members, name = places[placed[index].path]
        return members.read(name)

    return arranged(
        placed, ReadImages(read), path.name.split(".")[0], str(path), layout="WebDataset: the label in a file beside each image"
    )


def _key(name: str) -> tuple[str, str]:
    """Return a member's path up to the first dot of its name, and what follows, as WebDataset takes them apart."""
    folder, _, last = name.rpartition("/")
    stem, dot, extension = last.partition(".")
    return f"{folder}/{stem}" if folder else stem, f"{dot}{extension.lower()}"


def _label(content: bytes, place: str) -> str:
    try:
        text = content.decode("utf-8").strip()
        if text.startswith("{"):
            values = json.loads(text)
            text = str(next(values[key] for key in _KEYS if key in values)).strip()
    except (UnicodeDecodeError, ValueError, StopIteration):
        raise UsageError(f"{place}: holds no label; expected a class's number or name, or JSON with 'label'") from None
    if not text:
        raise UsageError(f"{place}: the label is empty")
    return text
