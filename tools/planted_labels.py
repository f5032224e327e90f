"""Plant wrong labels among real images and measure how well they are ranked: `python tools/planted_labels.py --help`.

Some of the labels of CIFAR-10's training split are replaced by another class at random. Each judge, and what they say together,
is scored by AUROC and average precision under three of cleanlab's rankings. Then kinds: among some images wrong labels, pictures
of two classes side by side, and pictures with nothing to recognise are planted, and the kind that is said of each is counted.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cleanlab.rank import get_label_quality_scores
from measuring import Look, in_memory, machine, opened
from sklearn.metrics import average_precision_score, roc_auc_score

from thawlab.data.dataset import Dataset, decode_all
from thawlab.data.images import ArrayImages
from thawlab.data.listing import Listing, chosen
from thawlab.data.splits import Splits
from thawlab.files import cache_folder
from thawlab.inference.feature_cache import cached_rows, frozen_backbone
from thawlab.judging.cross_validation import cross_validated
from thawlab.quality.candidates import nearest_features
from thawlab.quality.confident_learning import Probabilities
from thawlab.quality.data_check import EFFORTS, check_data
from thawlab.quality.folds import folds_of
from thawlab.quality.label_errors import agreed, held_out_probabilities, neighbour_probabilities

RANKINGS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def scored(labels: np.ndarray, truth: np.ndarray, said: Probabilities) -> dict[str, Any]:
    """Return how well wrong labels are ranked by each of cleanlab's rankings, and the accuracy against the true labels."""
    wrong = labels != truth
    qualities = {name: get_label_quality_scores(labels, said, method=name) for name in RANKINGS}
    return {
        "accuracy": float((said.argmax(axis=1) == truth).mean()),
        "auroc": {name: round(float(roc_auc_score(wrong, -quality)), 4) for name, quality in qualities.items()},
        "average precision": {
            name: round(float(average_precision_score(wrong, -quality)), 4) for name, quality in qualities.items()
        },
    }


def ranked(dataset: Dataset, look: Look, share: float, seed: int, effort: str) -> dict[str, Any]:
    """Replace labels of the images of the train split, and score each judge and what they say together."""
    spec, preprocessing, system = look
    places, folder = dataset.splits.train, cache_folder(system.cache_dir, "features")
    network = frozen_backbone(spec, preprocessing)
    features = cached_rows(network, dataset, places, folder)[places]
    truth, classes = dataset.labels[places], len(dataset.classes)
    rng = np.random.default_rng([seed, int(1000 * share)])
    wrong = rng.random(len(truth)) < share
    labels = np.where(wrong, (truth + rng.integers(1, classes, len(truth))) % classes, truth)
    folds, started = folds_of(labels, None, [], 5), time.monotonic()
    judges = {"head": held_out_probabilities(features, labels, folds)}
    judges["neighbours"] = neighbour_probabilities(nearest_features(features), labels, folds)
    together = {"quick": agreed([*judges.values()], labels)}
    if effort != "quick":
        turned = cached_rows(network, dataset, places, folder, mirrored=True)[places]
        judges["head, mirrored"] = held_out_probabilities(turned, labels, folds)
        together["normal"] = agreed([*judges.values()], labels)
    if effort == "thorough":
        planted = np.array(dataset.labels)
        planted[places] = labels
        changed = replace(dataset, labels=planted)
        judges["fine-tuned"] = cross_validated(spec, system, changed, preprocessing, folds_of(labels, None, [], 3, seed=1))
        together["thorough"] = agreed([*judges.values()], labels)
    result = {name: scored(labels, truth, said) for name, said in (judges | together).items()}
    return {"planted": int(wrong.sum()), "of": len(labels), "seconds": round(time.monotonic() - started, 1), **result}


def kinds(listing: Listing, pixels: np.ndarray, look: Look, seed: int) -> dict[str, Any]:
    """Plant one image in twenty of each kind, and count which kind is said of those that are suspected, and how many are."""
    rng = np.random.default_rng(seed)
    count, each = len(pixels), len(pixels) // 20
    drawn = rng.permutation(count)[: 3 * each]
    wrong, halves, nothing = drawn[:each], drawn[each : 2 * each], drawn[2 * each :]
    labels, images, side = np.array(listing.labels), np.array(pixels), pixels.shape[1]
    labels[wrong] = (labels[wrong] + rng.integers(1, len(listing.classes), each)) % len(listing.classes)
    for place in halves.tolist():
        other = int(rng.choice(np.flatnonzero(listing.labels != listing.labels[place])))
        images[place, :, side // 2 :] = pixels[other, :, side // 4 : side // 4 + side - side // 2]
        images[place, :, : side // 2] = pixels[place, :, side // 4 : side // 4 + side // 2]
    for place in nothing.tolist():
        blocks = images[place].reshape(8, side // 8, 8, side // 8, 3).swapaxes(1, 2).reshape(64, side // 8, side // 8, 3)
        mixed = blocks[rng.permutation(64)].reshape(8, 8, side // 8, side // 8, 3)
        images[place] = mixed.swapaxes(1, 2).reshape(side, side, 3)
    check = check_data(replace(listing, labels=labels, images=ArrayImages(images)), *look)
    assert check.labels is not None
    suspected = set(check.labelled[check.labels.suspects].tolist())
    said = dict(zip(check.labelled.tolist(), check.labels.kinds.tolist(), strict=True))
    planted = {"another class": wrong, "between two classes": halves, "nothing to recognise": nothing}
    planted["not planted"] = np.setdiff1d(np.arange(count), drawn)
    return {
        name: {
            "planted": len(places),
            "suspected": sum(place in suspected for place in places.tolist()),
            "said of the suspected": dict(Counter(said[place] for place in places.tolist() if place in suspected)),
        }
        for name, places in planted.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", required=True, help="a local copy of CIFAR-10, as for --data-dir")
    parser.add_argument("--backbone", required=True, help="whose features judge the labels; not trained on CIFAR-10")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.03, 0.05])
    parser.add_argument("--images", type=int, default=50_000, help="training images, evenly spaced")
    parser.add_argument("--kinds", type=int, default=5_000, help="images for the kinds; 0 for none")
    parser.add_argument("--effort", choices=EFFORTS, default="normal", help="how many judges there are")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-dir")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    listing, look = opened("cifar10", arguments.cifar10, arguments.cache_dir, arguments.backbone, arguments.size)
    result: dict[str, Any] = {
        "machine": machine(),
        "backbone": Path(arguments.backbone).name,
        "size": arguments.size,
        "ranking used": "self_confidence",
    }
    train = np.flatnonzero(listing.splits == "train")
    some = train[np.linspace(0, len(train) - 1, min(arguments.images, len(train))).astype(int)]
    score = partial(ranked, replace(decode_all(listing, look[1], look[2]), splits=Splits(train=some)), look)
    for share in arguments.shares:
        result[f"{share:.0%}"] = score(share, arguments.seed, arguments.effort)
        print(share, json.dumps(result[f"{share:.0%}"], indent=1), flush=True)
    if arguments.kinds:
        part = train[np.linspace(0, len(train) - 1, arguments.kinds).astype(int)]
        result["kinds"] = kinds(chosen(listing, part), in_memory(listing)[1][part], look, arguments.seed)
        print(json.dumps(result["kinds"], indent=1))
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
