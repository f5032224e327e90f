"""Training beside other work: one epoch of all layers alone, beside a busy process, and twice at once; thawlab and its peers.

`python benchmarks/beside.py --cifar10 FOLDER --out FILE` takes about ten minutes for each repetition on two cores. Each program
is compared with itself alone in the same repetition: what a neighbour takes from it beyond its fair share is lost in waiting.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from material import prepare_backbones, prepare_data
from run import run_once
from works import ALL, HERE, LITE, Variant, Work, recipe

from thawlab.environment import processor_name

BUSY = "while True: pass"
SHARE = 0.16  # of 5,000 images


def programs(folder: Path, keras_python: str | None) -> list[Variant]:
    """Return what is trained: EfficientNet-Lite0, by Keras, which has none, MobileNetV2-1.0."""
    mine = recipe(folder, "beside", "small", f"local-dir:{folder / LITE}", 96, dict(ALL))
    options = ["--all-epochs", "1", "--size", "96"]
    images, peers = str(folder / "small.npz"), HERE / "peers"
    result = [
        Variant("thawlab", [str(Path(sys.executable).with_name("thawlab")), "train", str(mine)], kind="train"),
        Variant("torch loop", [sys.executable, str(peers / "torch_loop.py"), images, "--model", LITE, *options]),
    ]
    if keras_python:
        keras = [keras_python, str(peers / "keras_tutorial.py"), images, "--model", "MobileNetV2", *options]
        result.append(Variant("keras float32", keras))
    return result


def seconds(program: Variant) -> float:
    """Return the seconds of the epoch of one process."""
    work = Work("beside", 1, program, [])
    return float(run_once(program, work, Path(tempfile.gettempdir()))["seconds"]["all"])


def measured(program: Variant, condition: str) -> float:
    """Return the seconds of an epoch under a condition; of two at once their mean."""
    if condition == "twice":
        with ThreadPoolExecutor(2) as pool:
            return statistics.mean(pool.map(seconds, [program, program]))
    neighbour = subprocess.Popen([sys.executable, "-c", BUSY]) if condition == "busy" else None
    try:
        return seconds(program)
    finally:
        if neighbour:
            neighbour.kill()
            neighbour.wait()


def main() -> None:
    """Measure all programs under all conditions in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--keras-python", help="the Python of a virtual environment with TensorFlow")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--work-dir", type=Path, default=Path(tempfile.gettempdir()) / "thawlab-bench" / "beside")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    prepare_data(options.work_dir, options.cifar10, SHARE)
    prepare_backbones(options.work_dir)
    found: dict[str, dict[str, list[float]]] = {}
    for repetition in range(options.repetitions):
        for program in programs(options.work_dir, options.keras_python):
            times = found.setdefault(program.name, {"alone": [], "busy": [], "twice": []})
            for condition, spent in times.items():
                spent.append(round(measured(program, condition), 2))
                print(repetition, program.name, condition, spent[-1], flush=True)
        shares = {
            name: {
                key: statistics.median(alone / other for alone, other in zip(times["alone"], times[key], strict=True))
                for key in ("busy", "twice")
            }
            for name, times in found.items()
        }
        content = {
            "date": str(date.today()),
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "seconds of an epoch": found,
        }
        options.out.write_text(json.dumps({**content, "share of alone": shares}, indent=1) + "\n")
    print("| program | beside one busy process, of alone | two at once, each of alone |\n| --- | --- | --- |")
    for name, share in shares.items():
        print(f"| {name} | {share['busy']:.2f} | {share['twice']:.2f} |")


if __name__ == "__main__":
    main()
