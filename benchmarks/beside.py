"""Training beside other work: one epoch of all layers alone, beside a busy process, and twice at once; thawlab and its peers.

`python benchmarks/beside.py --cifar10 FOLDER --out FILE` compares each program with itself alone in the same repetition: what
a neighbour takes from it beyond its fair share is lost in waiting.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import options
from machine import described
from material import prepare_backbones, prepare_data
from run import run_once
from waiting import neighbour
from works import ALL, LITE, Variant, Work, recipe, works

SHARE = 0.16  # of 5,000 images


def programs(folder: Path, keras_python: str | None) -> list[Variant]:
    """Return what is trained: EfficientNet-Lite0, by Keras, which has none, MobileNetV2-1.0."""
    mine = recipe(folder, "beside", "small", f"local-dir:{folder / LITE}", 96, dict(ALL))
    ours = Variant("thawlab", [str(Path(sys.executable).with_name("thawlab")), "train", str(mine)], kind="train")
    peers = {work.name: work.peers for work in works(folder, keras_python)}
    keras = [peer for peer in peers["all-mobilenetv2_100-96"] if peer.name == "keras float32"]
    return [ours, *peers[f"all-{LITE}-96"], *keras]


def seconds(program: Variant) -> float:
    """Return the seconds of the epoch of one process."""
    work = Work("beside", 1, program, [])
    return float(run_once(program, work, Path(tempfile.gettempdir()))["seconds"]["all"])


def measured(program: Variant, condition: str) -> float:
    """Return the seconds of an epoch under a condition; of two at once their mean."""
    if condition == "twice":
        with ThreadPoolExecutor(2) as pool:
            return statistics.mean(pool.map(seconds, [program, program]))
    with neighbour(condition == "busy"):
        return seconds(program)


def main() -> None:
    """Measure all programs under all conditions in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", type=options.folder, required=True)
    parser.add_argument("--keras-python", type=options.program, help="the Python of a virtual environment with TensorFlow")
    parser.add_argument("--repetitions", type=options.count, default=3)
    parser.add_argument("--work-dir", type=Path, default=Path(tempfile.gettempdir()) / "thawlab-bench" / "beside")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    prepare_data(arguments.work_dir, arguments.cifar10, SHARE)
    prepare_backbones(arguments.work_dir)
    found: dict[str, dict[str, list[float]]] = {}
    for repetition in range(arguments.repetitions):
        for program in programs(arguments.work_dir, arguments.keras_python):
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
        content = {**described(), "seconds of an epoch": found, "share of alone": shares}
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    print("| program | beside one busy process, of alone | two at once, each of alone |\n| --- | --- | --- |")
    for name, share in shares.items():
        print(f"| {name} | {share['busy']:.2f} | {share['twice']:.2f} |")


if __name__ == "__main__":
    main()
