"""Time speednet's whole recipe against one epoch of the tutorial Keras ResNet-20, alternating: `python benchmarks/speednet.py`.

For each seed: one epoch of `peers/keras_tutorial.py --model resnet20` in a process of its own, in float32, the faster
precision there (results/2026-11-22-cpu-b.json), then the whole recipe in a fresh folder of runs. The test split is read once
per seed, after training. Seconds of training are those of the phases: from the first step on data in memory to the last weights.
Nothing is compiled; fitting the whitening to 5,000 images in memory is stated apart. The ratio is training seconds over the
Keras epoch of the same repetition.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
from material import prepare_data

HERE = Path(__file__).resolve().parent


def keras_epoch(python: str, images: Path) -> dict[str, Any]:
    """Train the tutorial's ResNet-20 for one epoch of 50,000 images and return its seconds."""
    program = [python, str(HERE / "peers" / "keras_tutorial.py"), str(images), "--model", "resnet20"]
    done = subprocess.run([*program, "--all-epochs", "1", "--size", "32"], capture_output=True, text=True, check=True)
    return {"seconds": json.loads(done.stdout[done.stdout.index("{") :])["seconds"]["all"]}


def whitening_seconds() -> float:
    """Return how long fitting the first layer takes, on images of noise."""
    import torch

    from thawlab.models.whitening import PatchWhitening

    layer, inputs = PatchWhitening(2), torch.randn(5000, 3, 32, 32)
    started = time.perf_counter()
    layer.fit(inputs)
    return round(time.perf_counter() - started, 3)


def speednet(recipe: Path, data: Path, seed: int, runs: Path) -> dict[str, Any]:
    """Train a recipe with a seed and return its times and accuracies."""
    command = [str(Path(sys.executable).with_name("thawlab")), "train", str(recipe), f"seed={seed}", "--runs", str(runs)]
    done = subprocess.run([*command, "--data-dir", str(data), "--json"], capture_output=True, text=True, check=True)
    results = json.loads(done.stdout[done.stdout.index("{") :])
    return {
        "seed": seed,
        "seconds": sum(phase["seconds"] for phase in results["phases"]),
        "total_seconds": results["seconds"]["total"],
        "accuracy": results["test"]["accuracy"],
        "accuracy_ci95": results["test"]["accuracy_ci95"],
        "accuracy_with_views": results.get("test_time_augmentation", {}).get("accuracy"),
        "digest": results["digest"],
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Return n, mean, standard deviation and range; n alone of no values."""
    if not values:
        return {"n": 0}
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"n": len(values), "mean": statistics.mean(values), "sd": deviation, "range": [min(values), max(values)]}


def main() -> None:
    """Run all seeds and write what was measured after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", type=Path, required=True, help="CIFAR-10: a folder of Parquet files")
    parser.add_argument("--keras-python", required=True, help="the Python of a virtual environment with TensorFlow")
    parser.add_argument("--recipe", type=Path, default=HERE.parent / "recipes" / "speednet.toml")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--keep", type=Path, help="a new folder to keep the runs in")
    parser.add_argument("--work-dir", type=Path, default=Path(tempfile.gettempdir()) / "thawlab-bench")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    runs = arguments.keep or Path(tempfile.mkdtemp(prefix="bench-runs-"))
    if arguments.keep and arguments.keep.exists():
        raise SystemExit(f"{arguments.keep} exists: a finished run in it would be shown and not timed; name a new folder")
    prepare_data(arguments.work_dir, arguments.cifar10)
    head = machine.described()
    recipe = arguments.recipe.read_text(encoding="utf-8")
    content: dict[str, Any] = {**head, "whitening_seconds": whitening_seconds(), "recipe": recipe, "rows": []}
    for seed in map(int, arguments.seeds.split(",")):
        ceiling = machine.measure()
        peer = keras_epoch(arguments.keras_python, arguments.work_dir / "full.npz")
        ours = speednet(arguments.recipe, arguments.cifar10, seed, runs)
        row = {
            **ours,
            "keras_epoch_seconds": peer["seconds"],
            "keras_epochs": ours["seconds"] / peer["seconds"],
            "machine": ceiling,
        }
        content["rows"].append(row)
        print(json.dumps(row), flush=True)
        for key in ("accuracy", "accuracy_with_views", "seconds", "keras_epochs"):
            content[key] = spread([entry[key] for entry in content["rows"] if entry[key] is not None])
        arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
