"""Sources that are paths: a folder, a zip or tar archive, a folder of Parquet files, a CSV manifest."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from thawlab.data.csv_table import pick_column, read_table
from thawlab.data.images import BytesImages, FileImages, Images, TarImages, ZipImages
from thawlab.data.layout import (
    SPLIT_NAMES,
    Placed,
    class_names,
    has_image_extension,
    is_litter,
    looks_like_image,
    place_files,
)
from thawlab.data.listing import Listing
from thawlab.data.parquet import open_parquet, parquet_files
from thawlab.errors import UsageError, first_line, listed, nearest

_COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "image", "img"),
    "label": ("label", "class", "category", "target", "class_name"),
    "split": ("split", "set", "subset", "fold"),
}


def open_path(path: Path) -> Listing:
    """List the images of a folder, archive, Parquet folder or CSV manifest.

    Raises:
        UsageError: if the path is none of these, or holds no usable images.
    """
    if path.is_dir():
        return open_parquet(path) if parquet_files(path) else _open_folder(path)
    suffixes = "".join(path.suffixes[-2:]).lower()
    if path.suffix.lower() == ".csv":
        return _open_csv(path)
    if path.suffix.lower() == ".parquet":
        return open_parquet(path)
    if path.suffix.lower() == ".zip":
        return _open_zip(path)
    if path.suffix.lower() == ".tar" or suffixes in {".tar.gz", ".tar.xz", ".tar.bz2"} or path.suffix.lower() == ".tgz":
        return _open_tar(path)
    raise UsageError(f"{path}: not a source of images; give a folder, .zip, .tar, .parquet or .csv")


def _from_placed(
    name: str,
    origin: str,
    paths: Sequence[str],
    ignored: list[tuple[str, str]],
    read: Callable[[Sequence[str]], Images],
) -> Listing:
    """Make a listing of files whose paths tell class and split."""
    placed, homeless = place_files(paths, origin)
    classes = class_names(placed, origin)
    label_of = {label: index for index, label in enumerate(classes)}
    names = [item.path for item in placed]
    return Listing(
        name=name,
        classes=classes,
        ids=tuple(names),
        labels=np.array([label_of[item.label] for item in placed], dtype=np.int64),
        splits=np.array([item.split for item in placed]),
        images=read(names),
        ignored=tuple(ignored + homeless),
    )


def _is_text(path: str) -> bool:
    """Say whether a path can be written as UTF-8; an id that cannot would break every file it is written to."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _sift(paths: Sequence[str], head_of: Callable[[str], bytes]) -> tuple[list[str], list[tuple[str, str]]]:
    """Part images from other files; a file without an image's extension is judged by its first bytes."""
    images, ignored = [], []
    for path in paths:
        if is_litter(path):
            continue
        if not _is_text(path):
            ignored.append((ascii(path)[1:-1], "has a name that is not UTF-8; rename it"))
        elif has_image_extension(path) or looks_like_image(head_of(path)):
            images.append(path)
        else:
            ignored.append((path, "is not an image"))
    return images, ignored


def _open_folder(root: Path) -> Listing:
    paths: list[str] = []
    inner: list[str] = []
    special: list[tuple[str, str]] = []
    for folder, folders, names in os.walk(root, followlinks=True):
        folders.sort()
        relative = Path(folder).relative_to(root)
        inner.extend((relative / name).as_posix() for name in folders)
        if len(relative.parts) > 32:
            raise UsageError(f"{folder}: folders are nested too deeply; does a symbolic link lead in a circle?")
        for name in names:
            # A pipe or a device would block whoever reads it.
            path = (relative / name).as_posix()
            blocks = (root / path).exists() and not (root / path).is_file()
            special.append((path, "is not a file")) if blocks else paths.append(path)

    def head_of(path: str) -> bytes:
        try:
            with (root / path).open("rb") as file:
                return file.read(16)
        except OSError:
            return b""

    _refuse_empty_classes(inner, paths, str(root))
    images, ignored = _sift(sorted(paths), head_of)
    ignored += special
    return _from_placed(
        root.resolve().name,
        str(root),
        images,
        ignored,
        lambda names: FileImages(tuple(root / name for name in names)),
    )


def _refuse_empty_classes(folders: Iterable[str], files: Iterable[str], origin: str) -> None:
    """Refuse a class folder without any file: a class nobody can learn is more likely a mistake than a wish.

    Raises:
        UsageError: naming the first empty folder.
    """
    content = [*folders, *(path for path in files if not is_litter(path))]
    occupied = {PurePosixPath(path).parent.as_posix() for path in content}
    # Beside images lies no class folder; an empty folder there is nobody's class.
    beside = {PurePosixPath(path).parent.as_posix() for path in content if has_image_extension(path)}
    hollow = [folder for folder in folders if folder not in occupied and not is_litter(folder)]
    empty = sorted(folder for folder in hollow if PurePosixPath(folder).parent.as_posix() not in beside)
    if empty:
        raise UsageError(f"{origin}/{empty[0]}: this class folder is empty; put images into it or remove it")


