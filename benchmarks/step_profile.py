"""Where a training step spends its time, by operator: `python benchmarks/step_profile.py --out FILE`; `--bfloat16` rounds.

All layers of networks with moving BatchNorm, a batch of 64 at 96 px, random weights, as `thawlab` trains them on a CPU.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from thawlab import process

process.prepare()  # as the program does: OpenMP, which torch brings, reads its settings once

import timm  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from machine import measure  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from thawlab.environment import environment  # noqa: E402
from thawlab.models.quicker import quicker  # noqa: E402

NETWORKS = ("tf_efficientnet_lite0", "mobilenetv2_100")
SIZE, BATCH, STEPS, SHOWN = 96, 64, 5, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bfloat16", action="store_true", help='as `precision = "bfloat16"` does')
    options = parser.parse_args()
    result: dict[str, object] = {
        "environment": environment({}, torch.device("cpu")),
        "machine": measure("float32", "bfloat16"),
        "precision": "bfloat16" if options.bfloat16 else "float32",
    }
    for name in NETWORKS:
        network = timm.create_model(name, num_classes=10).to(memory_format=torch.channels_last).train()
        network = quicker(network, [(3, SIZE, SIZE)]).train()
        optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
        images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(0, 10, (BATCH,))

        def step(network=network, optimizer=optimizer, images=images, labels=labels) -> None:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
                logits = network(images)
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()

        for _ in range(2):
            step()
        started = time.perf_counter()
        for _ in range(STEPS):
            step()
        seconds = (time.perf_counter() - started) / STEPS
        with profile(activities=[ProfilerActivity.CPU]) as told:
            for _ in range(STEPS):
                step()
        operators = sorted(told.key_averages(), key=lambda row: -row.self_cpu_time_total)
        whole = sum(row.self_cpu_time_total for row in operators)
        result[name] = {
            "images per second": round(BATCH / seconds, 1),
            "share of the step": {row.key: round(row.self_cpu_time_total / whole, 3) for row in operators[:SHOWN]},
        }
        print(name, json.dumps(result[name], indent=1), flush=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
