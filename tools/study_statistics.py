"""Simulate studies with known answers and count how often thawlab's intervals and tests are right: `--help`.

An answer is right where a normal score is above zero: of the variant, the image, both together, the variant's seed, the seed
alone, and what is left. So the three true differences (over seeds and images, over seeds on given images, over images for
given runs), the variance components and the power follow exactly. All intervals and tests are the package's own.

`python tools/study_statistics.py --out results/study-statistics` writes OUT.json and OUT.txt after every part.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from thawlab.comparison import statistics
from thawlab.comparison.effects import Effect, one_key_effects
from thawlab.comparison.grids import factorial_effects, full_grid
from thawlab.comparison.optimism import best_of
from thawlab.comparison.paired import compare_predictions
from thawlab.comparison.runs import Answers, ComparedRun, Variant
from thawlab.evaluation.predictions import Predictions
from thawlab.run import RunFolder

LEVELS = (0.01, 0.05, 0.10, 0.20, 0.50)
SEEDS, SPREADS = (3, 5, 10), (0.0, 0.001, 0.0025, 0.005)


def both(m: float, n: float, r: float) -> float:
    """Return how often two standard normals of correlation r are below m and n."""
    return float(stats.multivariate_normal.cdf([m, n], cov=[[1, r], [r, 1]]))


def correlation(accuracy: float, discordant: float) -> float:
    """Return the correlation of the scores of two classifiers that disagree about this share of the images."""
    m = float(special.ndtri(accuracy))
    return float(optimize.brentq(lambda r: 2 * (accuracy - both(m, m, r)) - discordant, 0.0, 0.99999))


@dataclass(frozen=True)
class World:
    """What answers are made of: accuracies, how often classifiers disagree, and by how much seeds differ.

    Attributes:
        accuracies: of the variants, over all seeds and images.
        spread: sd over seeds of a difference of two accuracies, beyond what images do.
        within, between: share of images about which two seeds of a variant, and two variants, disagree.
        shared: sd over seeds of the accuracy that all variants of a seed have in common.
    """

    accuracies: tuple[float, ...]
    spread: float = 0.0025
    within: float = 0.05
    between: float = 0.07
    shared: float = 0.002

    def __post_init__(self) -> None:
        slope = float(stats.norm.pdf(special.ndtri(0.9)))
        same, other = correlation(0.9, self.within), correlation(0.9, self.between)
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        put("u", math.sqrt(other)), put("w", math.sqrt(same - other)), put("e", math.sqrt(1 - same))
        put("a", self.spread / slope / math.sqrt(2)), put("c", self.shared / slope)
        put("total", math.sqrt(1 + self.a**2 + self.c**2))
        put("mu", self.total * special.ndtri(np.array(self.accuracies)))

    def study(self, rng: np.random.Generator, seeds: int, images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return who is right (variants × seeds × images), and the true accuracies by image and by run."""
        k = len(self.accuracies)
        of_images = self.u * rng.standard_normal(images, np.float32) + self.w * rng.standard_normal((k, images), np.float32)
        of_runs = self.a * rng.standard_normal((k, seeds)) + self.c * rng.standard_normal(seeds)
        score = rng.standard_normal((k, seeds, images), np.float32)
        score *= self.e
        score += (self.mu[:, None] + of_runs).astype(np.float32)[:, :, None]
        score += of_images[:, None, :]
        left = math.sqrt(self.a**2 + self.c**2 + self.e**2)
        by_image = special.ndtr((self.mu[:, None] + of_images) / left)
        by_run = special.ndtr((self.mu[:, None] + of_runs) / math.sqrt(self.u**2 + self.w**2 + self.e**2))
        return score > 0, by_image, by_run

    def components(self) -> statistics.Components:
        """Return the true variance components of the difference of the first two variants."""
        m, p = self.mu[:2] / self.total, self.accuracies[:2]

        def of_difference(same: float, other: float) -> float:
            cov = lambda i, j, r: both(m[i], m[j], r / self.total**2) - p[i] * p[j]  # noqa: E731
            return cov(0, 0, same) + cov(1, 1, same) - 2 * cov(0, 1, other)

        images = of_difference(self.u**2 + self.w**2, self.u**2)
        seeds = of_difference(self.a**2 + self.c**2, self.c**2)
        cell = sum(q * (1 - q) for q in p) - 2 * (both(m[0], m[1], (self.u**2 + self.c**2) / self.total**2) - p[0] * p[1])
        return statistics.Components(max(seeds, 0.0), max(images, 0.0), cell - images - seeds)


