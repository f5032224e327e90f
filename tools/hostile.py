"""Try hostile pictures, archives, weights, tables and records, and write what became of them: `python tools/hostile.py --help`.

    python tools/hostile.py --out results/hostile.json

All that tests/hostile makes, whole: 100,000 mutated pictures over all formats and what else it holds by kind, in child processes
whose death, time and memory are known by the number that they were at work on. Seconds are of a thread's own clock, memory is the
rise of a child's peak above its start. The cost of the budget of pixels is that of decoding 10,000 small JPEGs with it and
without, 100 of each in turns; the ratio is the median of the turns.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "hostile"))

from ordeals import FINDS, Found, archives, made_pictures, picture_files, pictures, recipes, records, tables, weights  # noqa: E402

from thawlab.data import decode as decoding  # noqa: E402
from thawlab.data.preprocessing import Preprocessing  # noqa: E402
from thawlab.environment import choose_device, environment  # noqa: E402

KINDS: dict[str, Callable[[int, int], Found]] = {
    "mutated pictures": pictures,
    "crafted pictures, 1 thread": lambda _, __: made_pictures(1, whole=True),
    "crafted pictures, several threads": lambda _, threads: made_pictures(2 * threads, whole=True, times=3),
    "earlier finds": lambda _, threads: picture_files(FINDS, threads),
    "archives": lambda _, __: archives(whole=True),
    "tables": lambda _, __: tables(whole=True),
    "recipes": lambda _, __: recipes(whole=True),
    "records in JSON": lambda _, __: records(step=1),
    "pickles, weights and arrays": lambda _, __: weights(step=1),
}


def summary(found: Found) -> dict[str, Any]:
    """Return what came of an ordeal as JSON."""
    trials = found.trials
    return {
        "tried": trials.tried,
        "outcomes": dict(sorted(trials.outcomes.items())),
        "wrong": [{"what": found.names(number), "how": how} for number, how in trials.wrong],
        "worst_seconds": round(trials.seconds[0], 2),
        "worst_seconds_of": found.names(trials.seconds[1]),
        "worst_memory_mb": round(trials.rise / 1e6),
    }


class Free:
    """A budget that costs nothing."""

    def take(self, count: int) -> int:
        """Take nothing."""
        return count

    def give(self, count: int) -> None:
        """Give nothing back."""


def cost(turns: int = 100, at_once: int = 100) -> dict[str, Any]:
    """Return how long small JPEGs take to decode with the budget and its estimates, and without."""
    look = Preprocessing(size=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    rng, contents = np.random.default_rng(0), []
    for _ in range(at_once):
        blocks = np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(blocks).save(buffer, "JPEG", quality=85)
        contents.append(buffer.getvalue())
    own = {name: getattr(decoding, name) for name in ("BUDGET", "_allowed", "why_exhausting", "quick_form")}
    none = {"BUDGET": Free(), "_allowed": lambda *_: 0, "why_exhausting": lambda _: None, "quick_form": lambda content: content}

    def seconds(parts: dict[str, Any]) -> float:
        vars(decoding).update(parts)
        start = time.process_time()
        for content in contents:
            decoding.decode(content, look)
        return time.process_time() - start

    try:
        pairs = [(seconds(own), seconds(none)) if turn % 2 else (seconds(none), seconds(own))[::-1] for turn in range(turns)]
    finally:
        vars(decoding).update(own)
    ratios = [with_it / without for with_it, without in pairs]
    return {
        "pictures": turns * at_once,
        "median_ratio": round(statistics.median(ratios), 4),
        "quartiles": [round(value, 4) for value in statistics.quantiles(ratios, n=4)[::2]],
        "microseconds_without": round(1e6 * statistics.median(without for _, without in pairs) / at_once, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="mutated pictures")
    parser.add_argument("--threads", type=int, default=4, help="of a child that decodes; twice as many for crafted pictures")
    parser.add_argument("--only", nargs="*", default=list(KINDS), choices=[*KINDS, "cost"])
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()
    result: dict[str, Any] = {}
    for name in wanted.only:
        if name != "cost":
            start = time.monotonic()
            result[name] = summary(KINDS[name](wanted.count, wanted.threads))
            print(f"{name}, {time.monotonic() - start:.0f} s: {json.dumps(result[name], ensure_ascii=False)}", flush=True)
    result["cost of the budget"] = cost()
    print(json.dumps(result["cost of the budget"]))
    libraries = {name: features.version(name) for name in ("pil", "webp", "avif", "jpg", "jpg_2000", "libtiff", "zlib")}
    result |= {"threads": wanted.threads, "libraries": libraries, "environment": environment({}, choose_device("cpu"))}
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
