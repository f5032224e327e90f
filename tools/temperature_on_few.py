"""What a temperature fitted on few images does to the log loss of the others, on real runs.

`python tools/temperature_on_few.py RUN… --out FILE`: of each run's test images some stand for a validation split of n images, at
random; the temperature fitted on them is judged by the log loss of the rest, beside no temperature and beside the one that
minimises the log loss (Guo et al. 2017). Each run counts twice: as it was trained, and with logits divided by its own best
temperature, where every temperature but 1 does harm.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from thawlab.environment import choose_device, environment
from thawlab.evaluation.metrics.calibration import fit_temperature, log_loss

SIZES = (5, 10, 20, 50, 100, 1000)


def unshrunk(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature of least log loss in [0.05, 20]."""
    found = minimize_scalar(
        lambda log_t: log_loss(logits, labels, float(np.exp(log_t))), bounds=[np.log(0.05), np.log(20)], method="bounded"
    )
    return float(np.exp(found.x))


def changes(logits: np.ndarray, labels: np.ndarray, n: int, draws: int) -> dict[str, list[float]]:
    """Return by how much each fitted temperature changes the log loss of the images that it was not fitted on."""
    result: dict[str, list[float]] = {"shrunk": [], "unshrunk": []}
    for draw in range(draws):
        order = np.random.default_rng((n, draw)).permutation(len(labels))
        few, rest = order[:n], order[n:]
        plain = log_loss(logits[rest], labels[rest])
        for name, fit in (("shrunk", fit_temperature), ("unshrunk", unshrunk)):
            result[name].append(log_loss(logits[rest], labels[rest], fit(logits[few], labels[few])) - plain)
    return result


def summary(parts: list[list[float]]) -> dict[str, float]:
    means = [float(np.mean(part)) for part in parts]
    every = np.concatenate(parts)
    return {
        "mean": round(float(np.mean(means)), 5),
        "worst_run": round(max(means), 5),
        "worst_draw": round(float(every.max()), 5),
        "share_worse": round(float((every > 0).mean()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    table: dict[str, dict[str, Any]] = {"as trained": {}, "calibrated already": {}}
    tables = []
    for run in arguments.runs:
        with np.load(run / "predictions" / "test.npz") as file:
            tables.append((file["logits"].astype(np.float64)[:4000], file["labels"][:4000]))
    for kind, rows in table.items():
        for n in SIZES:
            found = []
            for logits, labels in tables:
                scale = 1.0 if kind == "as trained" else unshrunk(logits, labels)
                found.append(changes(logits / scale, labels, n, arguments.draws))
            rows[str(n)] = {name: summary([part[name] for part in found]) for name in ("shrunk", "unshrunk")}
            print(kind, n, rows[str(n)], flush=True)
    document = {
        "question": __doc__.splitlines()[0] if __doc__ else "",
        "runs": [run.name for run in arguments.runs],
        "draws": arguments.draws,
        "change_of_log_loss": table,
        "environment": environment({"threads": 1}, choose_device("cpu")),
    }
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
