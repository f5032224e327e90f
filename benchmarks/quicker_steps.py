"""Training steps and inference of networks as timm builds them beside their quicker twins (`thawlab.models.quicker`).

`python benchmarks/quicker_steps.py --out FILE`: images per second of one thread, the median of interleaved repetitions, random
weights and images. Steps are forward and backward passes of a batch of 64; "fixed" keeps BatchNorm's statistics.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from machine import measure
from torch import nn

from thawlab.environment import environment
from thawlab.inference import folding, fusing
from thawlab.models.quicker import quicker

SAME = {"pad_type": "same", "bn_eps": 1e-3}  # as the weights of MobileNetV2-0.35 that results/ was measured with
NETWORKS: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("tf_efficientnet_lite0", {}, 96),
    ("tf_efficientnet_lite0", {}, 128),
    ("mobilenetv2_035", SAME, 96),
    ("mobilenetv2_100", {}, 64),
    ("tf_efficientnetv2_b0", {}, 96),
    ("resnet50", {}, 96),
)


def rates(ways: dict[str, Any], count: int, repetitions: int) -> dict[str, float]:
    """Return images per second of each way, all tried in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(repetitions + 1):
        for name, work in ways.items():
            started = time.perf_counter()
            work()
            if repetition:
                seconds[name].append(time.perf_counter() - started)
    return {name: round(count / statistics.median(of), 1) for name, of in seconds.items()}


def in_mode(network: nn.Module, fixed: bool) -> nn.Module:
    network.train()
    for part in network.modules():
        if fixed and isinstance(part, nn.BatchNorm2d):
            part.eval()
    return network


def compared(name: str, arguments: dict[str, Any], size: int, repetitions: int) -> dict[str, Any]:
    """Return the rates of one network at one size."""
    images = torch.randn(64, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels, shape = torch.randint(0, 10, (64,)), (3, size, size)

    def network(**more: Any) -> nn.Module:
        return timm.create_model(name, **arguments, **more).to(memory_format=torch.channels_last)

    def step(trained: nn.Module, fixed: bool) -> Any:
        return lambda: F.cross_entropy(in_mode(trained, fixed)(images), labels).backward()

    plain = network(num_classes=10)
    twin, carrying = quicker(plain, [shape]), quicker(plain, [shape], folding.foldable(plain))
    steps = {"step": step(plain, False), "step, quicker": step(twin, False)}
    steps |= {"step, fixed": step(plain, True), "step, fixed, quicker": step(carrying, True)}
    row: dict[str, Any] = {"network": name, **arguments, "size": size, **rates(steps, 64, repetitions)}
    frozen = network(num_classes=0).eval()
    with torch.inference_mode():
        mirrored, folding._mirrored = folding._mirrored, lambda _network, result, _shape: result
        folded = folding.folded(frozen, shape)
        folding._mirrored = mirrored
        quick = folding.folded(frozen, shape)
        fused = fusing.fused(quick, shape)
        ways = {"features": folded, "features, quicker": quick, "features, quicker and fused": fused}
        row |= rates({name: partial(way, images) for name, way in ways.items()}, 64, repetitions)
    for what in ("step", "step, fixed", "features"):
        row[f"{what}: ratio"] = round(row[f"{what}, quicker"] / row[what], 2)
    row["features: fused"] = round(row["features, quicker and fused"] / row["features, quicker"], 2)
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [compared(*network, options.repetitions) for network in NETWORKS]
    machine = {"limits": measure("float32"), **environment({"threads": 1}, torch.device("cpu"))}
    options.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
