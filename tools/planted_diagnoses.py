"""Plant one fault at a time in sound recipes and record the first diagnosis: `python tools/planted_diagnoses.py --help`.

Every fault is planted in three seeds; fifty sound recipes must produce no finding. Thresholds were set on
the seeds from 0 and from 100; those reported begin at 200 (`--first-seed 200`). Prints a line per run, writes a JSON document.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

from thawlab import progress
from thawlab.data.decode import decode
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.sources import open_source
from thawlab.errors import Interrupted, ThawlabError
from thawlab.process import keep_memory
from thawlab.recipe import parse_recipe
from thawlab.results import read_results
from thawlab.runner import train

HEAD = {"name": "head", "train": "head", "epochs": 30, "lr": 1e-3, "patience": 6}
SCRATCH = {"name": "scratch", "optimizer": "adam", "lr": 2e-3, "epochs": 12, "schedule": "one-cycle", "augment": ["shift:0.1"]}
# Findings that do not count against a run: the calibrated probabilities are used anyway.
HARMLESS = {"over-confidence", "under-confidence"}


@dataclass(frozen=True)
class Bench:
    """What all cases share."""

    images: np.ndarray
    labels: np.ndarray
    weights: str
    folder: Path

    def manifest(self, name: str, seed: int, change: Callable[[Rows, np.random.Generator], Rows] | None = None) -> str:
        """Write a folder of CIFAR-10 images with a CSV, changed by a fault, and return its path."""
        rng = np.random.default_rng([seed, 7])
        folder = self.folder / f"{name}-{seed}"
        folder.mkdir(parents=True)
        chosen = rng.permutation(len(self.labels))[:3000]
        rows = [
            Row(self.images[k], int(self.labels[k]), "train" if place < 2000 else "test")
            for place, k in enumerate(chosen.tolist())
        ]
        rows = change(rows, rng) if change else rows
        with (folder / "all.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "split"])
            for number, row in enumerate(rows):
                Image.fromarray(row.image).save(folder / f"{number:05}.png", compress_level=1)
                writer.writerow([f"{number:05}.png", f"class{row.label}", row.split])
        return str(folder / "all.csv")


@dataclass(frozen=True)
class Row:
    """One image of a manifest."""

    image: np.ndarray
    label: int
    split: str


Rows = list[Row]
Case = dict[str, Any]


def photos(bench: Bench, source: str, **data: Any) -> Case:
    """A head on ImageNet features of photographs."""
    return {
        "data": {"source": source, "image_size": 96, "val": 0.2, **data},
        "model": {"backbone": bench.weights},
        "phases": [dict(HEAD)],
    }


def scratch(source: str, backbone: str = "cnn5", **phase: Any) -> Case:
    """A small network from scratch."""
    return {
        "data": {"source": source, "image_size": 32, "val": 0.15},
        "model": {"backbone": backbone},
        "phases": [{**SCRATCH, **phase}],
    }


def noisy(share: float) -> Callable[[Rows, np.random.Generator], Rows]:
    """Replace a share of all labels by another class."""

    def change(rows: Rows, rng: np.random.Generator) -> Rows:
        wrong = rng.random(len(rows)) < share
        shift = rng.integers(1, 10, len(rows))
        return [
            Row(row.image, (row.label + int(shift[k])) % 10 if wrong[k] else row.label, row.split) for k, row in enumerate(rows)
        ]

    return change


def shuffled(rows: Rows, rng: np.random.Generator) -> Rows:
    """Give every image the label of another one."""
    order = rng.permutation(len(rows))
    return [Row(row.image, rows[k].label, row.split) for row, k in zip(rows, order.tolist(), strict=True)]


def leaking(rows: Rows, rng: np.random.Generator) -> Rows:
    """Copy some test images into training as well."""
    test = [row for row in rows if row.split == "test"]
    return rows + [Row(test[k].image, test[k].label, "train") for k in rng.permutation(len(test))[:50].tolist()]


def uneven(rows: Rows, _: np.random.Generator) -> Rows:
    """Keep 6 training images of two classes."""
    left = {0: 6, 1: 6}
    kept = []
    for row in rows:
        if row.split == "train" and row.label in left:
            left[row.label] -= 1
            if left[row.label] < 0:
                continue
        kept.append(row)
    return kept


def shifted_weights(bench: Bench, seed: int) -> str:
    """Write the backbone with BatchNorm statistics of other data."""
    source, target = Path(bench.weights.removeprefix("local-dir:")), bench.folder / f"shifted-{seed}"
    target.mkdir()
    shutil.copy(source / "config.json", target)
    rng = np.random.default_rng(seed)
    state = load_file(source / "model.safetensors")
    for name, values in state.items():
        if name.endswith("running_mean"):
            spread = np.sqrt(state[name.replace("running_mean", "running_var")])
            state[name] = (values + 3 * spread * rng.choice([-1, 1], values.shape)).astype(values.dtype)
    save_file(state, target / "model.safetensors")
    return f"local-dir:{target}"


def faults(bench: Bench, seed: int) -> Iterator[tuple[str, set[str], Case]]:
    """Yield the name, the right causes and the recipe of each fault."""
    plain = bench.manifest("plain", seed)
    yield "normalisation [0, 1] on ImageNet weights", {"wrong-normalisation"}, photos(bench, plain, normalize="unit")
    yield "32 px into a stride of 32", {"input-too-small"}, photos(bench, plain, image_size=32)
    yield "padding instead of enlarging", {"padded-input"}, photos(bench, plain, resize="pad")
    shifted = photos(bench, plain)
    shifted["model"]["backbone"] = shifted_weights(bench, seed)
    yield "BatchNorm statistics of other data", {"batch-norm-mismatch"}, shifted
    yield "labels shuffled", {"chance-level"}, photos(bench, bench.manifest("shuffled", seed, shuffled))
    yield "20 % of the labels wrong", {"label-noise"}, photos(bench, bench.manifest("noisy", seed, noisy(0.2)))
    yield "50 test images trained on", {"leakage"}, photos(bench, bench.manifest("leak", seed, leaking))
    yield (
        "6 images of two classes, 200 of the others",
        {"class-imbalance"},
        photos(bench, bench.manifest("uneven", seed, uneven)),
    )
    yield "15 validation images", {"validation-too-small"}, photos(bench, plain, val=0.0075)
    shapes, digits = f"shapes:1500x32x{seed}", "digits"
    yield "learning rate 300 times too high", {"learning-rate-too-high", "class-collapse"}, scratch(shapes, lr=0.6)
    sgd = {"optimizer": "sgd", "momentum": 0.9, "schedule": "constant"}
    yield "SGD that throws itself out", {"learning-rate-too-high", "class-collapse"}, scratch(digits, lr=3.0, **sgd)
    yield "a network that dies", {"class-collapse", "learning-rate-too-high"}, scratch(digits, lr=0.3)
    yield "learning rate 100 times too low", {"learning-rate-too-low"}, scratch(digits, lr=2e-5, schedule="constant")
    yield "SGD with steps too small", {"learning-rate-too-low"}, scratch(digits, **{**sgd, "lr": 1e-5})
    yield "ended while it rises", {"stopped-early"}, scratch(shapes, "speednet", lr=5e-4, epochs=6, schedule="constant")
    few = scratch(shapes, epochs=60, augment=[])
    few["data"] |= {"train_size": 600, "val": 0.35, "test": 0.3}
    yield "390 images, 60 epochs, nothing against it", {"overfitting"}, few
    long = photos(bench, plain)
    long["phases"] = [{"name": "head", "train": "head", "epochs": 200, "lr": 5e-3}]
    yield "200 epochs of a head, never stopped", {"over-confidence", "overfitting"}, long
    narrow = photos(bench, plain)
    narrow["model"]["head"] = [1]
    narrow["phases"] = [{**HEAD, "lr": 3e-3, "epochs": 100, "patience": 15}]
    yield "a head of a single hidden unit", {"underfitting"}, narrow


def healthy(bench: Bench, first_seed: int) -> Iterator[tuple[str, Case]]:
    """Yield fifty sound recipes of four kinds, with other images, rates and lengths each."""
    for number in range(14):
        seed = first_seed + number
        rng = np.random.default_rng([seed, 1])
        case = photos(bench, bench.manifest("healthy", seed))
        case["phases"] = [{**HEAD, "lr": float(rng.uniform(5e-4, 2e-3)), "epochs": int(rng.integers(20, 40))}]
        yield f"photos {number}", case
    two = {"name": "fine-tune", "optimizer": "adamw", "batch_norm": "train", "epochs": 6, "schedule": "one-cycle"}
    for number in range(12):
        rng = np.random.default_rng([first_seed + number, 2])
        phases = [{**HEAD, "lr": 3e-3}, {**two, "lr": float(rng.uniform(1e-3, 2e-3)), "augment": ["shift:0.08", "rotate:8"]}]
        data = {"source": "digits", "image_size": 32, "val": 0.15}
        yield f"digits in two phases {number}", {"data": data, "model": {"backbone": "bundled"}, "phases": phases}
    for number in range(12):
        rng = np.random.default_rng([first_seed + number, 3])
        backbone = ["cnn5", "vgg10", "speednet"][number % 3]
        yield f"digits from scratch, {backbone} {number}", scratch("digits", backbone, lr=float(rng.uniform(1e-3, 3e-3)))
    for number in range(12):
        rng = np.random.default_rng([first_seed + number, 4])
        source = f"shapes:2000x32x{first_seed + number}"
        yield f"shapes from scratch {number}", scratch(source, "speednet", lr=float(rng.uniform(1.5e-3, 3e-3)), epochs=14)


def run(case: Case, seed: int, folder: Path, cache: Path) -> tuple[list[str], dict[str, Any]]:
    """Train a recipe and return its diagnoses, in the order of the report."""
    recipe = parse_recipe({**case, "seed": seed, "system": {"device": "cpu", "cache_dir": str(cache)}})
    try:
        results = read_results(train(recipe, folder).results)
    except Interrupted:
        raise
    except ThawlabError as error:  # a loss of NaN or infinity ends the run, with advice
        return ["learning-rate-too-high" if "lower its lr" in str(error) else str(error)], {}
    suspects = results.label_suspects
    few = {
        "train": results.train.accuracy,
        "val": results.val.accuracy,
        "test": results.test.accuracy,
        "suspects": suspects.count / max(suspects.n, 1),
        "contradicted when sure": suspects.contradicted_when_sure / max(suspects.sure, 1),
    }
    return [entry.id for entry in results.diagnoses], {key: round(value, 3) for key, value in few.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", required=True, help="a local copy of CIFAR-10, as for --data-dir")
    parser.add_argument("--weights", required=True, help="a pretrained backbone, local-dir:FOLDER")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--healthy", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    progress.silence()
    keep_memory()
    listing = open_source("cifar10", arguments.cifar10)
    same = Preprocessing(size=32, mean=(0, 0, 0), std=(1, 1, 1))
    chosen = np.random.default_rng(0).permutation(len(listing))[:12_000]
    images = np.stack([decode(listing.images.read(k), same) for k in chosen.tolist()])
    planted, sound = [], []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        bench = Bench(images, listing.labels[chosen], arguments.weights, root / "data")
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            for fault, right, case in faults(bench, seed):
                found, few = run(case, seed, root / "runs", root / "cache")
                hit = bool(found) and found[0] in right
                planted.append({"fault": fault, "seed": seed, "right": sorted(right), "found": found, "hit": hit, **few})
                print("ok  " if hit else "MISS", fault, seed, found, few, flush=True)
        for number, (title, case) in enumerate(healthy(bench, arguments.first_seed + 1000)):
            if number % 50 < arguments.healthy:
                found, few = run(case, arguments.first_seed + number, root / "runs", root / "cache")
                alarms = [entry for entry in found if entry not in HARMLESS]
                sound.append({"recipe": title, "found": found, "alarm": bool(alarms), **few})
                print("ALARM" if alarms else "ok   ", title, found, few, flush=True)
    result = {
        "faults": len(planted),
        "right cause first": sum(entry["hit"] for entry in planted) / max(len(planted), 1),
        "healthy": len(sound),
        "false alarms": sum(entry["alarm"] for entry in sound) / max(len(sound), 1),
        "seconds": round(time.monotonic() - started),
        "planted": planted,
        "sound": sound,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: result[key] for key in list(result)[:5]}))


if __name__ == "__main__":
    main()
