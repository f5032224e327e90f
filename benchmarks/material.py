"""The benchmarks' data: subsets of CIFAR-10, backbones with random weights, and a folder of JPEGs like those of a camera."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from works import BACKBONES

from thawlab.data.listing import Listing
from thawlab.data.paths import open_path
from thawlab.errors import ThawlabError


def opened(source: Path) -> Listing:
    """Open a source, or end with a line that says why it cannot be."""
    try:
        return open_path(source)
    except ThawlabError as error:
        raise SystemExit(str(error)) from None


def prepare_data(folder: Path, source: Path, share: float = 1.0) -> None:
    """Write the images once, or a share of them, in each program's format: npz for the peers, Parquet for thawlab."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from thawlab.data.decode import decode
    from thawlab.data.preprocessing import Preprocessing

    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    listing = opened(source)
    same = Preprocessing(size=32, mean=(0, 0, 0), std=(1, 1, 1))
    for name, n_train, n_test in (("small", 5000, 1000), ("half", 2500, 1000), ("full", 50000, 10000)):
        parts: dict[str, Any] = {}
        for split, count in (("train", n_train), ("test", n_test)):
            chosen = np.flatnonzero(listing.splits == split)[: round(share * count)]
            parts[f"x_{split}"] = np.stack([decode(listing.images.read(i), same) for i in chosen.tolist()])
            parts[f"y_{split}"] = listing.labels[chosen]
            contents = [{"bytes": listing.images.read(i), "path": listing.ids[i]} for i in chosen.tolist()]
            (folder / name).mkdir(exist_ok=True)
            table = pa.table({"img": contents, "label": listing.labels[chosen]})
            pq.write_table(table, folder / name / f"{split}-00000-of-00001.parquet")
        np.savez(folder / f"{name}.npz", **parts)
    (folder / "done").touch()


def prepare_backbones(folder: Path) -> None:
    """Save random weights as `local-dir:` folders: times do not depend on the values, and nothing must be fetched."""
    import timm
    import torch
    from safetensors.torch import save_file

    for name in BACKBONES:
        target = folder / name
        if (target / "config.json").exists():
            continue
        target.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False, num_classes=0)
        config = {"input_size": [3, 224, 224], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
        save_file(model.state_dict(), str(target / "model.safetensors"))
        (target / "config.json").write_text(
            json.dumps({"architecture": name, "pretrained_cfg": {**config, "interpolation": "bilinear", "crop_pct": 0.875}})
        )


def prepare_jpegs(folder: Path, source: Path, count: int = 10_000) -> None:
    """Write a folder of JPEGs of about 500 × 375 px: mosaics of real images, so that decoding takes a realistic time."""
    if (folder / "done").exists():
        return
    with np.load(source / "full.npz") as table:
        images = table["x_train"]
    rng = np.random.default_rng(0)
    for number in range(count):
        width, height = (500, 375) if number % 4 else (375, 500)
        columns, rows = 6, 5
        tiles = images[rng.integers(0, len(images), columns * rows)].reshape(rows, columns, 32, 32, 3)
        mosaic = Image.fromarray(tiles.transpose(0, 2, 1, 3, 4).reshape(rows * 32, columns * 32, 3))
        target = folder / f"class{number % 10}"
        target.mkdir(parents=True, exist_ok=True)
        large = mosaic.resize((width, height), Image.Resampling.BICUBIC)
        grain = np.asarray(large, dtype=np.int16) + rng.integers(-6, 7, (height, width, 1), dtype=np.int16)
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(target / f"{number:05}.jpg", quality=90)
    (folder / "done").touch()


def prepare_folders(folder: Path, source: Path, counts: dict[str, int]) -> None:
    """Write so many images of each split as PNG, in folders of splits and classes; those of `val` are training images."""

    if (folder / "done").exists():
        return
    listing = opened(source)
    rng = np.random.default_rng(0)
    drawn = {split: rng.permutation(np.flatnonzero(listing.splits == split)) for split in ("train", "test")}
    used = {"train": 0, "test": 0}
    for split, count in counts.items():
        origin = "test" if split == "test" else "train"
        for index in drawn[origin][used[origin] : used[origin] + count].tolist():
            target = folder / split / listing.classes[listing.labels[index]]
            target.mkdir(parents=True, exist_ok=True)
            content = listing.images.read(index)
            with Image.open(io.BytesIO(content)) as image:
                image.save(target / f"{index:05}.png")
        used[origin] += count
    (folder / "done").touch()
