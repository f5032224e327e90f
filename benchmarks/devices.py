"""An epoch on two processes of one thread each beside one process of two threads: `python benchmarks/devices.py --out FILE`.

ResNet-20 from scratch and EfficientNet-Lite0, all layers, through `thawlab train` and `thawlab train --devices 2`. The seconds
are those of each run's last epoch, validation included; variants take turns, and the medians over the repetitions are reported.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine

THAWLAB = str(Path(sys.executable).with_name("thawlab"))


def recipe(name: str, source: str, size: int, train_size: int, backbone: str, phase: dict[str, Any]) -> str:
    lines = [f'name = "{name}"', "[data]", f'source = "{source}"', f"image_size = {size}", f"train_size = {train_size}"]
    lines += ["[model]", f'backbone = "{backbone}"', "[[phases]]", 'train = "all"', "epochs = 2"]
    return "\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in phase.items())]) + "\n"


def seconds_of(place: Path, text: str, devices: int, data: Path) -> float:
    """Train, and return the seconds of the last epoch."""
    file, runs = place / "recipe.toml", Path(tempfile.mkdtemp(dir=place))
    file.write_text(text)
    command = [THAWLAB, "train", str(file), "--devices", str(devices), "--runs", str(runs), "--data-dir", str(data)]
    subprocess.run(
        [*command, "--cache-dir", str(place / "cache"), "system.device=cpu"], check=True, capture_output=True, env=os.environ
    )
    [rows] = runs.glob("*/metrics.jsonl")
    return float(json.loads(rows.read_text().splitlines()[-1])["seconds"])


def main() -> None:
    """Measure, and write after each repetition what is known so far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", type=Path, required=True, help="the folder with CIFAR-10's Parquet files")
    parser.add_argument("--backbone", required=True, help="EfficientNet-Lite0 with weights")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()
    tasks = {
        "ResNet-20 from scratch, 32 px, 4,000 images, batches of 128": (
            32,
            4_000,
            "resnet20",
            {"optimizer": "sgd", "lr": 0.1, "batch_size": 128, "augment": ["flip", "crop"]},
        ),
        "EfficientNet-Lite0, 96 px, 1,000 images, batches of 32": (
            96,
            1_000,
            wanted.backbone,
            {"lr": 1e-4, "batch_size": 32, "batch_norm": "eval"},
        ),
    }
    result: dict[str, Any] = {**machine.measure("float32"), "seconds": {}, "ratio": {}}
    with tempfile.TemporaryDirectory(prefix="bench-devices-") as folder:
        for _ in range(wanted.repetitions):
            for name, (size, train_size, backbone, phase) in tasks.items():
                text = recipe("devices", "cifar10", size, train_size, backbone, phase)
                for devices in (1, 2):
                    found = seconds_of(Path(folder), text, devices, wanted.cifar10)
                    result["seconds"].setdefault(name, {}).setdefault(str(devices), []).append(found)
                    print(name, devices, found, flush=True)
                pairs = zip(*result["seconds"][name].values(), strict=True)
                result["ratio"][name] = round(statistics.median(one / two for one, two in pairs), 3)
                wanted.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
