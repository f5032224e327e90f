"""Plant near-duplicates among real images and measure how many are found: `python tools/planted_duplicates.py --help`.

Copies of CIFAR-10's images and of real photographs are changed in each way of `planted_copies.CHANGES` and in each pair of
these ways, put among all the others, and looked for without any network. What must not be found is measured on random pairs of
one class. With `--baselines` imagededup's and cleanvision's finders, installed beside, look at the same planted copies.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from measuring import in_memory, machine
from PIL import Image
from planted_copies import CHANGES, PAIRS, changed

from thawlab.data.decode import decode
from thawlab.data.sources import open_source
from thawlab.quality.duplicates import Pair, judged_pairs, near_duplicates
from thawlab.quality.scan import LOOK

Images = list[Image.Image]


class Planted(NamedTuple):
    """Changed copies, how each was changed, and of which image each is a copy."""

    images: Images
    kinds: list[tuple[str, ...]]
    sources: npt.NDArray[np.int64]


def planted(images: Images, each: int, of_pairs: int, seed: int) -> Planted:
    """Return so many copies changed in one way, and so many for each pair of ways; of different images as far as they reach."""
    rng = np.random.default_rng(seed)
    kinds = [(kind,) for kind in CHANGES for _ in range(each)] + [pair for pair in PAIRS for _ in range(of_pairs)]
    rounds = [rng.permutation(len(images)) for _ in range(-(-len(kinds) // len(images)))]
    sources = np.concatenate(rounds)[: len(kinds)]
    others = rng.integers(0, len(images), len(kinds)).tolist()
    copies = [
        changed(images[source], kind, rng, images[other])
        for source, kind, other in zip(sources.tolist(), kinds, others, strict=True)
    ]
    return Planted(copies, kinds, sources)


def small(images: Images) -> npt.NDArray[np.uint8]:
    """Return images as the data check looks at them, uint8, n × 32 × 32 × 3."""
    return np.stack([decode(np.asarray(image), LOOK) for image in images])


def shares(copies: Planted, found: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return the share of planted copies that were found: by single change, of all pairs, and of each kind within pairs."""
    single = np.array([len(kind) == 1 for kind in copies.kinds])
    within = {name: np.array([name in kind for kind in copies.kinds]) & ~single for name in CHANGES}
    return {
        "single": {name: float(found[[kind == (name,) for kind in copies.kinds]].mean()) for name in CHANGES},
        "pairs": float(found[~single].mean()),
        "pairs with": {name: float(found[mask].mean()) for name, mask in within.items()},
    }


def search(table: npt.NDArray[np.uint8], copies: Planted) -> dict[str, Any]:
    """Look for planted copies among all images of a set."""
    started = time.monotonic()
    pairs = near_duplicates(np.concatenate([table, small(copies.images)]))
    seconds = time.monotonic() - started
    found = {(pair.first, pair.second) for pair in pairs}
    hits = np.array([(int(source), len(table) + k) in found for k, source in enumerate(copies.sources.tolist())])
    mirrors = [
        pair.mirrored for pair in pairs if pair.second >= len(table) and copies.sources[pair.second - len(table)] == pair.first
    ]
    return {
        "images": len(table),
        "planted": len(copies.kinds),
        "found": shares(copies, hits),
        "of those found, said to be mirrored": int(sum(mirrors)),
        "pairs among the images themselves": sum(pair.second < len(table) for pair in pairs),
        "seconds": round(seconds, 1),
    }


def random_pairs(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], count: int, seed: int) -> dict[str, Any]:
    """Lay random pairs of one class over each other, as they are and mirrored, and count those taken for near-duplicates."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(labels), count)
    members = {label: np.flatnonzero(labels == label) for label in np.unique(labels).tolist()}
    second = np.array([rng.choice(members[label]) for label in labels[first].tolist()])
    pairs = np.stack([first, second], axis=1)[first != second]
    flagged: list[Pair] = judged_pairs(pixels, pixels, {False: pairs, True: pairs})
    return {"pairs": len(pairs), "flagged": len(flagged), "share": len(flagged) / len(pairs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", required=True, help="a local copy of CIFAR-10, as for --data-dir")
    parser.add_argument("--photos", required=True, type=Path, help="a folder of photographs")
    parser.add_argument("--each", type=int, default=200, help="planted copies of each single change")
    parser.add_argument("--of-pairs", type=int, default=20, help="planted copies of each pair of changes")
    parser.add_argument("--random", type=int, default=100_000, help="random pairs of one class")
    parser.add_argument("--baselines", action="store_true", help="imagededup and cleanvision, which must be installed, too")
    parser.add_argument("--backbone", help="timm folder of the network for imagededup's CNN")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "seed": arguments.seed}
    photos = [Image.open(path).convert("RGB") for path in sorted(arguments.photos.rglob("*.jp*g"))]
    listing, pixels = in_memory(open_source("cifar10", arguments.cifar10))
    pictures = [Image.fromarray(image) for image in pixels]
    sets = {
        "photographs": (photos, planted(photos, arguments.each, arguments.of_pairs, arguments.seed)),
        "CIFAR-10": (pictures, planted(pictures, arguments.each, arguments.of_pairs, arguments.seed)),
    }
    for name, (images, copies) in sets.items():
        result[name] = {"thawlab": search(small(images), copies)}
        print(name, json.dumps(result[name], indent=1), flush=True)
    result["random pairs of one class"] = random_pairs(pixels, listing.labels, arguments.random, arguments.seed)
    print(result["random pairs of one class"], flush=True)
    if arguments.baselines:
        from duplicate_baselines import baselines

        for name, (images, copies) in sets.items():
            labels = listing.labels if name == "CIFAR-10" else None
            result[name] |= baselines(images, copies, arguments.backbone, labels)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
