"""Fruits-360 as films: `python tools/fruits_films.py fruits360-95.tar --out fruits/`.

Every class of Fruits-360 shows one fruit (or a few of one kind) that turned before a camera: frame numbers are angles, and a
prefix (`r_`, `r2_`) names another axis. The usual split puts frames of the same film into training and testing. This writes two
tables with the same test images, the test frames of each class's `r_` film, and equally many training images of each class:

- `usual.csv`: training frames of all its films, in equal shares, among them the neighbours of the test frames;
- `films.csv`: training frames of its other films only.
"""

from __future__ import annotations

import argparse
import csv
import re
import tarfile
from collections import defaultdict
from pathlib import Path

from thawlab.errors import first_line

_FRAME = re.compile(r"(?P<split>Training|Test)/(?P<label>[^/]+)/(?P<film>(?:r\d*_)?)(?P<angle>\d+)_100\.jpg")
_HELD_OUT = "r_"


def spread(items: list[str], count: int) -> list[str]:
    """Return `count` of the items, evenly spread."""
    return [items[index * len(items) // count] for index in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tar", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"--out {options.out}: exists already; name a new folder")
    try:
        with tarfile.open(options.tar) as archive:
            archive.extractall(options.out, filter="data")
    except (OSError, tarfile.TarError) as error:
        parser.exit(1, f"{options.tar}: cannot be unpacked ({first_line(error)})\n")
    films: dict[str, dict[tuple[str, str], list[str]]] = defaultdict(lambda: defaultdict(list))
    frames = [(path.relative_to(options.out).as_posix(), path.parent) for path in options.out.rglob("*.jpg")]
    found = [(folder, int(match["angle"]), name, match) for name, folder in frames if (match := _FRAME.search(name))]
    for _, _, name, match in sorted(found, key=lambda frame: frame[:3]):
        films[match["label"]][match["split"], match["film"]].append(name)
    if not films:
        parser.exit(1, f"{options.tar}: holds no frame such as Training/Apple Braeburn/r_35_100.jpg\n")
    tables: dict[str, list[tuple[str, str, str]]] = {"usual": [], "films": []}
    for label, of in sorted(films.items()):
        other = [name for (split, film), names in of.items() if split == "Training" and film != _HELD_OUT for name in names]
        same = of["Training", _HELD_OUT]
        count = min(len(other), 2 * len(same))
        mixed = spread(same, count // 2) + spread(other, count - count // 2)
        for table, chosen in (("usual", mixed), ("films", spread(other, count))):
            tables[table] += [(name, label, "train") for name in chosen]
            tables[table] += [(name, label, "test") for name in of["Test", _HELD_OUT]]
    for table, rows in tables.items():
        with (options.out / f"{table}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "label", "split"), *rows])
        print(table, sum(row[2] == "train" for row in rows), "to train on,", sum(row[2] == "test" for row in rows), "to test")


if __name__ == "__main__":
    main()
