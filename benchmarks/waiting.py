"""How threads should wait: training steps alone and beside a busy process, by OpenMP's waiting policy.

`python benchmarks/waiting.py --out FILE` takes about eight minutes on a machine that does nothing else. Each measurement is a
process of its own, since OpenMP reads its settings once; they run in turn, repetition by repetition, and medians are reported.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thawlab.environment import processor_name

POLICIES = {
    "default": {},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=3000": {"GOMP_SPINCOUNT": "3000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
# It ends with whoever started it, even where that was killed.
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(100_000))"


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """Run a process that keeps one core busy, if so wanted, beside what is done within."""
    process = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def train(seconds: float) -> float:
    """Train EfficientNet-Lite0 with random weights at 96 px, batches of 32, for a while; returns images per second."""
    import timm
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = timm.create_model("tf_efficientnet_lite0", num_classes=10).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    images = torch.randn(32, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (32,))

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    step()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        step()
        count += len(images)
    return count / (time.perf_counter() - started)


def measured(policy: str, seconds: float) -> float:
    """Train in a process of its own under a policy."""
    kept = {key: value for key, value in os.environ.items() if key not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    command = [sys.executable, __file__, "--train", str(seconds)]
    return float(subprocess.run(command, env=kept | POLICIES[policy], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure all policies, alone and beside a busy process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=float)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.train:
        print(train(options.train))
        return
    rates: dict[str, dict[str, list[float]]] = {policy: {"alone": [], "busy": []} for policy in POLICIES}
    for place in ("alone", "busy"):
        with neighbour(place == "busy"):
            for _ in range(options.repetitions):
                for policy in POLICIES:
                    rates[policy][place].append(round(measured(policy, options.seconds), 2))
    alone = statistics.median(rates["default"]["alone"])
    for policy, found in rates.items():
        one, busy = (statistics.median(found[place]) for place in ("alone", "busy"))
        print(f"{policy:24} alone {one:6.1f} images/s ({one / alone:.2f} of default)  beside one busy process {busy:6.1f}")
    if options.out:
        document = {"machine": processor_name(), "cores": os.cpu_count(), "seconds": options.seconds, "images_per_second": rates}
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
