"""A folder of photographs for `time_to_accuracy.py --folder`: `python benchmarks/fruits_folder.py FRUITS.tar FOLDER`.

Of Fruits-360 (`Training/CLASS/*.jpg` and `Test/CLASS/*.jpg` in the archive) every fourth class, 20 in all; every fifth
training image validates. They show turning fruits, so that images to validate lie between images to train on: easier than
other photographs.
"""

from __future__ import annotations

import argparse
import shutil
import tarfile
import tempfile
from pathlib import Path

EVERY_CLASS, CLASSES, EVERY_IMAGE = 4, 20, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path, help="is made; train/CLASS, val/CLASS and test/CLASS below it")
    options = parser.parse_args()
    if options.folder.exists():
        parser.error(f"{options.folder}: is there already; name a new folder")
    with tempfile.TemporaryDirectory() as unpacked:
        try:
            with tarfile.open(options.archive) as archive:
                archive.extractall(unpacked, filter="data")
        except (OSError, EOFError, tarfile.TarError) as error:
            parser.error(f"{options.archive}: is not to be read as a tar archive ({type(error).__name__})")
        whole = Path(unpacked)
        if not all((whole / part).is_dir() for part in ("Training", "Test")):
            parser.error(f"{options.archive}: holds no Training/CLASS and Test/CLASS")
        for name in sorted(path.name for path in (whole / "Training").iterdir())[::EVERY_CLASS][:CLASSES]:
            for number, file in enumerate(sorted((whole / "Training" / name).glob("*.jpg"))):
                copy(file, options.folder / ("val" if number % EVERY_IMAGE == EVERY_IMAGE - 1 else "train") / name)
            for file in sorted((whole / "Test" / name).glob("*.jpg")):
                copy(file, options.folder / "test" / name)


def copy(file: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, folder)


if __name__ == "__main__":
    main()