def _member_name(name: str) -> str:
    """Return an archive member's path without a leading slash or dot."""
    return PurePosixPath(name.lstrip("/")).as_posix()


def _open_zip(path: Path) -> Listing:
    try:
        with zipfile.ZipFile(path) as archive:
            folders = [_member_name(info.filename) for info in archive.infolist() if info.is_dir()]
            members = {_member_name(info.filename): info.filename for info in archive.infolist() if not info.is_dir()}

            def head_of(name: str) -> bytes:
                with archive.open(members[name]) as file:
                    return file.read(16)

            images, ignored = _sift(sorted(members), head_of)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError) as error:
        raise UsageError(f"{path}: cannot be read as a zip archive: {first_line(error)}") from None
    _refuse_empty_classes(folders, members, str(path))
    return _from_placed(
        path.stem, str(path), images, ignored, lambda names: ZipImages(path, tuple(members[name] for name in names))
    )


def _open_tar(path: Path) -> Listing:
    """List a tar archive; a compressed one is read into memory once, since it has no random access."""
    places: dict[str, tuple[int, int]] = {}
    contents: dict[str, bytes] = {}
    heads: dict[str, bytes] = {}
    folders: list[str] = []
    try:
        with tarfile.open(path, "r:*") as archive:
            compressed = not isinstance(archive.fileobj, io.BufferedReader)  # whatever the name says
            for member in archive:
                name = _member_name(member.name)
                if member.isdir() and name != ".":
                    folders.append(name)
                if member.islnk():
                    member = archive.getmember(member.linkname)  # noqa: PLW2901 - a hard link is the file it names
                if not member.isreg():
                    continue
                file = archive.extractfile(member)
                assert file is not None
                content = file.read() if compressed else file.read(16)
                heads[name] = content[:16]
                places[name] = (member.offset_data, member.size)
                if compressed:
                    contents[name] = content
            while compressed and archive.fileobj is not None and archive.fileobj.read(1 << 20):
                pass  # to the very end, where the checksum stands
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, KeyError) as error:
        raise UsageError(f"{path}: cannot be read as a tar archive: {first_line(error)}") from None
    images, ignored = _sift(sorted(places), heads.__getitem__)
    _refuse_empty_classes(folders, places, str(path))
    name = path.name.split(".")[0]

    def read(names: Sequence[str]) -> Images:
        if compressed:
            return BytesImages([contents[name] for name in names])
        return TarImages(path, tuple(places[name] for name in names))

    return _from_placed(name, str(path), images, ignored, read)


def _open_csv(path: Path) -> Listing:
    """List a CSV with the columns path, label and, optionally, split; paths are relative to the CSV's folder."""
    columns, rows = read_table(path)
    path_column, label_column, split_column = (pick_column(columns, _COLUMNS[role]) for role in ("path", "label", "split"))
    if path_column is None or label_column is None:
        raise UsageError(f"{path}: needs the columns 'path' and 'label'; found {listed(columns) or 'none'}")
    placed, seen = [], set()
    for number, row in rows:
        name, label = (row[path_column] or "").strip(), (row[label_column] or "").strip()
        split = (row.get(split_column) or "").strip().lower() if split_column else "train"
        if not name or not label:
            raise UsageError(f"{path}, line {number}: the path or the label is empty")
        if split not in SPLIT_NAMES:
            raise UsageError(
                f"{path}, line {number}: '{split}' is not a split; write train, val or test{nearest(split, SPLIT_NAMES)}"
            )
        if name in seen:
            raise UsageError(f"{path}, line {number}: '{name}' is listed twice")
        seen.add(name)
        placed.append(Placed(name, label, SPLIT_NAMES[split]))
    if not placed:
        raise UsageError(f"{path}: lists no images")
    classes = class_names(placed, str(path))
    label_of = {label: index for index, label in enumerate(classes)}
    return Listing(
        name=path.stem,
        classes=classes,
        ids=tuple(item.path for item in placed),
        labels=np.array([label_of[item.label] for item in placed], dtype=np.int64),
        splits=np.array([item.split for item in placed]),
        images=FileImages(tuple(path.parent / item.path for item in placed)),
        columns={name: tuple((row.get(name) or "").strip() for _, row in rows) for name in columns},
    )
