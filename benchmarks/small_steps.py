"""Steps of a head on cached features in one thread and in two: `python benchmarks/small_steps.py --out FILE`.

Milliseconds, by the number of threads, of a step of AdamW with dropout on random features; medians, in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from thawlab import process

process.prepare()  # as the program does: OpenMP, which torch brings, reads its settings once

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from thawlab.environment import environment, on_threads  # noqa: E402
from thawlab.models.classifier import make_head  # noqa: E402

# Features, hidden widths, classes, images in a batch.
HEADS = (
    (512, (), 10, 64),
    (1280, (), 10, 64),
    (2048, (), 10, 64),
    (1280, (), 10, 256),
    (1280, (), 100, 64),
    (1280, (128,), 10, 64),
    (1280, (256,), 10, 64),
    (1280, (512,), 10, 64),
    (2048, (), 1000, 64),
    (2048, (1024,), 100, 64),
)
TURNS, STEPS = 3, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for features, hidden, classes, batch in HEADS:
        head = make_head(features, hidden, (0.3,) * (len(hidden) + 1), classes).train()
        optimizer = torch.optim.AdamW(head.parameters(), 1e-3)
        inputs, labels = torch.randn(batch, features), torch.randint(0, classes, (batch,))
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(TURNS):
            for threads, taken in seconds.items():
                with on_threads(threads):
                    for _ in range(STEPS):
                        started = time.perf_counter()
                        optimizer.zero_grad()
                        F.cross_entropy(head(inputs), labels).backward()
                        optimizer.step()
                        taken.append(time.perf_counter() - started)
        products = batch * sum(parameter.numel() for parameter in head.parameters())
        medians = {threads: round(1000 * statistics.median(taken), 2) for threads, taken in seconds.items()}
        rows.append(
            {"head": [features, *hidden, classes], "batch": batch, "products": products, "milliseconds by threads": medians}
        )
        print(json.dumps(rows[-1]), flush=True)
    content = {"environment": environment({}, torch.device("cpu")), "heads": rows}
    options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
