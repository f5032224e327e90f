"""Run one study with the local scheduler and on a Ray cluster of three nodes on this machine, lose nodes, compare the cells.

    python tools/ray_study.py --out results/scale/ray.json

Each repetition times the local scheduler (2 cells at once) and the cluster (a head without cores, two nodes with one core each).
The start of the cluster is not counted; that of the cells' processes is, on both sides. Then a node is killed at a random moment
of the study and a new one joins, `--losses` times. Every cell must equal the local one's: weights, epochs, predictions.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
from ray.cluster_utils import Cluster

from thawlab import process
from thawlab.environment import choose_device, environment
from thawlab.evaluation.predictions import load_predictions
from thawlab.results import read_rows
from thawlab.run import RunFolder
from thawlab.studies.design import read_design
from thawlab.studies.folder import StudyFolder
from thawlab.studies.study import run_study


def study(runs: Path, wanted: argparse.Namespace, ray: str = "") -> tuple[StudyFolder, float, dict[str, str]]:
    """Run the study in a folder of its own; return its folder, its seconds and the cells that failed."""
    settings = {
        "data.image_size": 16,
        "model.backbone": "cnn5",
        "phases.0.epochs": wanted.epochs,
        "system.device": "cpu",
        "system.cache_dir": str(wanted.cache),
    }
    vary = ["phases.0.lr=0.01,0.02,0.05", 'phases.0.augment=[],["flip"]']
    design = read_design(f"shapes:{wanted.images}x16", vary=vary, seeds="4", question="", name="cells", overrides=settings)
    start = time.monotonic()
    outcome = run_study(design, runs, parallel=2, ray=ray)
    return outcome.folder, time.monotonic() - start, outcome.conducted.failed


def differences(one: StudyFolder, two: StudyFolder) -> list[str]:
    """Return the cells of two studies that are not equal to the bit."""
    differing = []
    for entry in one.read().entries:
        a, b = one.run(entry), two.run(entry)
        same = (a.model / "model.safetensors").read_bytes() == (b.model / "model.safetensors").read_bytes()
        same = same and epochs(a) == epochs(b)
        tables = [(load_predictions(a.predictions(split)), load_predictions(b.predictions(split))) for split in ("val", "test")]
        if not (same and all(np.array_equal(x.logits, y.logits) and list(x.ids) == list(y.ids) for x, y in tables)):
            differing.append(entry.run)
    return differing


def epochs(run: RunFolder) -> list[dict[str, Any]]:
    return [row.model_dump(exclude={"seconds", "images_per_second"}) for row in read_rows(run.metrics)]


def main() -> None:
    """Run everything, and write after each study what is known so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--losses", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()
    process.prepare()
    result: dict[str, Any] = {**environment({}, choose_device("cpu")), "cells": 24, "timed": [], "losses": []}
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    draws = random.Random(wanted.seed)
    with tempfile.TemporaryDirectory(prefix="ray-study-") as place:
        wanted.cache = Path(place) / "cache"
        study(Path(place) / "warm", wanted)  # draws the images
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        for number in range(wanted.repetitions):
            local, seconds, failed = study(Path(place) / f"local{number}", wanted)
            on_ray, ray_seconds, ray_failed = study(Path(place) / f"ray{number}", wanted, cluster.address)
            row = {"local_seconds": round(seconds, 2), "ray_seconds": round(ray_seconds, 2), "failed": {**failed, **ray_failed}}
            result["timed"].append({**row, "differing_cells": differences(local, on_ray)})
            result["overhead"] = round(
                statistics.median(one["ray_seconds"] / one["local_seconds"] for one in result["timed"]) - 1, 3
            )
            print(result["timed"][-1], flush=True)
            wanted.out.write_text(json.dumps(result, indent=1) + "\n")
        for number in range(wanted.losses):
            after = draws.uniform(0.1, 0.8) * seconds
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(study, Path(place) / f"lossy{number}", wanted, cluster.address)
                time.sleep(after)
                cluster.remove_node(nodes.pop(0), allow_graceful=False)
                nodes.append(cluster.add_node(num_cpus=1))  # in this thread, since it sets signal handlers
                on_ray, ray_seconds, ray_failed = running.result()
            row = {"lost_after": round(after, 2), "seconds": round(ray_seconds, 2), "failed": ray_failed}
            resumed = sum("resuming" in (on_ray.run(entry).path / "log.txt").read_text() for entry in on_ray.read().entries)
            result["losses"].append({**row, "resumed_cells": resumed, "differing_cells": differences(local, on_ray)})
            print(result["losses"][-1], flush=True)
            wanted.out.write_text(json.dumps(result, indent=1) + "\n")
        cluster.shutdown()


if __name__ == "__main__":
    main()
