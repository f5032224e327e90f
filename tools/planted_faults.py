"""Plant faults in real images and measure how many the data check finds: `python tools/planted_faults.py --help`.

Duplicates: copies of test images are added to the training images, as they are, saved as JPEG of quality 50, shifted by 2
pixels, 10 % brighter or darker, and mirrored, and the whole check must name them as leaks. Prints and writes one JSON document.
Harder changes, without a check around them: `planted_duplicates.py`; labels: `planted_labels.py`.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Look, in_memory, machine, opened
from PIL import Image

from thawlab.data.images import ArrayImages
from thawlab.data.listing import Listing
from thawlab.quality.data_check import check_data

PER_KIND = 200


def jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer))


def shifted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    down, right = [(2, 0), (-2, 0), (0, 2), (0, -2)][rng.integers(4)]
    wide = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    return wide[2 + down : 34 + down, 2 + right : 34 + right]


def brightened(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(image * rng.choice([0.9, 1.1]), 0, 255).astype(np.uint8)


KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "exact": lambda image, _: image,
    "jpeg 50": jpeg,
    "shift 2 px": shifted,
    "brightness 10 %": brightened,
    "mirrored": lambda image, _: image[:, ::-1],
}


def duplicates(listing: Listing, pixels: np.ndarray, look: Look, seed: int) -> dict[str, Any]:
    """Plant copies of test images among the training images and look for them."""
    rng = np.random.default_rng(seed)
    sources = rng.permutation(np.flatnonzero(listing.splits == "test"))[: PER_KIND * len(KINDS)]
    kinds = np.repeat(list(KINDS), PER_KIND)
    copies = np.stack([KINDS[kind](pixels[k], rng) for k, kind in zip(sources.tolist(), kinds, strict=True)])
    planted = replace(
        listing,
        ids=(*listing.ids, *(f"planted/{number:04}" for number in range(len(copies)))),
        labels=np.concatenate([listing.labels, listing.labels[sources]]),
        splits=np.concatenate([listing.splits, np.repeat("train", len(copies))]),
        images=ArrayImages(np.concatenate([pixels, copies])),
    )
    started = time.monotonic()
    check = check_data(planted, *look)
    seconds = time.monotonic() - started
    found = {(first, second) for first, second, _ in check.leaks}
    hits = np.array([(int(k), len(listing) + number) in found for number, k in enumerate(sources.tolist())])
    unplanted = [pair for pair in found if pair[1] < len(listing)]
    return {
        "planted per kind": PER_KIND,
        "found": {kind: float(hits[kinds == kind].mean()) for kind in KINDS},
        "pairs between splits that were not planted": len(unplanted),
        "as a share of all pairs found": len(unplanted) / max(len(found), 1),
        "seconds of the check": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", required=True, help="a local copy of CIFAR-10, as for --data-dir")
    parser.add_argument("--backbone", default="bundled", help="backbone whose features find further duplicates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-dir")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    listing, look = opened("cifar10", arguments.cifar10, arguments.cache_dir, arguments.backbone)
    result = {"machine": machine(), "duplicates": duplicates(*in_memory(listing), look, arguments.seed)}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
