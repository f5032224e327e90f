"""How often do a learning curve's intervals hold the truth? `python tools/learning_curve_coverage.py --out FILE`.

Curves of known shape are measured as a study would: every seed trains on nested subsets of its own, is better or worse than
another, and classifies the same test images, of which some are harder than others whatever the seed. A score per image and
training is the sum of the image's difficulty, the seed's view of it and noise; the image is wrong where the score is low. The
truth is the error over all images and seeds. Beside the intervals as they are, those of plainly resampled seeds are measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from thawlab.comparison.curve_forms import FORMS, akaike_weights, fit
from thawlab.comparison.curve_scatter import Measured, scatter_of, total_covariance
from thawlab.comparison.foretelling import backtest
from thawlab.comparison.learning_curve import learning_curve

Floats = npt.NDArray[np.float64]
LARGEST, STEP, REPLICATES = 6400.0, 1e-4, 400
# The last is none of the forms that are fitted: it shows what intervals over forms are worth when all of them are wrong.
TRUTHS: dict[str, Callable[[Any], Any]] = {
    "0.05 + 2.5 n^-0.5": lambda n: 0.05 + 2.5 * n**-0.5,
    "0.02 + 1.6 n^-0.3": lambda n: 0.02 + 1.6 * n**-0.3,
    "3.2 n^-0.4": lambda n: 3.2 * n**-0.4,
    "0.1 + 40 n^-1": lambda n: 0.1 + 40 / n,
    "0.1 + 0.3 exp(-n/1500)": lambda n: 0.1 + 0.3 * np.exp(-n / 1500),
    "no form: 0.03 + 31 (n + 400)^-0.7": lambda n: 0.03 + 31 * (n + 400) ** -0.7,
}
DESIGNS = ((7, 3, 2000), (7, 5, 10_000), (5, 3, 1000), (7, 1, 2000))  # sizes, seeds, test images


def simulated(truth: Callable[[Any], Any], sizes: Floats, seeds: int, n_test: int, rng: np.random.Generator) -> Floats:
    """Return measured errors, a row per size and a column per seed."""
    difficulty, views = rng.standard_normal(n_test), rng.standard_normal((seeds, n_test))
    luck = 0.03 * (rng.standard_normal((1, seeds)) + rng.standard_normal((len(sizes), seeds))) / np.sqrt(2)
    levels = np.clip(truth(sizes)[:, None] * (1 + luck * (sizes[0] / sizes[:, None]) ** 0.25), 1e-6, 1 - 1e-6)
    errors = np.empty(levels.shape)
    for place, level in np.ndenumerate(levels):
        noise = rng.standard_normal(n_test)
        score = np.sqrt(0.6) * difficulty + np.sqrt(0.05) * views[place[1]] + np.sqrt(0.35) * noise
        errors[place] = (score < norm.ppf(level)).mean()
    return errors


def resampled(sizes: Floats, errors: Floats, n_test: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return intervals of e_N and the gain from seeds that are resampled as they are."""
    measured = Measured(sizes, errors, n_test)
    covariance, seeds = total_covariance(measured, scatter_of(measured)), errors.shape[1]
    weights = akaike_weights([fit(form, measured.x, measured.means[None], covariance) for form in FORMS])[:, 0]
    drawn = errors[:, rng.integers(0, seeds, (REPLICATES, seeds))].mean(axis=2).T
    both = np.stack([fit(form, measured.x, drawn, covariance).at(np.array([1.0, 2.0])) for form in FORMS])
    both = both[rng.choice(len(FORMS), REPLICATES, p=weights), np.arange(REPLICATES)]
    values = (both[:, 0], both[:, 0] - both[:, 1])
    return [tuple(np.percentile(value, (2.5, 97.5)).tolist()) for value in values]


def measure(name: str, design: tuple[int, int, int], count: int) -> dict[str, Any]:
    """Return how often each interval covers, its mean width, and how often a curve of this truth is refused."""
    truth, (steps, seeds, n_test) = TRUTHS[name], design
    sizes = LARGEST / 2.0 ** np.arange(steps - 1, -1, -1)
    slope = (truth(LARGEST * (1 + STEP)) - truth(LARGEST * (1 - STEP))) / (2 * STEP)
    real = {"error": truth(LARGEST), "reliance": -2 * slope, "error_at_twice": truth(2 * LARGEST)}
    real["gain"] = real["error"] - real["error_at_twice"]
    covered: dict[str, list[bool]] = {key: [] for key in [*real, "backtest", "error, resampled", "gain, resampled"]}
    widths: dict[str, list[float]] = {key: [] for key in real}
    refusals: Counter[str] = Counter()
    for draw in range(count):
        rng = np.random.default_rng([draw, *design, list(TRUTHS).index(name)])
        errors = simulated(truth, sizes, seeds, n_test, rng)
        given = (sizes.astype(int).tolist(), errors.tolist(), n_test, draw, REPLICATES)
        covered["backtest"] += [point.covered for point in backtest(*given[:3], seed=draw, replicates=REPLICATES)]
        curve = learning_curve(*given)
        if curve.refusal:
            refusals[curve.refusal.split(",")[0].split(":")[0]] += 1
            continue
        for key, value in real.items():
            _, low, high = getattr(curve, key)
            covered[key].append(low <= value <= high)
            widths[key].append(high - low)
        if seeds > 1:
            for key, (low, high) in zip(("error", "gain"), resampled(sizes, errors, n_test, rng), strict=True):
                covered[f"{key}, resampled"].append(low <= real[key] <= high)
    return {
        "truth": name,
        "curves": count,
        "refused": dict(refusals),
        "values": {key: round(float(value), 5) for key, value in real.items()},
        "covered": {key: round(float(np.mean(hits)), 3) for key, hits in covered.items() if hits},
        "predicted": len(covered["backtest"]),
        "mean width": {key: round(float(np.mean(width)), 5) for key, width in widths.items() if width},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=int, default=200, help="of each truth in each design")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    started, content = time.monotonic(), []
    for design in DESIGNS:
        rows = [measure(name, design, options.curves) for name in TRUTHS]
        fitted = rows[:-1]
        mean = {key: round(float(np.mean([row["covered"][key] for row in fitted])), 3) for key in fitted[0]["covered"]}
        names = dict(zip(("sizes", "seeds", "test images"), design, strict=True))
        content.append({**names, "covered, mean over the truths that are forms": mean, "truths": rows})
        print(names, mean, flush=True)
    result = {"nominal": 0.95, "replicates": REPLICATES, "seconds": round(time.monotonic() - started), "designs": content}
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
