"""Do learning curves of real trainings foretell? `python tools/learning_curve_backtest.py measure … --out FILE`, then `judge`.

`measure` trains every backbone on nested subsets of every data set, frozen (a linear head on its features) and fine-tuned (that
head, then all layers), with several seeds, and keeps the test errors; it goes on where it stopped. No epoch is chosen by
validation. `judge` fits the sizes up to N/4 and compares what that foretells for N with what was measured there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from thawlab import process
from thawlab.environment import choose_device, deterministic
from thawlab.files import write_json
from thawlab.judging.subject import outputs_of
from thawlab.memory import remembering
from thawlab.plan.resolve import resolve
from thawlab.recipe import parse_recipe
from thawlab.run import RunFolder
from thawlab.training.context import prepare
from thawlab.training.fit import Timing, fit
from thawlab.training.interruption import watch_signals
from thawlab.training.state import TrainingState

SMALLEST, STEP = 35, 2**0.5
LARGEST = {"frozen": 4600, "fine-tuned": 1200}
HEAD = {"name": "head", "train": "head", "epochs": 30, "batch_size": 32, "lr": 1e-3, "schedule": "cosine"}
FINE_TUNE = {"name": "fine-tune", "train": "all", "epochs": 4, "batch_size": 32, "optimizer": "adamw", "lr": 5e-4}
FINE_TUNE |= {"weight_decay": 0.02, "schedule": "cosine", "layer_decay": 0.9}
TESTED = 2000  # of the test images, the same for all; all of a smaller test split


def sizes_of(way: str, available: int) -> list[int]:
    """Return sizes that grow by the square root of two."""
    sizes = [round(SMALLEST * STEP**k) for k in range(40)]
    return [size for size in sizes if size <= min(LARGEST[way], available)]


def error_of(dataset: dict[str, Any], backbone: str, way: str, size: int, seed: int, image_size: int) -> tuple[float, int]:
    """Train once; return the error and the number of test images."""
    phases = [HEAD] if way == "frozen" else [HEAD, FINE_TUNE]
    data = {"source": dataset["source"], "train_size": size, "val": 0.0, "image_size": image_size}
    system = {"threads": 1, "workers": 1, "data_dir": dataset.get("data_dir")}
    table = {"seed": seed, "data": data, "model": {"backbone": backbone}, "phases": phases, "system": system}
    closed, spec = resolve(parse_recipe({**table, "evaluation": {"calibrate": False}}))
    with tempfile.TemporaryDirectory() as folder, deterministic(1), watch_signals() as interruption:
        (run := RunFolder(Path(folder) / "run")).path.mkdir()
        context = prepare(closed, spec, choose_device("cpu"), run, interruption)
        trained = fit(context, TrainingState(), None, Timing())
        test = context.dataset.splits.test
        some = np.sort(np.random.default_rng(0).permutation(test)[:TESTED])
        logits = outputs_of(context, trained, context.dataset, some, "", features=False).logits
    return float((logits.argmax(axis=1) != context.dataset.labels[some]).mean()), len(some)


def write_digits(options: argparse.Namespace) -> None:
    """Write scikit-learn's handwritten digits as images with a fixed split, since splits made here go with the seed."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    options.out.mkdir(parents=True)
    rows = ["path,label,split"]
    for number, index in enumerate(order):
        Image.fromarray((digits.images[index] * 15.9375).astype(np.uint8)).save(options.out / f"{index}.png")
        rows.append(f"{index}.png,{digits.target[index]},{'test' if number < 500 else 'train'}")
    (options.out / "digits.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def measure(options: argparse.Namespace) -> None:
    """Fill the table of errors, curve after curve."""
    process.prepare()
    content = json.loads(options.out.read_text()) if options.out.is_file() else {"curves": {}}
    datasets = [dict(zip(("source", "data_dir"), text.split("="), strict=False)) for text in options.datasets]
    with remembering():
        for dataset in datasets:
            for backbone in options.backbones:
                for way in options.ways:
                    available = 1297 if dataset["source"].endswith("digits.csv") else LARGEST[way]
                    name = f"{Path(dataset['source']).stem} {Path(backbone).name} {way}"
                    curve = content["curves"].setdefault(name, {"errors": {}, "seconds": 0.0})
                    for size in sizes_of(way, available):
                        row = curve["errors"].setdefault(str(size), [])
                        for seed in range(len(row), options.seeds):
                            started = time.monotonic()
                            error, curve["n_test"] = error_of(dataset, backbone, way, size, seed, options.image_size)
                            row.append(error)
                            curve["seconds"] = round(curve["seconds"] + time.monotonic() - started, 1)
                            write_json(options.out, content)
                    print(name, {size: round(float(np.mean(row)), 4) for size, row in curve["errors"].items()}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("measure")
    command.add_argument("--datasets", nargs="+", required=True, help="NAME or NAME=FOLDER")
    command.add_argument("--backbones", nargs="+", required=True)
    command.add_argument("--ways", nargs="+", default=["frozen", "fine-tuned"])
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--image-size", type=int, default=48)
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(run=measure)
    command = commands.add_parser("digits")
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(run=write_digits)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
