"""What the parts of a run cost, for the explanations in README.md: `python benchmarks/parts.py --folder FOLDER --out FILE`.

FOLDER is that of `run.py` (with its random backbones and JPEGs). Every figure is the median of several; each group runs in a
process of its own, since earlier work in a process (memory, caches) changes its times.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NETWORKS = (("mobilenetv2_100", 96), ("resnet50", 32), ("resnet50", 96), ("tf_efficientnetv2_b0", 96), ("resnet20", 32))
BATCH = 64


def median_ms(work: Callable[[], object], times: int = 20, warm: int = 3) -> float:
    """Return the median of some calls in milliseconds."""
    seconds = []
    for number in range(warm + times):
        started = time.perf_counter()
        work()
        if number >= warm:
            seconds.append(time.perf_counter() - started)
    return round(1000 * statistics.median(seconds), 3)


def imports(_: Path) -> dict[str, Any]:
    """Seconds of a process that imports one more package each time, and of one that exits as `thawlab` does."""
    chain = ["pass", "import torch", "import torchvision", "import timm", "import thawlab.runner", "import sklearn.metrics"]
    result = {}
    for count in range(1, len(chain) + 1):
        program = "; ".join([*chain[:count], "import os; os._exit(0)"])
        command = [sys.executable, "-c", program]
        result[chain[count - 1]] = median_ms(lambda command=command: subprocess.run(command, check=True), 5, 1)  # type: ignore[misc]
    program = "; ".join(chain[:5])
    command = [sys.executable, "-c", program]
    result["the fifth, leaving as Python does"] = median_ms(lambda: subprocess.run(command, check=True), 5, 1)
    return {f"ms up to '{name}'": value for name, value in result.items()}


def folding(_: Path) -> dict[str, Any]:
    """Images per second of MobileNetV2 at 96 px without gradients, as it is and with BatchNorm folded."""
    import timm
    import torch

    from thawlab.inference.folding import folded

    network = timm.create_model("mobilenetv2_100", num_classes=0).eval().to(memory_format=torch.channels_last)
    inputs = torch.rand(32, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    result = {}
    with torch.inference_mode():
        for name, module in (("as it is", network), ("folded", folded(network, (3, 96, 96)))):
            result[f"{name}: images/s"] = round(32_000 / median_ms(lambda module=module: module(inputs)), 0)  # type: ignore[misc]
    return result


def small_things(_: Path) -> dict[str, Any]:
    """Milliseconds that a cached head step would otherwise spend on overhead."""
    import torch

    from thawlab.models.dropout import Dropout

    values = torch.rand(BATCH, 1280, requires_grad=True)

    def drop(layer: torch.nn.Module) -> None:
        layer(values).sum().backward()

    return {
        "torch.manual_seed": median_ms(lambda: torch.manual_seed(1), 200),
        "default_generator.manual_seed": median_ms(lambda: torch.default_generator.manual_seed(1), 200),
        "torch's dropout, 64 × 1280": median_ms(lambda: drop(torch.nn.Dropout(0.2).train()), 200),
        "dropout from 16 bits": median_ms(lambda: drop(Dropout(0.2).train()), 200),
    }


def jpegs(folder: Path) -> dict[str, Any]:
    """Milliseconds of one core to read one JPEG of 500 × 375 px at 224 px."""
    import io

    import torch
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_jpeg

    from thawlab.data.preprocessing import Preprocessing

    torch.set_num_threads(1)
    files = sorted((folder / "jpegs").glob("*/*.jpg"))[:200]
    contents = [file.read_bytes() for file in files]
    tensors = [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in contents]
    preprocessing = Preprocessing(size=224, mean=(0.5,) * 3, std=(0.5,) * 3)
    opened = [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]
    per = len(contents)
    return {
        "Pillow decodes": median_ms(lambda: [Image.open(io.BytesIO(c)).load() for c in contents], 5, 1) / per,
        "Pillow resizes, antialiased": median_ms(lambda: [preprocessing.fit(image) for image in opened], 5, 1) / per,
        "libjpeg-turbo alone decodes (torchvision)": median_ms(
            lambda: [decode_jpeg(t, mode=ImageReadMode.RGB) for t in tensors], 5, 1
        )
        / per,
    }


def step_of(name: str, size: int, bfloat16: bool) -> Callable[[], None]:
    """Return one training step of all layers with Adam."""
    import timm
    import torch
    import torch.nn.functional as F

    from thawlab.models.classifier import Classifier, make_head
    from thawlab.models.small import backbones

    torch.manual_seed(0)
    known = name in backbones
    network: torch.nn.Module = (
        Classifier(backbones.get(name)(size), make_head(64, [], [], 10)) if known else timm.create_model(name, num_classes=10)
    )
    network = network.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)
    inputs = torch.rand(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 10, (BATCH,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = network(inputs)
        F.cross_entropy(logits.float(), targets).backward()
        optimizer.step()

    return step


def steps(_: Path) -> dict[str, Any]:
    """Milliseconds of a training step of 64 images, in float32 and bfloat16, by network."""
    from thawlab.heap import keep_freed

    if os.environ.get("KEEP") != "no":
        keep_freed()
    return {
        f"{name}, {size} px, {'bfloat16' if low else 'float32'}": median_ms(step_of(name, size, low), 10, 3)
        for name, size in NETWORKS
        for low in (False, True)
    }


def shares(step: Callable[[], None], times: int) -> dict[str, float]:
    """Return what share of some steps' time the ten most expensive operations take."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    with profiler(activities=[ProfilerActivity.CPU]) as recorded:
        for _number in range(times):
            step()
    events = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return {event.key: round(event.self_cpu_time_total / total, 3) for event in events[:10]}


