"""Many linear heads at once: time and accuracy of `thawlab probe`'s linear heads beside scikit-learn's LogisticRegression.

`python benchmarks/probe_heads.py --backbone local-dir:FOLDER --cifar10 FOLDER --size 64 --out FILE` computes the features of
CIFAR-10 once (kept in the cache), trains 100 heads on the 45,000 training images, chooses one on the 5,000 val images and scores
it on the 10,000 test images; the same for logistic regression over several C. The time is measured once more on all 50,000.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from machine import measure

from thawlab.comparison.paired import PairedComparison
from thawlab.data.dataset import decode_all
from thawlab.data.selection import open_data
from thawlab.data.splits import make_splits
from thawlab.environment import deterministic, environment
from thawlab.files import cache_folder
from thawlab.inference.feature_cache import cached_rows, frozen_backbone
from thawlab.plan.resolve import pretrained_input
from thawlab.probing.heads import PENALTIES, Samples, grid, standardiser
from thawlab.probing.linear import BATCH, EPOCHS, LinearHeads, train_linear
from thawlab.recipe import Data, System

CLASSES = 10


def features(backbone: str, folder: str, size: int) -> tuple[list[Samples], float]:
    """Return the standardised samples of train, val and test, and the seconds that their features took now."""
    data, system = Data(source="cifar10", image_size=size), System(data_dir=folder)
    spec, preprocessing = pretrained_input(backbone, data)
    listing = open_data(data, system)
    splits = make_splits(listing, 0, None, data.val, data.test)
    with deterministic(1):  # the number of threads is part of the cache's key
        dataset = decode_all(listing, preprocessing, system, splits)
        started = time.perf_counter()
        network = frozen_backbone(spec, preprocessing)
        rows = cached_rows(network, dataset, np.arange(len(listing)), cache_folder(None, "features"))
        seconds = time.perf_counter() - started
    parts = [torch.from_numpy(rows.take(part, axis=0)) for part in splits]
    scaled = standardiser(parts[0])
    labels = [torch.from_numpy(dataset.labels[part]) for part in splits]
    return [Samples(scaled(part), truth) for part, truth in zip(parts, labels, strict=True)], seconds


def timed(samples: Samples, seed: int = 0) -> tuple[LinearHeads, dict[str, object]]:
    """Train all heads of the grid; returns them and what it took, with how busy the machine was."""
    rates, decays = grid(samples.features, CLASSES)
    wall, cpu = time.perf_counter(), time.process_time()
    heads = train_linear(*samples, CLASSES, rates, decays, seed)
    taken = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    busy = {"load": os.getloadavg()[0]}
    n = len(samples.labels)
    return heads, {"heads": len(rates), "n": n, **{key: round(value, 2) for key, value in (taken | busy).items()}}


def logistic_regression(train: Samples, val: Samples, test: Samples) -> list[dict[str, object]]:
    """Fit scikit-learn's LogisticRegression from strong to weak regularisation, each from the one before."""
    from sklearn.linear_model import LogisticRegression

    found = []
    head = LogisticRegression(max_iter=1000, warm_start=True)
    for penalty in PENALTIES[2:]:
        head.C = 1 / (penalty * len(train.labels))
        wall, cpu = time.perf_counter(), time.process_time()
        head.fit(train.features.numpy(), train.labels.numpy())
        seconds = {"wall_s": round(time.perf_counter() - wall, 2), "cpu_s": round(time.process_time() - cpu, 2)}
        right = head.predict(test.features.numpy()) == test.labels.numpy()
        accuracy = {"val": head.score(val.features.numpy(), val.labels.numpy()), "test": float(right.mean())}
        found.append({"C": head.C, "iterations": int(head.n_iter_[0]), **accuracy, **seconds, "right": right})
        print({key: value for key, value in found[-1].items() if key != "right"}, flush=True)
        if max(range(len(found)), key=lambda k: found[k]["val"]) < len(found) - 2:
            break  # two in turn were worse on val, and weaker regularisation only takes longer
    return found


def main() -> None:
    """Measure and write a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--cifar10", required=True)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--time-only", action="store_true", help="only time the heads on all 50,000 images")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    (train, val, test), seconds = features(options.backbone, options.cifar10, options.size)
    torch.set_num_threads(options.threads)
    limits = measure("float32")  # bfloat16 takes minutes on processors that lack it
    print(limits, flush=True)

    whole = Samples(torch.cat([train.features, val.features]), torch.cat([train.labels, val.labels]))
    repeated = []
    for seed in range(options.repetitions):
        repeated.append(timed(whole, seed)[1])
        print(repeated[-1], flush=True)
    if options.time_only:
        found = {
            "width": train.features.shape[1],
            "epochs": EPOCHS,
            "batch": BATCH,
            "linear_on_50000": repeated,
            "limits": limits,
        }
        if options.out:
            options.out.write_text(json.dumps({**found, "environment": environment({}, torch.device("cpu"))}, indent=1) + "\n")
        return
    del whole
    heads, taken = timed(train)
    judged = heads.judge(*val)
    best = max(range(len(judged)), key=lambda k: judged[k])
    right = (heads.one(best).logits(test.features)[:, 0].argmax(dim=1) == test.labels).numpy()
    rates, decays = grid(train.features, CLASSES)
    ours = {"rate": float(rates[best]), "decay": float(decays[best]), "val": judged[best][0], "test": float(right.mean())}
    print(ours, taken, flush=True)

    theirs = logistic_regression(train, val, test)
    chosen = max(theirs, key=lambda row: row["val"])
    only_ours, only_theirs = int((right & ~chosen["right"]).sum()), int((~right & chosen["right"]).sum())
    from scipy.stats import binomtest

    p_value = float(binomtest(only_ours, only_ours + only_theirs, 0.5).pvalue)
    pair = PairedComparison(len(right), only_ours, only_theirs, p_value)
    result = {
        "backbone": options.backbone,
        "size": options.size,
        "width": train.features.shape[1],
        "n": {"train": len(train.labels), "val": len(val.labels), "test": len(test.labels)},
        "features_s": round(seconds, 1),
        "epochs": EPOCHS,
        "batch": BATCH,
        "linear": {**ours, **taken},
        "linear_on_50000": repeated,
        "logistic": [{key: value for key, value in row.items() if key != "right"} for row in theirs],
        "logistic_chosen": {key: value for key, value in chosen.items() if key != "right"},
        "difference_test": pair.difference,
        "paired": {"only_linear": only_ours, "only_logistic": only_theirs, "p_value": p_value},
        "limits": limits,
        "environment": environment({}, torch.device("cpu")),
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
