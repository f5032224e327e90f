"""Time until a validation accuracy, from the start of the command: `thawlab train FOLDER`, fastai and others' tutorials.

`python benchmarks/time_to_accuracy.py --cifar10 FOLDER --backbone FOLDER --fastai-python PYTHON --out FILE` gives every program
the same folder of images with the same validation images, backbone, weights and size, and its documented defaults otherwise. Each
peer is compared with thawlab alone: the accuracy to reach is the best one that both reach, in the same repetition.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import options
from machine import described
from material import prepare_folders

PEERS = Path(__file__).resolve().parent / "peers"
_LOOK = 0.1  # seconds between two looks at what thawlab has recorded

Curve = list[tuple[float, float]]


def told(command: list[str]) -> tuple[Curve, float]:
    """Run a program that prints its accuracies; returns them with the seconds since its start, and those of the whole."""
    started, curve = time.perf_counter(), []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{") and "accuracy" in (said := json.loads(line)):
                curve.append((time.perf_counter() - started, said["accuracy"]))
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return curve, time.perf_counter() - started


def recorded(command: list[str]) -> tuple[Curve, float]:
    """Run thawlab with a folder of runs and a cache of its own, and note when it records each epoch."""
    work = Path(tempfile.mkdtemp(prefix="accuracy-"))
    started, curve, ended = time.perf_counter(), [], threading.Event()

    def watch() -> None:
        while True:
            last = ended.is_set()
            lines = [line for file in work.glob("runs/*/metrics.jsonl") for line in file.read_text().splitlines()]
            known = [json.loads(line)["val_accuracy"] for line in lines[len(curve) :]]
            curve.extend((time.perf_counter() - started, accuracy) for accuracy in known)
            if last:
                return
            time.sleep(_LOOK)

    watcher = threading.Thread(target=watch)
    watcher.start()
    whole = [*command, "--runs", str(work / "runs"), "--cache-dir", str(work / "cache")]
    done = subprocess.run(whole, check=False, capture_output=True, text=True)
    spent = time.perf_counter() - started
    ended.set()
    watcher.join()
    shutil.rmtree(work)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return curve, spent


def reached(curve: Curve, accuracy: float) -> float:
    """Return the seconds at which an accuracy was first reached."""
    return next(second for second, value in curve if value >= accuracy)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return for each peer, by repetition, the accuracy to reach, its seconds and thawlab's, and the median of their ratios."""
    found: dict[str, Any] = {}
    for repetition in sorted({row["repetition"] for row in rows}):
        curves = {row["program"]: row["curve"] for row in rows if row["repetition"] == repetition}
        ours = curves.pop("thawlab")
        for name, curve in curves.items():
            goal = min(max(value for _, value in one) for one in (ours, curve))
            said = found.setdefault(name, {"accuracy": [], "seconds": [], "thawlab": []})
            for key, value in (("accuracy", goal), ("seconds", reached(curve, goal)), ("thawlab", reached(ours, goal))):
                said[key].append(value)
    for said in found.values():
        said["times as long"] = statistics.median(
            theirs / own for theirs, own in zip(said["seconds"], said["thawlab"], strict=True)
        )
    return found


def main() -> None:
    """Run all programs in turn and write what they reached when."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--cifar10", type=options.folder, help="made into a folder of images")
    source.add_argument("--folder", type=options.folder, help="a folder train/CLASS, val/CLASS and test/CLASS instead")
    parser.add_argument(
        "--backbone", type=options.backbone, required=True, help="timm's `local-dir:` folder: config.json, model.safetensors"
    )
    parser.add_argument("--fastai-python", type=options.program, help="the Python of a virtual environment with fastai")
    parser.add_argument(
        "--keras-python", type=options.program, help="that of one with TensorFlow and safetensors; only for mobilenetv2_100"
    )
    parser.add_argument("--train", type=options.count, default=2000, help="training images of CIFAR-10")
    parser.add_argument("--val", type=options.count, default=500, help="its validation images, and as many to test")
    parser.add_argument("--size", type=options.count, default=96)
    parser.add_argument(
        "--fastai-epochs", type=options.count, default=3, help="of `fine_tune`, after the one with all but the head frozen"
    )
    parser.add_argument(
        "--torch-epochs", type=options.count_or_none, default=25, help="as in PyTorch's tutorial; 0 leaves it out"
    )
    parser.add_argument(
        "--keras-epochs",
        type=options.count,
        default=10,
        help="as in TensorFlow's tutorial: of the head, and as many of more layers",
    )
    parser.add_argument(
        "--ultralytics-python",
        type=options.program,
        help="that of one with ultralytics, which learns another network from scratch",
    )
    parser.add_argument("--ultralytics-epochs", type=options.count, default=100, help="its default")
    parser.add_argument("--repetitions", type=options.count, default=3)
    parser.add_argument("--work-dir", type=Path, default=Path(tempfile.gettempdir()) / "thawlab-bench" / "accuracy")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        network = json.loads((arguments.backbone / "config.json").read_bytes())["architecture"]
    except (ValueError, LookupError, TypeError):
        parser.error(f"{arguments.backbone / 'config.json'}: is damaged, or names no architecture")
    if arguments.keras_python and network != "mobilenetv2_100":
        parser.error(f"--keras-python: Keras has no {network}; give the weights of mobilenetv2_100, or leave it out")
    folder = arguments.folder or arguments.work_dir / f"cifar10-{arguments.train}-{arguments.val}"
    if arguments.folder is None:
        prepare_folders(folder, arguments.cifar10, {"train": arguments.train, "val": arguments.val, "test": arguments.val})
    size = ["--size", str(arguments.size)]
    mine = [
        str(Path(sys.executable).with_name("thawlab")),
        "train",
        str(folder),
        "--backbone",
        f"local-dir:{arguments.backbone}",
        *size,
    ]
    given = [str(folder), "--backbone", str(arguments.backbone), *size, "--epochs"]
    rows: list[dict[str, Any]] = []
    for repetition in range(arguments.repetitions):
        seed = ["--seed", str(repetition)]
        tasks: list[tuple[str, Any, list[str]]] = [("thawlab", recorded, [*mine, *seed])]
        for name, python, program, epochs in (
            ("torch tutorial", sys.executable if arguments.torch_epochs else None, "torch_fine_tune.py", arguments.torch_epochs),
            ("fastai", arguments.fastai_python, "fastai_fine_tune.py", arguments.fastai_epochs),
            ("keras tutorial", arguments.keras_python, "keras_fine_tune.py", arguments.keras_epochs),
        ):
            if python:
                tasks.append((name, told, [python, str(PEERS / program), *given, str(epochs), *seed]))
        if arguments.ultralytics_python:
            own = [str(folder), *size, "--epochs", str(arguments.ultralytics_epochs), *seed]
            program = [arguments.ultralytics_python, str(PEERS / "ultralytics_classify.py")]
            tasks.append(("ultralytics from scratch", told, [*program, *own]))
        for name, run, command in tasks:
            curve, whole = run(command)
            rows.append({"repetition": repetition, "program": name, "curve": curve, "whole": whole})
            print(name, f"{whole:.0f} s", [f"{second:.0f} s {value:.3f}" for second, value in curve], flush=True)
        told_of = {"folder": folder.name, "backbone": arguments.backbone.name, "size": arguments.size}
        content = {**described(), **told_of, "until both have reached": summary(rows), "rows": rows}
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    print(summary(rows))


if __name__ == "__main__":
    main()