def profile(_: Path) -> dict[str, Any]:
    """Shares of a ResNet-20 step in bfloat16 by operation, and the effect of compiling it."""
    import torch

    from thawlab.heap import keep_freed

    keep_freed()
    step = step_of("resnet20", 32, True)
    for _number in range(5):
        step()
    result: dict[str, Any] = {"share of the time": shares(step, 20), "eager, ms": median_ms(step, 20)}
    started = time.perf_counter()
    compiled = torch.compile(step)
    compiled()
    result |= {"seconds to compile": round(time.perf_counter() - started, 1), "compiled, ms": median_ms(compiled, 20)}
    return result


def speednet(_: Path) -> dict[str, Any]:
    """A step of speednet's recipe (512 images, bfloat16, Muon) by image size: rates, and where the time goes."""
    import torch

    from thawlab.heap import keep_freed
    from thawlab.models.classifier import Classifier, make_head
    from thawlab.models.small import backbones
    from thawlab.recipe import Phase
    from thawlab.training.optimizers import make_optimizer

    keep_freed()
    torch.manual_seed(0)
    network = Classifier(backbones.get("speednet")(32), make_head(256, [], [], 10)).train().to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, Phase(epochs=1, optimizer="muon", lr=0.01))
    targets = torch.randint(0, 10, (512,))
    result: dict[str, Any] = {}
    for size in (20, 24, 28, 32):
        inputs = torch.rand(512, 3, size, size).contiguous(memory_format=torch.channels_last)

        def step(inputs: torch.Tensor = inputs) -> None:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(inputs)
            torch.nn.functional.cross_entropy(logits.float(), targets).backward()
            with torch.autocast("cpu", torch.bfloat16):
                optimizer.step()

        milliseconds = median_ms(step, 7, 2)
        # A product and a sum for each weight and place, forward; twice that backward.
        operations = 6 * 512 * sum(weights * places for weights, places in _convolutions(network, inputs[:2]))
        result[f"{size} px"] = {
            "ms": milliseconds,
            "images per second": round(512_000 / milliseconds),
            "GFLOP/s in convolutions": round(operations / milliseconds / 1e6),
            "share of the time": shares(step, 1),
        }
    return result


def _convolutions(network: Any, inputs: Any) -> list[tuple[int, int]]:
    """Return the number of weights of each convolution, and of the positions at which it is computed."""
    import torch

    found: list[tuple[int, int]] = []
    hooks = [
        layer.register_forward_hook(lambda part, _, out: found.append((part.weight.numel(), out.shape[2] * out.shape[3])))
        for layer in network.modules()
        if isinstance(layer, torch.nn.Conv2d)
    ]
    with torch.no_grad():
        network(inputs)
    for hook in hooks:
        hook.remove()
    return found


GROUPS = {part.__name__: part for part in (imports, folding, small_things, jpegs, steps, profile, speednet)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the folder that run.py prepared")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--group", choices=GROUPS, help="measure one group and print it as JSON")
    parser.add_argument("--only", choices=GROUPS, help="measure one group, with the machine's ceilings")
    arguments = parser.parse_args()
    if arguments.group:
        print(json.dumps(GROUPS[arguments.group](arguments.folder)))
        return
    sys.path.insert(0, str(Path(__file__).parent))
    from machine import measure

    from thawlab.environment import processor_name

    measured: dict[str, Any] = {"date": time.strftime("%F"), "processor": processor_name(), "machine": measure()}
    cases = [(name, name, {}) for name in GROUPS] + [("steps, freed memory given back", "steps", {"KEEP": "no"})]
    for title, name, setting in cases if not arguments.only else [(arguments.only, arguments.only, {})]:
        command = [sys.executable, __file__, "--folder", str(arguments.folder), "--group", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **setting})
        measured[title] = json.loads(done.stdout.splitlines()[-1])
        print(title, json.dumps(measured[title], indent=1, ensure_ascii=False), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
