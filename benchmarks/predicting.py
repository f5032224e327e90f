"""Predict a folder of photographs beside ONNX Runtime driven directly, Keras' `predict` and fastai's `get_preds`.

Each takes files and gives probabilities of the same architecture (MobileNetV2-1.0) in float32 with the same number of threads;
the start of each program and its first batch are not counted. Programs run in turn, repetition by repetition; a ratio is taken
within a repetition, and the median of the ratios is reported with their range.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import machine
from run import run_once, save, summarize, value_of
from works import Variant, Work

HERE = Path(__file__).parent
PEERS = HERE / "peers"


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


def the_work(work: Path, arguments: argparse.Namespace) -> Work:
    """Return the programs that predict the same photographs; thawlab without an engine counts among the peers."""
    photos = str(photographs(arguments.photos, work / "photos", arguments.count))
    run = classifier(work, Path(photos), arguments.backbone)
    threads = ["--threads", str(arguments.threads)]
    table = ["--out", str(work / "table.csv")]
    ours = [sys.executable, str(HERE / "thawlab_predict.py"), photos, str(run), *threads, *table]
    direct = [sys.executable, str(PEERS / "onnxruntime_folder.py"), photos, str(network(work, run)), *threads, *table]
    peers = [Variant("thawlab without an engine", ours), Variant("onnxruntime", direct)]
    if arguments.keras_python:
        peers.append(Variant("keras", [arguments.keras_python, str(PEERS / "keras_folder.py"), photos, "--task", "predict"]))
    if arguments.fastai_python:
        peers.append(Variant("fastai", [arguments.fastai_python, str(PEERS / "fastai_folder.py"), photos, *threads]))
    return Work(f"predict-{arguments.count}", 0.9, Variant("thawlab", [*ours, "--engine", "onnx"]), peers, "predict")


def main() -> None:
    """Time the programs in turn, and write after each repetition what was measured."""
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
    threads = str(arguments.threads)
    os.environ.update(OMP_NUM_THREADS=threads, TF_NUM_INTRAOP_THREADS=threads, KERAS_BACKEND="tensorflow")
    with tempfile.TemporaryDirectory(prefix="bench-predicting-") as place:
        work, ceiling = the_work(Path(place), arguments), machine.measure("float32")
        for repetition in range(arguments.repetitions):
            for variant in [work.ours, *work.peers]:
                row = run_once(variant, work, Path(place))
                work.rows.append({**row, "repetition": repetition})
                rate = arguments.count / value_of(row, work.part)
                print(f"{repetition} {variant.name}: {rate:.1f} images/s", flush=True)
            save(arguments.out, [summarize(work)], ceiling)


if __name__ == "__main__":
    main()
