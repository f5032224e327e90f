"""Sources that are paths: a folder of images, of Parquet files, a CSV manifest, or a file with an opener of its own."""

import os
from pathlib import Path

from thawlab.data import archives  # noqa: F401 - registers its openers
from thawlab.data.csv_table import pick_column, read_table
from thawlab.data.images import FileImages, patiently
from thawlab.data.layout import SPLIT_NAMES, Placed, is_litter
from thawlab.data.listing import Listing
from thawlab.data.openers import arranged, arranged_by_path, opener_of, openers
from thawlab.data.parquet import open_parquet, parquet_files
from thawlab.errors import ThawlabError, UsageError, listed, nearest

_COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "image", "img"),
    "label": ("label", "class", "category", "target", "class_name"),
    "split": ("split", "set", "subset", "fold"),
}


def open_path(path: Path) -> Listing:
    """List the images of a folder, or of a file that has an opener.

    Raises:
        UsageError: if the path is neither, or holds no usable images.
    """
    if path.is_dir():
        return open_parquet(path) if parquet_files(path) else _open_folder(path)
    opener = opener_of(path)
    if opener is None:
        raise UsageError(f"{path}: not a source of images; give a folder, or a file that ends in {listed(openers)}")
    return opener(path)


def _open_folder(root: Path) -> Listing:
    paths: list[str] = []
    inner: list[str] = []
    special: list[tuple[str, str]] = []

    def refuse(error: OSError) -> None:
        if not is_litter(Path(error.filename).relative_to(root).as_posix()):
            raise ThawlabError(f"{error.filename}: this folder cannot be listed: {error.strerror}; its images would be missed")

    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
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

    def read_head(path: str) -> bytes:
        with (root / path).open("rb") as file:
            return file.read(16)

    def head_of(path: str) -> bytes:
        try:
            return patiently(lambda: read_head(path), path)
        except OSError:
            return b""

    def read(path: str) -> bytes:
        return FileImages((root / path,)).read(0)

    return arranged_by_path(root.resolve().name, str(root), inner, paths, head_of, read, special)


@openers.register(".csv")
def open_csv(path: Path) -> Listing:
    """List a CSV with the columns path, label and, optionally, split; paths are relative to the CSV's folder."""
    columns, rows = read_table(path)
    path_column, label_column, split_column = (pick_column(columns, _COLUMNS[role]) for role in ("path", "label", "split"))
    if path_column is None or label_column is None:
        raise UsageError(f"{path}: needs the columns 'path' and 'label'; found {listed(columns) or 'none'}")
    placed, seen = [], set()
    for number, row in rows:
        written, label = row[path_column] or "", (row[label_column] or "").strip()
        # The blanks around a name do not count, unless a file is really named so.
        name = written if written != written.strip() and (path.parent / written).is_file() else written.strip()
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
    images = FileImages(tuple(path.parent / item.path for item in placed))
    values = {name: tuple((row.get(name) or "").strip() for _, row in rows) for name in columns}
    return arranged(placed, images, path.stem, str(path), columns=values)
