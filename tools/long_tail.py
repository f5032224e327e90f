"""Which option helps where classes are very unequal? `python tools/long_tail.py --cifar10 DIR --backbone NAME --out FILE`.

A linear head on a frozen backbone; the training images of CIFAR-10 are made long-tailed, its test split is balanced, so that
accuracy is balanced accuracy. Runs of one seed share images, split and initial weights: differences are paired.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from scipy.stats import t as student

import thawlab
from thawlab.environment import choose_device, environment
from thawlab.judging import subject
from thawlab.recipe import parse_recipe

PHASE = {"name": "head", "train": "head", "epochs": 15, "batch_size": 256, "optimizer": "adam", "lr": 3e-3}
OPTIONS: dict[str, dict[str, object]] = {
    "none": {},
    "monitor": {"monitor": "balanced_accuracy"},
    "class_weights": {"class_weights": "balanced"},
    "sampling": {"sampling": "balanced"},
    "focal": {"loss": "focal"},
    "logit_adjustment": {"logit_adjustment": 1.0},
    "logit_adjustment, monitor": {"logit_adjustment": 1.0, "monitor": "balanced_accuracy"},
}


def interval(values: list[float]) -> dict[str, float]:
    """Return mean, standard deviation and the 95 % t interval of values of several seeds."""
    mean, sd = statistics.mean(values), statistics.stdev(values)
    half = float(student.ppf(0.975, len(values) - 1)) * sd / len(values) ** 0.5
    return {"mean": round(mean, 5), "sd": round(sd, 5), "low": round(mean - half, 5), "high": round(mean + half, 5)}


def run(option: str, seed: int, backbone: str, cifar10: str) -> dict[str, object]:
    """Train one classifier and return what was measured."""
    table = {"name": "long-tail", "seed": seed, "model": {"backbone": backbone}, "phases": [{**PHASE, **OPTIONS[option]}]}
    table |= {"data": {"source": "cifar10", "image_size": 64, "long_tail": 100.0}, "system": {"data_dir": cifar10, "threads": 1}}
    with tempfile.TemporaryDirectory() as runs:
        results = thawlab.train(parse_recipe(table), runs=runs).results
    row = {"option": option, "seed": seed, "recall": [entry.recall for entry in results.test.per_class]}
    row |= {name: getattr(results.test, name) for name in ("balanced_accuracy", "macro_f1")}
    row |= {"best_epoch": results.phases[0].best_epoch, "seconds": results.seconds["total"]}
    return row | {name: getattr(results.dataset, name) for name in ("n_train", "n_val", "n_test")}


def main() -> None:
    """Train all runs; write every one, the means, and the paired differences from the first option."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--cifar10", "--backbone", "--out"):
        parser.add_argument(name, required=True)
    arguments, rows = parser.parse_args(), []
    thawlab.progress.silence()
    subject.near_leaks = lambda _: None  # nothing asks for near-duplicates here, and finding them takes most of a run's time
    for seed in range(5):
        for option in OPTIONS:
            rows.append(run(option, seed, arguments.backbone, arguments.cifar10))
            print(json.dumps(rows[-1]), flush=True)
    scores = {option: [row["balanced_accuracy"] for row in rows if row["option"] == option] for option in OPTIONS}
    gains = {option: interval([a - b for a, b in zip(scores[option], scores["none"], strict=True)]) for option in OPTIONS}
    document = {"command": f"python {' '.join(sys.argv)}", "environment": environment({"threads": 1}, choose_device("cpu"))}
    document |= {"seconds": round(sum(row["seconds"] for row in rows)), "phase": PHASE, "options": OPTIONS, "runs": rows}
    document |= {"balanced_accuracy": {option: interval(values) for option, values in scores.items()}, "minus_none": gains}
    Path(arguments.out).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    lines = [f"{'option':26} {'balanced accuracy':18}  minus none, points (95 % t interval of {len(scores['none'])} seeds)"]
    for option, one in document["balanced_accuracy"].items():
        low, mean, high = (100 * gains[option][name] for name in ("low", "mean", "high"))
        lines.append(f"{option:26} {one['mean']:.4f} (sd {one['sd']:.4f})  {mean:+.2f} ({low:+.2f} to {high:+.2f})")
    Path(arguments.out).with_suffix(".txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