def pair(difference: float, spread: float = 0.0025, **more: float) -> World:
    return World((0.9, 0.9 + difference), spread, **more)


def rate(hits: Sequence[bool]) -> dict[str, float]:
    """Return how often, with its Monte-Carlo standard error."""
    share = float(np.mean(hits))
    return {"rate": share, "se": math.sqrt(max(share * (1 - share), 0.25 / len(hits)) / len(hits)), "n": len(hits)}


def differences(world: World, seeds: int, images: int, count: int, key: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng([key, seeds, images])
    for _ in range(count):
        right, _, _ = world.study(rng, seeds, images)
        yield right[1].astype(np.float64) - right[0]


def coverage(world: World, seeds: int, images: int, count: int, bootstraps: int, key: int) -> dict[str, Any]:
    rng = np.random.default_rng([key, seeds, images])
    hits: dict[str, list[bool]] = {name: [] for name in ("over_seeds", "over_images", "over_both", "two_level_bootstrap")}
    truth = world.accuracies[1] - world.accuracies[0]
    widths, discordant = [], []
    for number in range(count):
        right, by_image, by_run = world.study(rng, seeds, images)
        d = right[1].astype(np.float64) - right[0]
        given_images, given_runs = float((by_image[1] - by_image[0]).mean()), float((by_run[1] - by_run[0]).mean())
        found = statistics.over_seeds(d.mean(axis=1))
        hits["over_seeds"].append(found.low <= given_images <= found.high)
        found = statistics.over_both(d)
        hits["over_both"].append(found.low <= truth <= found.high)
        widths.append((found.high - found.low) / 2)
        if number % 4 == 0:  # the slow one
            found = statistics.over_images(d)
            hits["over_images"].append(found.low <= given_runs <= found.high)
        if number < bootstraps:
            low, high = statistics.two_level_bootstrap(d, 500)
            hits["two_level_bootstrap"].append(low <= truth <= high)
        if number < 50:
            discordant.append(((right[0, 0] != right[0, 1]).mean(), (right[0, 0] != right[1, 0]).mean()))
    within, between = np.mean(discordant, axis=0).tolist()
    return {
        "seeds": seeds,
        "images": images,
        "sd_between_seeds": world.spread,
        "discordant_within": within,
        "discordant_between": between,
        "mean_half_width": float(np.mean(widths)),
        **{name: rate(found) for name, found in hits.items() if found},
    }


def coverages(scale: float) -> list[dict[str, Any]]:
    count, few = int(2000 * scale), int(200 * scale)
    rows = []
    for seeds in SEEDS:
        for spread in SPREADS:
            rows.append(coverage(pair(0.004, spread), seeds, 2000, count, few if spread == 0.0025 else 0, 1))
            print("coverage", row_text(rows[-1]), flush=True)
    for seeds in SEEDS:
        rows.append(coverage(pair(0.004), seeds, 10_000, count // 2, 0, 2))
        print("coverage", row_text(rows[-1]), flush=True)
    for seeds in SEEDS:  # a trained head alone: seeds agree about nearly every image
        rows.append({**coverage(pair(0.004, 0.0005, within=0.004), seeds, 2000, count, 0, 4), "note": "seeds that agree"})
        print("coverage", row_text(rows[-1]), flush=True)
    for seeds in SEEDS:  # seeds that fail now and then: what they differ by prevails
        rows.append({**coverage(pair(0.004, 0.03), seeds, 2000, count // 2, few, 5), "note": "seeds prevail"})
        print("coverage", row_text(rows[-1]), flush=True)
    for seeds in SEEDS:  # the same recipe twice: images have no part of their own
        same = World((0.9, 0.9), 0.0025, between=0.05000001)
        rows.append({**coverage(same, seeds, 2000, count // 2, 0, 3), "note": "one recipe twice"})
        print("coverage", row_text(rows[-1]), flush=True)
    return rows


def row_text(row: dict[str, Any]) -> str:
    words = []
    for key, value in row.items():
        if isinstance(value, dict) and "rate" in value:
            words.append(f"{key} {100 * value['rate']:.1f}±{100 * value['se']:.1f}")
        else:
            words.append(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}")
    return "  ".join(words)


def randomised(better: int, worse: int, rng: np.random.Generator) -> float:
    """Return the exact test's p-value with its atom spread evenly: uniform without a difference."""
    n = better + worse
    atom = float(stats.binom.pmf(better, n, 0.5)) * (1 if 2 * better == n else 2)
    p = min(1.0, float(2 * stats.binom.cdf(min(better, worse), n, 0.5)))
    return p - rng.random() * min(atom, p)


def no_effect(scale: float) -> dict[str, Any]:
    """Return how often tests reject what is true."""
    count, rng = int(4000 * scale), np.random.default_rng(11)
    p_values, spread_out, differ = [], [], 0
    ids, labels = np.array([f"{place:05}" for place in range(2000)]), np.ones(2000, dtype=np.int64)
    for number, d in enumerate(differences(pair(0.0, 0.0, shared=0.0), 1, 2000, count, 12)):
        tables = [
            Predictions(ids, labels, np.stack([np.zeros(2000), np.where(d[0] * sign > 0, 1.0, -1.0)], axis=1).astype(np.float32))
            for sign in (1, -1)
        ]
        found = compare_predictions(*tables)
        p_values.append(found.p_value)
        spread_out.append(randomised(found.only_first, found.only_second, rng))
        differ += number < 200 and abs(statistics.over_images(d).p_value - found.p_value) > 1e-12
    ks = stats.kstest(spread_out, "uniform")
    result: dict[str, Any] = {
        "mcnemar": {
            "rejected": {f"{level}": rate([p <= level for p in p_values]) for level in LEVELS},
            "randomised": {f"{level}": rate([p <= level for p in spread_out]) for level in LEVELS},
            "randomised_ks": {"statistic": float(ks.statistic), "p_value": float(ks.pvalue)},
            "over_images_differs_in": differ,
        }
    }
    for seeds in SEEDS:
        found_p: dict[str, list[float]] = {"over_both": [], "over_seeds": [], "sign_flip": []}
        for d in differences(pair(0.0), seeds, 2000, int(2000 * scale), 13):
            found_p["over_both"].append(statistics.over_both(d).p_value)
        # What holds on given images is judged where it is true on them: there the images are the same for both variants.
        for d in differences(pair(0.0, between=0.05000001), seeds, 2000, int(2000 * scale), 14):
            found_p["over_seeds"].append(statistics.over_seeds(d.mean(axis=1)).p_value)
            found_p["sign_flip"].append(statistics.sign_flip(d.mean(axis=1)))
        result[f"{seeds} seeds"] = {
            name: {f"{level}": rate([p <= level for p in values]) for level in LEVELS} for name, values in found_p.items()
        }
        print(
            "no effect", seeds, {name: {k: v["rate"] for k, v in row.items()} for name, row in result[f"{seeds} seeds"].items()}
        )
    print("mcnemar", {k: v["rate"] for k, v in result["mcnemar"]["rejected"].items()}, ks, flush=True)
    return result


def in_memory(right: np.ndarray, values: Sequence[dict[str, Any]], own_images: bool = False) -> list[Variant]:
    """Return variants of answers (variants × seeds × images), both for validation and for the test."""
    variants = []
    for number, (table, own) in enumerate(zip(right, values, strict=True)):
        runs = {}
        for seed, row in enumerate(table):
            answers = Answers(row, f"images {seed if own_images else 0}")
            recipe = SimpleNamespace(seed=seed, name=f"v{number}")
            results = SimpleNamespace(test=SimpleNamespace(accuracy=float(row.mean())))
            folder = RunFolder(Path(f"v{number}-{seed}"))
            runs[seed] = ComparedRun(folder, recipe, results, {**own, "seed": seed}, answers, answers)  # type: ignore[arg-type]
        variants.append(Variant(f"v{number}", dict(own), dict(own), runs))
    return variants


def families(scale: float) -> list[dict[str, Any]]:
    """Return how often a family without any effect shows one: six pairs, the seven contrasts of a 2×2×2 grid, 4×2."""
    # The verdicts rest on p-values, not on the bootstrap's interval: it is drawn shorter here.
    statistics._RESAMPLES, resamples = 40, statistics._RESAMPLES

    def pairs(variants: list[Variant]) -> list[Effect]:
        return one_key_effects(variants)[0]

    def contrasts(variants: list[Variant]) -> list[Effect]:
        return factorial_effects(full_grid(variants))

    four = [{"phases.0.lr": lr} for lr in (0.1, 0.03, 0.01, 0.003)]
    eight = [{"a": a, "b": b, "c": c} for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    uneven = [{"a": a, "b": b} for a in (0, 1, 2, 3) for b in (0, 1)]
    rows = []
    designs: list[tuple[str, list[dict[str, Any]], Callable[[list[Variant]], list[Effect]], tuple[int, ...]]] = [
        ("pairs of 4 variants", four, pairs, (1, 3, 5, 10)),
        ("contrasts of 2×2×2", eight, contrasts, (3, 5)),
        ("contrasts of 4×2", uneven, contrasts, (3,)),
    ]
    for name, values, effects_of, many in designs:
        for seeds in many:
            world = World((0.9,) * len(values), 0.0025 if seeds > 1 else 0.0)
            rng = np.random.default_rng([21, seeds, len(values)])
            wrong, raw, size = [], [], 0
            for _ in range(int(1000 * scale)):
                right, _, _ = world.study(rng, seeds, 2000)
                effects = effects_of(in_memory(right, values))
                size = len(effects)
                wrong.append(any(effect.is_shown for effect in effects))
                raw.append(any(effect.widest.p_value < 0.05 for effect in effects))
            row = {"family": name, "size": size, "seeds": seeds, "with_holm": rate(wrong), "without": rate(raw)}
            rows.append(row)
            print(row_text(row), flush=True)
    statistics._RESAMPLES = resamples
    return rows


def grids(scale: float) -> list[dict[str, Any]]:
    """Return how moderated effects do in grids of two levels without any effect, the accuracies scattering by a point.

    The cells scatter alike, or half of them three times as much, or what the first setting does depends on the seed besides.
    """
    statistics._RESAMPLES, resamples = 40, statistics._RESAMPLES
    rank, sd, rows = np.arange(2000) / 2000, 0.01, []
    for settings in (3, 4):
        values = [dict(zip("abcd", cell, strict=False)) for cell in itertools.product((0, 1), repeat=settings)]
        first = np.array([own["a"] for own in values])[:, None]
        for seeds in (3, 5):
            for scatter in (
                "alike",
                "half of the cells 3 times",
                "the first depends on the seed, 1",
                "the first depends on the seed, 2",
            ):
                rng = np.random.default_rng([23, settings, seeds, len(scatter)])
                wrong, covered, of_first, widths = [], [], [], []
                for _ in range(int(400 * scale)):
                    own = rng.normal(0, sd, (len(values), seeds)) * np.where(scatter.startswith("half") & (first == 1), 3, 1)
                    if scatter.startswith("the first"):
                        own = own + first * rng.normal(0, sd * int(scatter[-1]), (1, seeds))
                    level = 0.8 + rng.normal(0, sd, (1, seeds)) + own
                    effects = factorial_effects(full_grid(in_memory(rank < level[..., None], values)))
                    wrong.append(any(effect.is_shown for effect in effects))
                    inside = {effect.keys: effect.over_both.low <= 0 <= effect.over_both.high for effect in effects}
                    covered += inside.values()
                    of_first.append(inside["a",])
                    for effect in effects:
                        plain = statistics.over_seeds(effect.by_seed)
                        widths.append((effect.over_seeds.high - effect.over_seeds.low) / (plain.high - plain.low))
                row = {"settings": settings, "seeds": seeds, "scatter": scatter, "family_shows_one": rate(wrong)}
                row |= {"covered": rate(covered), "covered_of_the_first": rate(of_first)}
                rows.append({**row, "median_width_to_unmoderated": round(float(np.median(widths)), 3)})
                print(row_text(rows[-1]), flush=True)
    statistics._RESAMPLES = resamples
    return rows


def simulated_power(world: World, seeds: int, images: int, count: int) -> dict[str, float]:
    return rate([statistics.over_both(d).p_value < 0.05 for d in differences(world, seeds, images, count, 31)])


def powers(scale: float) -> dict[str, Any]:
    """Return the power announced beside that of simulated studies."""
    count = int(2000 * scale)
    rows = []
    for seeds, spread, difference in (
        *((3, 0.0025, size) for size in (0.005, 0.01, 0.02)),
        *((5, 0.0025, size) for size in (0.005, 0.01, 0.015)),
        *((10, 0.0025, size) for size in (0.005, 0.01)),
        *((3, 0.0, 0.01), (3, 0.005, 0.02), (5, 0.005, 0.01), (10, 0.005, 0.01)),
    ):
        world = pair(difference, spread)
        announced = statistics.power(difference, world.components().errors(seeds, 2000))
        simulated = simulated_power(world, seeds, 2000, count)
        row = {"seeds": seeds, "images": 2000, "sd_between_seeds": spread, "difference": difference, "announced": announced}
        rows.append({**row, "simulated": simulated})
        print(row_text(rows[-1]), flush=True)
    detectable = []
    for seeds in SEEDS:
        for spread in (0.0, 0.0025, 0.005):
            size = statistics.smallest_detectable(pair(0.01, spread).components().errors(seeds, 2000))
            size = statistics.smallest_detectable(pair(size, spread).components().errors(seeds, 2000))
            row = {"seeds": seeds, "images": 2000, "sd_between_seeds": spread, "smallest_detectable": size}
            detectable.append({**row, "simulated": simulated_power(pair(size, spread), seeds, 2000, count)})
            print(row_text(detectable[-1]), flush=True)
    needed = []
    for difference, images in ((0.01, 2000), (0.008, 5000)):
        world = pair(difference)
        seeds = statistics.seeds_needed(difference, world.components(), images)
        row = {"difference": difference, "images": images, "seeds_needed": seeds}
        if seeds is not None:
            row["simulated"] = simulated_power(world, seeds, images, count // 2)
            if seeds > 2:
                row["with_one_less"] = simulated_power(world, seeds - 1, images, count // 2)
        needed.append(row)
        print(row_text(row), flush=True)
    for difference, seeds in ((0.01, 3), (0.01, 5), (0.01, 10)):
        world = pair(difference)
        images = statistics.images_needed(difference, world.components(), seeds)
        row = {"difference": difference, "seeds": seeds, "images_needed": images}
        if images is not None and images < 20_000:
            row["simulated"] = simulated_power(world, seeds, images, count // 2)
        needed.append(row)
        print(row_text(row), flush=True)
    return {"power": rows, "detectable": detectable, "needed": needed}


def optimisms(scale: float) -> list[dict[str, Any]]:
    """Return the optimism expected beside the true one, both means over studies, in points."""
    rows = []
    for k in (4, 12, 24):
        for quality, seeds, own in ((0.0, 3, False), (0.003, 3, False), (0.0, 1, False), (0.003, 3, True), (0.01, 5, False)):
            rng = np.random.default_rng([41, k, seeds])
            expected, true = [], []
            for _ in range(int(200 * scale)):
                world = World(tuple(np.clip(0.9 + quality * rng.standard_normal(k), 0.5, 0.99).tolist()))
                if own:
                    right = np.concatenate([world.study(rng, 1, 1000)[0] for _ in range(seeds)], axis=1)
                else:
                    right, _, _ = world.study(rng, seeds, 1000)
                best = best_of(in_memory(right, [{"k": number} for number in range(k)], own))
                expected.append(best.optimism)
                # What all variants have in common (easy images) has nothing to do with the choice; without it, less scatter.
                better = right.mean(axis=(1, 2)) - world.accuracies
                true.append(float(better[int(best.name[1:])] - better.mean()))
            row = {
                "variants": k,
                "sd_of_quality": quality,
                "seeds": seeds,
                "images": "each seed's own" if own else "the same",
                "expected": 100 * float(np.mean(expected)),
                "true": 100 * float(np.mean(true)),
                "true_se": 100 * float(np.std(true) / math.sqrt(len(true))),
                "expected_sd": 100 * float(np.std(expected)),
            }
            rows.append(row)
            print(row_text(row), flush=True)
    return rows


PARTS: dict[str, Callable[[float], Any]] = {
    "no_effect": no_effect,
    "power": powers,
    "optimism": optimisms,
    "families": families,
    "grids": grids,
    "coverage": coverages,
}


def as_text(document: dict[str, Any]) -> str:
    lines = [__doc__.split("\n\n")[1], "", "Rates are per cent ± Monte-Carlo standard error."]
    for name in PARTS:
        part = document.get(name)
        if part is None:
            continue
        tables = part.items() if isinstance(part, dict) else [("", part)]
        for title, rows in tables:
            lines += ["", f"{name} {title}".strip()]
            if isinstance(rows, list):
                lines += [f"  {row_text(row)}" for row in rows]
            else:
                lines += [
                    f"  {test}: " + "  ".join(f"{key} {100 * v['rate']:.1f}±{100 * v['se']:.1f}" for key, v in row.items())
                    if isinstance(row, dict) and "statistic" not in row
                    else f"  {test}: {row}"
                    for test, row in rows.items()
                ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="without its ending")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the studies")
    arguments = parser.parse_args()
    file = Path(arguments.out).with_suffix(".json")
    document: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for name in arguments.parts:
        started = time.monotonic()
        document[name] = PARTS[name](arguments.scale)
        document.setdefault("seconds", {})[name] = round(time.monotonic() - started)
        file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        file.with_suffix(".txt").write_text(as_text(document), encoding="utf-8")


if __name__ == "__main__":
    main()
