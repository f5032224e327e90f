"""Hardware limits: measured rates of matrix products and memory bandwidth, the ceiling for every other figure."""

from __future__ import annotations

import os
import platform
import statistics
import time
from datetime import date
from typing import Any

import torch

from thawlab.environment import processor_name

# GFLOP/s of products in a format that the processor does not know.
EMULATED = 10.0


def described() -> dict[str, Any]:
    """Return when and where something is measured, as the head of its file."""
    return {"date": str(date.today()), "processor": processor_name(), "platform": platform.platform(), "cores": os.cpu_count()}


def _best(work, repetitions: int = 7) -> float:
    work()
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _products(side: int, dtype: torch.dtype) -> float:
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    return 2 * side**3 / _best(lambda: a @ b) / 1e9


def measure(*kinds: str) -> dict[str, float]:
    """Return GFLOP/s of matrix products (in float32 and bfloat16 unless named) and GB/s of copying, with all threads."""
    result = {"threads": float(torch.get_num_threads())}
    for name in kinds or ("float32", "bfloat16"):
        rate = _products(256, getattr(torch, name))
        if rate > EMULATED:  # without the processor's help a large product in bfloat16 takes half a minute
            rate = _products(2048, getattr(torch, name))
        result[f"gflops_{name}"] = round(rate, 1)
    source = torch.randn(64_000_000)
    target = torch.empty_like(source)
    result["copy_gb_per_s"] = round(2 * source.numel() * 4 / _best(lambda: target.copy_(source)) / 1e9, 1)
    return result


if __name__ == "__main__":
    print(measure())
