"""Kill a study of 24 cells at five random points, start it again each time, and compare it with one that was left alone.

    python tools/killed_study.py --cifar10 CIFAR10 --backbone local-dir:WEIGHTS --out results/killed-study.json

Three of the five kills (SIGKILL) take the study's process alone, whose workers then save and stop by themselves; two take every
process at once. What is compared, cell by cell: the model, the predictions, the measured results but for times, and the epochs.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from thawlab.studies.folder import StudyFolder


def study_table(backbone: str) -> dict[str, Any]:
    """Return a study of 24 cells: two phases, one on cached features and one on images."""
    base = {
        "name": "two-phase",
        "data": {"source": "cifar10", "train_size": 1000, "image_size": 32},
        "model": {"backbone": backbone},
        "phases": [
            {"name": "head", "train": "head", "epochs": 4, "lr": 3e-3},
            {"name": "fine-tune", "epochs": 2, "lr": 1e-4, "batch_size": 32, "augment": ["flip"]},
        ],
    }
    vary = {"model": {"dropout": [[0.0], [0.3]]}, "phases": {"1": {"lr": [1e-4, 3e-4]}}}
    return {"question": "Does a study survive being killed?", "base": base, "seeds": 6, "vary": vary}


def start(file: Path, arguments: argparse.Namespace, runs: Path) -> "subprocess.Popen[bytes]":
    """Start the study."""
    command = [sys.executable, "-m", "thawlab", "study", str(file), "--runs", str(runs), "--data-dir", arguments.cifar10]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def workers_of(process: int) -> list[int]:
    """Return the processes that a process has started."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in found.split()]


def progress_of(study: StudyFolder) -> dict[str, int]:
    """Return how many cells are how far, and the epochs that are written."""
    record = study.read()
    epochs = [len(file.read_text().splitlines()) for file in study.path.glob("*/metrics.jsonl")]
    statuses = [study.status(entry) for entry in record.entries]
    return {"finished": statuses.count("finished"), "begun": len(epochs), "epochs": sum(epochs)}


def kept(folder: Path) -> dict[str, Any]:
    """Return what a cell must give, however often it was killed."""
    results = json.loads((folder / "results.json").read_text())
    results.pop("seconds")
    for phase in results["phases"]:
        phase.pop("seconds")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds")
        row.pop("images_per_second")
    tables = {}
    for split in ("val", "test"):
        with np.load(folder / "predictions" / f"{split}.npz") as table:
            tables[split] = {key: table[key].tobytes() for key in table}
    return {"results": results, "rows": rows, "model": (folder / "model" / "model.safetensors").read_bytes(), **tables}


def main() -> None:
    """Run both studies and compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    chance, kills = random.Random(arguments.seed), []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["THAWLAB_CACHE"] = f"{folder}/cache-whole"
        file = Path(folder, "killed.toml")
        file.write_text(tomli_w.dumps(study_table(arguments.backbone)))
        whole, broken = (StudyFolder(Path(folder, runs, "killed")) for runs in ("whole", "broken"))
        began = time.monotonic()
        assert start(file, arguments, whole.path.parent).wait() == 0
        seconds = time.monotonic() - began
        os.environ["THAWLAB_CACHE"] = f"{folder}/cache-broken"
        for number in range(5):
            process = start(file, arguments, broken.path.parent)
            time.sleep(8 + chance.random() * seconds / 5)
            everything = number % 2 == 1
            taken = [*workers_of(process.pid), process.pid] if everything else [process.pid]
            for one in taken:
                os.kill(one, signal.SIGKILL)
            process.wait()
            time.sleep(5)  # workers that are left save their cells
            kills.append({"taken": "every process" if everything else "the study's process", **progress_of(broken)})
            print(kills[-1], flush=True)
        assert start(file, arguments, broken.path.parent).wait() == 0
        record = whole.read()
        assert record == broken.read()
        equal = [kept(whole.run(entry).path) == kept(broken.run(entry).path) for entry in record.entries]
        resumed = sum("resuming" in (broken.run(entry).path / "log.txt").read_text() for entry in record.entries)
        verdicts = [json.loads(study.comparison.read_text())["verdict"] for study in (whole, broken)]
    outcome = {
        "command": "python tools/killed_study.py --cifar10 CIFAR10 --backbone local-dir:mobilenetv2_035.in1k",
        "cells": len(equal),
        "equal": sum(equal),
        "cells_that_were_resumed": resumed,
        "kills": kills,
        "same_verdict": verdicts[0] == verdicts[1],
        "seconds_uninterrupted": round(seconds, 1),
    }
    arguments.out.write_text(json.dumps(outcome, indent=2) + "\n")
    print(json.dumps(outcome, indent=2))


if __name__ == "__main__":
    main()
