"""Reading images before and after a change: two checkouts of the sources in turn, each in processes and caches of their own.

`python benchmarks/reading_pairs.py --before OTHER_CHECKOUT --out FILE SOURCE…`: seconds of `load_dataset` (listing, hashing and
decoding to 96 px) of each source; medians of interleaved repetitions, and the ratio after / before of each pair.
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

from thawlab.environment import choose_device, environment

WORK = """
import sys, time
from thawlab.data.dataset import load_dataset
from thawlab.data.preprocessing import Preprocessing
from thawlab.recipe import parse_recipe
look = Preprocessing(size=96, mean=(0.5,) * 3, std=(0.5,) * 3)
phase = {"name": "a", "epochs": 1, "lr": 0.1}
recipe = parse_recipe({"data": {"source": sys.argv[1]}, "model": {"backbone": "cnn5"}, "phases": [phase]})
started = time.perf_counter()
dataset = load_dataset(recipe, look)
print(time.perf_counter() - started, sum(map(len, dataset.splits)))
"""


def seconds(checkout: Path, source: str) -> tuple[float, int]:
    """Return how long one checkout takes for a source in a fresh cache, and how many images it read."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "THAWLAB_CACHE": cache}
        done = subprocess.run(
            [sys.executable, "-c", WORK, source], env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
    return float(done[-2]), int(done[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    rows = {}
    for source in arguments.sources:
        pairs, images = [], 0
        for repetition in range(arguments.repetitions + 1):
            order = [("before", arguments.before), ("after", here)]
            taken = {name: seconds(checkout, source) for name, checkout in (order if repetition % 2 else order[::-1])}
            if repetition:  # the first one warms the system's cache of files
                pairs.append((taken["before"][0], taken["after"][0]))
            images = taken["after"][1]
        ratios = sorted(after / before for before, after in pairs)
        rows[Path(source).name] = {
            "images": images,
            "before": round(statistics.median(before for before, _ in pairs), 3),
            "after": round(statistics.median(after for _, after in pairs), 3),
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
        }
        print(source, rows[Path(source).name], flush=True)
    document = {"rows": rows, "environment": environment({}, choose_device("cpu"))}
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
