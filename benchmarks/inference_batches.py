"""How many images a network takes at once on a CPU: `python benchmarks/inference_batches.py --out FILE`.

Images per second of networks as thawlab computes features (folded, activations fused), random weights and images, a thread per
core, for each size of a batch, where large blocks of memory are given back to the system in between ("given back") and where they
stay ("kept", as thawlab has it); medians of interleaved repetitions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from pathlib import Path

import options
import timm
import torch
from machine import measure

from thawlab import process
from thawlab.cores import usable_cores
from thawlab.environment import environment
from thawlab.heap import give_back_freed, keeping_large
from thawlab.inference.fusing import compacted

NETWORKS = (
    ("mobilenetv2_100", 96),
    ("mobilenetv2_100", 128),
    ("mobilenetv2_100", 160),
    ("mobilenetv2_100", 224),
    ("tf_efficientnet_lite0", 96),
    ("tf_efficientnet_lite0", 224),
    ("tf_efficientnetv2_b0", 224),
    ("resnet18", 224),
    ("resnet50", 224),
)
BATCHES = (8, 16, 32, 64)
IMAGES = 64  # that each trial computes
WAYS: dict[str, Callable[[], AbstractContextManager[None]]] = {"given back": nullcontext, "kept": keeping_large}


@torch.inference_mode()
def rates(name: str, size: int, repetitions: int) -> dict[str, dict[int, float]]:
    """Return images per second by the size of a batch, for each way of treating large blocks."""
    network = timm.create_model(name, num_classes=0).eval().to(memory_format=torch.channels_last)
    quick = compacted(network, (3, size, size))
    inputs = {n: torch.randn(n, 3, size, size).contiguous(memory_format=torch.channels_last) for n in BATCHES}
    ways = list(product(WAYS, BATCHES))
    seconds: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    for repetition in range(repetitions + 1):
        for way, n in ways:
            give_back_freed()
            with WAYS[way]():
                quick(inputs[n])
                started = time.perf_counter()
                for _ in range(IMAGES // n):
                    quick(inputs[n])
                if repetition:  # the first one warms up
                    seconds[way, n].append(time.perf_counter() - started)
    found = {key: round(IMAGES / statistics.median(of), 1) for key, of in seconds.items()}
    return {way: {n: found[way, n] for n in BATCHES} for way in WAYS}


def main() -> None:
    """Measure all networks and write images per second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=options.count, default=7)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    threads = usable_cores()
    torch.set_num_threads(threads)
    rows = []
    for name, size in NETWORKS:
        rows.append({"network": name, "size": size, "images per second by batch": rates(name, size, arguments.repetitions)})
        print(rows[-1], flush=True)
    machine = {"limits": measure("float32"), **environment({"threads": threads}, torch.device("cpu"))}
    arguments.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    process.prepare()
    main()
