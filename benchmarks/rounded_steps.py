"""Steps and inference in float32 and bfloat16, where a processor multiplies it: `python benchmarks/rounded_steps.py --out FILE`.

Images per second of two threads at 96 px, random weights and images; medians, the ways in turn. "bounded by values" takes
PyTorch's clamp in place of the twins' own, "as it was" also lets oneDNN compute the gradients that `thawlab.models.depthwise`
puts together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

from thawlab import process

process.prepare()  # as the program does: OpenMP, which torch brings, reads its settings once

import timm  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from machine import measure  # noqa: E402
from torch import nn  # noqa: E402

from thawlab.environment import environment  # noqa: E402
from thawlab.heap import keeping_large  # noqa: E402
from thawlab.inference.folding import foldable  # noqa: E402
from thawlab.inference.fusing import compacted, rounded  # noqa: E402
from thawlab.models import quicker as twins  # noqa: E402

NETWORKS = ("tf_efficientnet_lite0", "mobilenetv2_100", "tf_efficientnetv2_b0", "resnet50")
SIZE, BATCH, TURNS = 96, 64, 5


def rates(ways: dict[str, Any]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        for name, work in ways.items():
            started = time.perf_counter()
            work()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: round(BATCH / statistics.median(taken), 1) for name, taken in seconds.items()}


def steps(name: str, fixed: bool, images: torch.Tensor) -> dict[str, float]:
    network = timm.create_model(name, num_classes=10).to(memory_format=torch.channels_last).train()
    quick = twins.quicker(network, [images.shape[1:]], foldable(network) if fixed else ()).train()
    for part in quick.modules():
        if fixed and isinstance(part, nn.BatchNorm2d):
            part.eval()
    optimizer, labels = torch.optim.AdamW(quick.parameters(), 1e-4), torch.randint(0, 10, (BATCH,))

    def step(rounds: bool) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=rounds):
            logits = quick(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    def as_it_was() -> None:
        with mock.patch.object(twins, "is_slow", lambda *_: False), mock.patch.object(twins, "_bound", F.hardtanh_):
            step(True)

    def by_values() -> None:
        with mock.patch.object(twins, "_bound", F.hardtanh_):
            step(True)

    ways = {"float32": lambda: step(False), "bfloat16": lambda: step(True), "bfloat16 as it was": as_it_was}
    return rates({**ways, "bfloat16, bounded by values": by_values})


@torch.inference_mode()
def inference(name: str, images: torch.Tensor) -> dict[str, float]:
    network = timm.create_model(name, num_classes=0).to(memory_format=torch.channels_last).eval()
    quick = compacted(network, images.shape[1:])
    rough, parts = rounded(quick), images.split(32)
    ways = {"as timm has it": network, "float32": quick, "bfloat16": rough}
    with keeping_large():
        return rates({way: lambda module=module: [module(part) for part in parts] for way, module in ways.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    content: dict[str, Any] = {"environment": environment({}, torch.device("cpu")), "machine": measure("float32", "bfloat16")}
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    for name in NETWORKS:
        content[name] = {
            "moving BatchNorm": steps(name, False, images),
            "fixed BatchNorm": steps(name, True, images),
            "inference": inference(name, images),
        }
        print(name, json.dumps(content[name]), flush=True)
    options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
