"""Batches of which each takes all threads, and several at once, a thread each: `python benchmarks/batches_at_once.py --out FILE`.

Images per second of `thawlab`'s inference from uint8 rows on, random weights and images; medians, the two ways in turn. Both give
the same bits, or this ends with an error.
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

import numpy as np  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from machine import measure  # noqa: E402

from thawlab.environment import environment  # noqa: E402
from thawlab.inference import infer as inference  # noqa: E402

NETWORKS = (
    ("mobilenetv2_100", 64, 1280),
    ("mobilenetv2_100", 96, 1280),
    ("mobilenetv2_100", 128, 640),
    ("mobilenetv2_100", 160, 640),
    ("mobilenetv2_100", 224, 320),
    ("tf_efficientnet_lite0", 96, 1280),
    ("tf_efficientnet_lite0", 128, 640),
    ("tf_efficientnet_lite0", 224, 320),
    ("resnet18", 96, 640),
    ("resnet18", 224, 160),
    ("resnet50", 96, 320),
)
TURNS = 4
CPU = torch.device("cpu")


def prepare(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels.float() / 255 - 0.5).permute(0, 3, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    content: dict[str, Any] = {"environment": environment({}, CPU), "machine": measure("float32"), "images per second": []}
    for name, size, count in NETWORKS:
        module = timm.create_model(name, num_classes=0).eval().to(memory_format=torch.channels_last)
        rows = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        seconds: dict[str, list[float]] = {"all threads": [], "at once": []}
        outputs = {}
        for _ in range(TURNS + 1):
            for way, largest in (("all threads", 0), ("at once", size)):
                with mock.patch.object(inference, "_APART", largest):
                    started = time.perf_counter()
                    outputs[way] = inference.infer(module, rows, np.arange(count), prepare, CPU)
                    seconds[way].append(time.perf_counter() - started)
        if not np.array_equal(*outputs.values()):
            raise SystemExit(f"{name} at {size} px: the two ways give other bits")
        rates = {way: round(count / statistics.median(taken[1:]), 1) for way, taken in seconds.items()}
        content["images per second"].append({"network": name, "size": size, **rates})
        print(json.dumps(content["images per second"][-1]), flush=True)
    options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
