"""What a study of 24 head cells costs beside one whole run and 24 head trainings, and what a second study computes again.

    python tools/study_cost.py --cifar10 CIFAR10 --backbone local-dir:WEIGHTS --out results/study-cost.json

The whole run starts from nothing: images are decoded, features computed, the head trained, everything judged. The study starts
from nothing too, with a cache of its own. The second study has other heads on the same backbone and images; the rows of features
that the cache holds are counted before and after it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tomli_w

from thawlab.environment import processor_name

PHASE = {"name": "head", "train": "head", "epochs": 15, "lr": 1e-3, "batch_size": 128}


def run(*arguments: str) -> float:
    """Run the program and return its seconds."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "thawlab", *arguments], check=True, capture_output=True)
    return time.monotonic() - began


def rows(cache: Path) -> int:
    """Return how many rows of features a cache holds."""
    return sum(int(np.fromfile(file, dtype=np.bool_).sum()) for file in (cache / "features").glob("*/marks.bin"))


def main() -> None:
    """Time the run and the two studies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--train-size", type=int, default=10_000)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    data = {"source": "cifar10", "train_size": asked.train_size, "image_size": asked.size}
    base = {"name": "head", "data": data, "model": {"backbone": asked.backbone}, "phases": [PHASE]}
    with tempfile.TemporaryDirectory() as folder:
        caches = {name: Path(folder, f"cache-{name}") for name in ("run", "study")}
        recipe = Path(folder, "recipe.toml")
        recipe.write_text(tomli_w.dumps(base))
        seconds = {}
        for name, vary in (
            ("first", {"phases.0.lr": "0.0003,0.001,0.003"}),
            ("second", {"phases.0.label_smoothing": "0.05,0.1,0.2"}),
        ):
            file = Path(folder, f"{name}.toml")
            grid = {"model": {"dropout": [[0.0], [0.1], [0.3], [0.5]]}}
            key = next(iter(vary)).rpartition(".")[2]
            grid["phases"] = {"0": {key: [float(value) for value in vary[f"phases.0.{key}"].split(",")]}}
            file.write_text(tomli_w.dumps({"base": base, "seeds": 2, "vary": grid}))
        os.environ["THAWLAB_CACHE"] = str(caches["run"])
        seconds["whole run"] = run("train", str(recipe), "--runs", f"{folder}/runs", "--data-dir", asked.cifar10)
        os.environ["THAWLAB_CACHE"] = str(caches["study"])
        seconds["study of 24"] = run("study", f"{folder}/first.toml", "--runs", f"{folder}/runs", "--data-dir", asked.cifar10)
        held = rows(caches["study"])
        seconds["second study of 24"] = run(
            "study", f"{folder}/second.toml", "--runs", f"{folder}/runs", "--data-dir", asked.cifar10
        )
        cells = [json.loads(file.read_text())["seconds"] for file in Path(folder, "runs", "first").glob("*/results.json")]
        training = sum(cell["train"] for cell in cells)
        outcome = {
            "command": f"python tools/study_cost.py --size {asked.size} --train-size {asked.train_size} (lite0, CIFAR-10)",
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "seconds_of_24_head_trainings": round(training, 1),
            "allowed": round(1.5 * seconds["whole run"] + training, 1),
            "within": seconds["study of 24"] <= 1.5 * seconds["whole run"] + training,
            "feature_rows_after_first_study": held,
            "feature_rows_after_second_study": rows(caches["study"]),
            "mean_seconds_per_cell": {part: round(float(np.mean([cell[part] for cell in cells])), 2) for part in cells[0]},
        }
    asked.out.write_text(json.dumps(outcome, indent=2) + "\n")
    print(json.dumps(outcome, indent=2))


if __name__ == "__main__":
    main()
