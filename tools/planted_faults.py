"""Plant faults in real images and measure how many the data check finds: `python tools/planted_faults.py --help`.

Duplicates: copies of test images are added to the training images, as they are, saved as JPEG of quality 50, shifted by 2
pixels, 10 % brighter or darker, and mirrored. Labels: some of the training labels are replaced by another class at random,
and the score must rank them first. Prints and writes one JSON document.
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
from PIL import Image
from sklearn.metrics import roc_auc_score

from thawlab.data.dataset import decode_all
from thawlab.data.decode import decode
from thawlab.data.images import ArrayImages
from thawlab.data.listing import Listing
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.sources import open_source
from thawlab.environment import environment
from thawlab.files import cache_folder
from thawlab.inference.feature_cache import cached_rows, frozen_backbone
from thawlab.models.catalog import BackboneSpec
from thawlab.plan.resolve import pretrained_input
from thawlab.process import keep_memory
from thawlab.quality.data_check import check_data
from thawlab.quality.folds import folds_of
from thawlab.quality.label_errors import held_out_probabilities, score_labels
from thawlab.recipe import Data, System

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


Look = tuple[BackboneSpec, Preprocessing, System]


def look_of(source: str, data_dir: str, backbone: str, size: int | None, cache: str | None) -> Look:
    return (*pretrained_input(backbone, Data(source=source, image_size=size)), System(data_dir=data_dir, cache_dir=cache))


def in_memory(listing: Listing) -> tuple[Listing, np.ndarray]:
    """Return a listing of 32-pixel images with its pixels in memory."""
    as_it_is = Preprocessing(size=32, mean=(0, 0, 0), std=(1, 1, 1))
    pixels = np.stack([decode(listing.images.read(k), as_it_is) for k in range(len(listing))])
    return replace(listing, images=ArrayImages(pixels)), pixels


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


def label_errors(listing: Listing, look: Look, seed: int) -> dict[str, Any]:
    """Replace labels and see whether the score ranks them first."""
    train = np.flatnonzero(listing.splits == "train")
    spec, preprocessing, system = look
    dataset = decode_all(listing, preprocessing, system)
    folder = cache_folder(system.cache_dir, "features")
    features = cached_rows(frozen_backbone(spec, preprocessing), dataset, dataset.splits.train, folder)[train]
    truth = listing.labels[train]
    result = {}
    for share in (0.01, 0.03, 0.05):
        rng = np.random.default_rng([seed, int(1000 * share)])
        wrong = rng.random(len(truth)) < share
        labels = np.where(wrong, (truth + rng.integers(1, len(listing.classes), len(truth))) % len(listing.classes), truth)
        started = time.monotonic()
        scores = score_labels(labels, held_out_probabilities(features, labels, folds_of(labels, None, [], 5)))
        suspected = np.zeros(len(labels), dtype=bool)
        suspected[scores.suspects] = True
        result[f"{share:.0%}"] = {
            "planted": int(wrong.sum()),
            "auroc": float(roc_auc_score(wrong, -scores.quality)),
            "suspected": int(suspected.sum()),
            "recall": float(suspected[wrong].mean()),
            "precision": float(wrong[suspected].mean()),
            "right class suggested": float((scores.suggested[wrong] == truth[wrong]).mean()),
            "seconds": round(time.monotonic() - started, 1),
        }
        print(share, result[f"{share:.0%}"], flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", required=True, help="a local copy of CIFAR-10, as for --data-dir")
    parser.add_argument("--backbone", default="bundled", help="backbone whose features find further duplicates")
    parser.add_argument("--label-backbone", required=True, help="backbone that judges the labels; not trained on CIFAR-10")
    parser.add_argument("--label-size", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-dir")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    keep_memory()
    listing = open_source("cifar10", arguments.cifar10)
    look = look_of("cifar10", arguments.cifar10, arguments.backbone, None, arguments.cache_dir)
    judge = look_of("cifar10", arguments.cifar10, arguments.label_backbone, arguments.label_size, arguments.cache_dir)
    import torch

    machine = environment(look[2].model_dump(), torch.device("cpu"))
    result: dict[str, Any] = {
        "machine": {key: machine[key] for key in ("time", "processor", "threads", "packages")},
        "labels": {"backbone": Path(arguments.label_backbone).name, "size": arguments.label_size},
    }
    result["labels"] |= label_errors(listing, judge, arguments.seed)
    result["duplicates"] = duplicates(*in_memory(listing), look, arguments.seed)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
