"""Predict a folder of photographs beside ONNX Runtime driven directly, Keras' `predict` and fastai's `get_preds`.

Each takes files and gives probabilities of the same architecture (MobileNetV2-1.0) in float32 with the same number of threads;
the start of each program and its first batch are not counted. Programs run in turn, repetition by repetition; a ratio is taken
within a repetition, and the median of the ratios is reported with their range.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PEERS = HERE / "peers"
OURS = "thawlab, --engine onnx"


def photographs(source: Path, target: Path, count: int) -> Path:
    """Copy the files of a folder, as often as it takes, into two folders of classes."""
    files = sorted(file for file in source.rglob("*") if file.suffix.lower() in {".jpg", ".jpeg"})
    for number in range(count):
        file = files[number % len(files)]
        (target / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target / f"class{number % 2}" / f"{number:05}.jpg")
    return target


def classifier(work: Path, photos: Path, backbone: str) -> Path:
    """Train a head for an epoch, export it to ONNX, and return the run's folder."""
    recipe = work / "predicting.toml"
    recipe.write_text(
        f'name = "predicting"\n[data]\nsource = "{photos}"\nimage_size = 224\ntrain_size = 100\nval = 0.2\ntest = 0.2\n'
        f'[model]\nbackbone = "{backbone}"\n[[phases]]\nname = "head"\ntrain = "head"\nepochs = 1\n'
    )
    thawlab = str(Path(sys.executable).with_name("thawlab"))
    subprocess.run([thawlab, "train", str(recipe), "--runs", str(work / "runs")], check=True, capture_output=True)
    run = next((work / "runs").glob("predicting-*"))
    subprocess.run([thawlab, "export", str(run), "--format", "onnx", "--data", str(photos)], check=True, capture_output=True)
    return run


def network(work: Path, run: Path, size: int = 224) -> Path:
    """Write the run's network alone as ONNX, as `torch.onnx.export` makes it, and return the file."""
    import torch

    from thawlab.models.saved import load_model

    file, module = work / "network.onnx", load_model(run / "model").classifier.eval()
    example, batch = torch.zeros(2, 3, size, size), torch.export.Dim("batch")
    torch.onnx.export(module, (example,), str(file), dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
    return file


def measure(command: list[str], threads: int) -> dict[str, Any]:
    """Run a program and return its images per second, and what else it prints."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "KERAS_BACKEND": "tensorflow",
        "TF_NUM_INTRAOP_THREADS": str(threads),
    }
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{process.stderr[-2000:]}")
    return dict(json.loads(process.stdout.strip().splitlines()[-1]))


def main() -> None:
    """Time the programs in turn and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEG photographs")
    parser.add_argument("--backbone", required=True, help="MobileNetV2-1.0: its weights, e.g. local-dir:FOLDER")
    parser.add_argument("--keras-python", help="the Python of a virtual environment with TensorFlow")
    parser.add_argument("--fastai-python", help="the Python of a virtual environment with fastai")
    parser.add_argument("--count", type=int, default=2000, help="how many files are predicted")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-predicting-"))
    photos = photographs(arguments.photos, work / "photos", arguments.count)
    run = classifier(work, photos, arguments.backbone)
    threads = ["--threads", str(arguments.threads)]
    table = ["--out", str(work / "table.csv")]
    ours = [sys.executable, str(PEERS / "thawlab_folder.py"), str(photos), str(run), *threads, *table]
    programs = {
        OURS: [*ours, "--engine", "onnx"],
        "thawlab": ours,
        "onnxruntime": [
            *(sys.executable, str(PEERS / "onnxruntime_folder.py"), str(photos), str(network(work, run))),
            *(*threads, *table),
        ],
    }
    if arguments.keras_python:
        programs["keras"] = [arguments.keras_python, str(PEERS / "keras_folder.py"), str(photos), "--task", "predict"]
    if arguments.fastai_python:
        programs["fastai"] = [arguments.fastai_python, str(PEERS / "fastai_folder.py"), str(photos), *threads]
    rates: dict[str, list[float]] = {name: [] for name in programs}
    for repetition in range(arguments.repetitions):
        for name, command in programs.items():
            seconds = measure(command, arguments.threads)["seconds"]
            rates[name].append(arguments.count / seconds["predict"])
            print(f"{repetition} {name}: {rates[name][-1]:.1f} images/s {seconds}", flush=True)
    ratios = {
        name: [mine / theirs for mine, theirs in zip(rates[OURS], found, strict=True)]
        for name, found in rates.items()
        if name != OURS
    }
    from thawlab.environment import processor_name

    content = {
        "date": str(date.today()),
        "processor": processor_name(),
        "platform": platform.platform(),
        "threads": arguments.threads,
        "images": arguments.count,
        "images_per_second": rates,
        "median_images_per_second": {name: statistics.median(found) for name, found in rates.items()},
        "ratios_to": ratios,
        "median_ratio_to": {name: statistics.median(found) for name, found in ratios.items()},
    }
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content["median_ratio_to"]))
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
