"""Look up the neighbours of a million drawn descriptions: `python tools/million_neighbours.py --help`.

Drawn are smooth images of random colours, and for each of some of them a slightly changed copy, which must be its neighbour.
Prints and writes the seconds of building and searching, the share of copies found, and how many of the exact neighbours are
named.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from measuring import machine

from thawlab.quality.candidates import NEAREST, WHOLE, Table, descriptions

_PART, _EXACT = 50_000, 1000


def drawn(count: int, seed: int) -> torch.Tensor:
    """Return descriptions of smooth drawn images, of which every tenth is a changed copy of the one before; n × 192."""
    parts, rng = [], np.random.default_rng(seed)
    for start in range(0, count, _PART):
        n = min(_PART, count - start)
        small = torch.from_numpy(rng.integers(0, 256, (n, 3, 6, 6)).astype(np.float32))
        copies = np.arange(9, n, 10)
        small[copies] = small[copies - 1] + torch.from_numpy(rng.normal(0, 20, (len(copies), 3, 6, 6)).astype(np.float32))
        images = F.interpolate(small, (32, 32), mode="bilinear").clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
        parts.append(descriptions(images, [WHOLE])[0].flatten(1))
    return torch.cat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    vectors = drawn(arguments.count, arguments.seed)
    started = time.monotonic()
    table = Table(vectors)
    table.nearest(vectors[:5000])  # builds the graph
    built, started = time.monotonic() - started, time.monotonic()
    found = table.nearest(vectors)
    searched = time.monotonic() - started
    copies = np.arange(9, arguments.count, 10)
    hits = (found.rows[copies] == (copies - 1)[:, None]).any(axis=1)
    some = np.linspace(0, arguments.count - 1, _EXACT).astype(int)
    exact = table.nearest(vectors[some])  # so few are compared with all rows
    shared = [len({*a} & {*b}) / NEAREST for a, b in zip(exact.rows.tolist(), found.rows[some].tolist(), strict=True)]
    result: dict[str, Any] = {
        "machine": machine(),
        "vectors": arguments.count,
        "seconds to build": round(built, 1),
        "seconds to search all": round(searched, 1),
        "copies found": float(hits.mean()),
        "of the exact neighbours": float(np.mean(shared)),
        "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
