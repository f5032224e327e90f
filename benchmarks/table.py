"""Print the results of `run.py` as a Markdown table: `python benchmarks/table.py benchmarks/results/FILE.json …`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

WORDS = {
    "head": "head phase, frozen MobileNetV2-1.0, 96 px, 5,000 + 1,000 images, 20 epochs, whole command",
    "head-again": "the same with another dropout, warm cache, whole command",
    "head-again-training": "the same, training alone",
    "stage": "last-stage fine-tuning, 10 epochs, whole command",
    "all-tf_efficientnet_lite0-96": "one epoch of all layers, EfficientNet-Lite0, 96 px, 5,000 images",
    "all-mobilenetv2_100-96": "one epoch of all layers, MobileNetV2-1.0, 96 px, 5,000 images",
    "fixed-tf_efficientnet_lite0-96": "the same with BatchNorm's statistics fixed, EfficientNet-Lite0",
    "fixed-mobilenetv2_100-96": "the same with BatchNorm's statistics fixed, MobileNetV2-1.0",
    "all-resnet50-32": "one epoch of all layers, ResNet50, 32 px, 5,000 images",
    "all-resnet50-96": "one epoch of all layers, ResNet50, 96 px, 2,500 images",
    "all-tf_efficientnetv2_b0-96": "one epoch of all layers, EfficientNetV2-B0, 96 px, 2,500 images",
    "resnet20-epoch": "one epoch of ResNet-20 from scratch, 50,000 images, flip and crop",
    "input-first": "reading 10,000 JPEGs of 500 × 375 px to 224 px, first epoch",
    "input-later": "the same, later epochs",
    "predict": "`predict` on that folder, MobileNetV2-1.0, 224 px, whole command",
    "predict-bfloat16": "the same with `--engine bfloat16`",
    "memory": "peak memory, all layers of MobileNetV2-1.0, 96 px, 50,000 images",
    "memory-float32": "the same, held to float32",
}


def row(work: dict[str, Any]) -> str:
    """Return a task's line: the fastest peer, thawlab, the median of the ratios with their range, and the target."""
    medians = work.get("median_seconds") or work["median_mib"]
    unit = "s" if "median_seconds" in work else "MiB"
    peer = min((name for name in medians if name != "thawlab"), key=medians.__getitem__)
    ratios = sorted(work["ratios"])
    spread = f"{ratios[0]:.3g} to {ratios[-1]:.3g}, n = {len(ratios)}"
    mark = "" if work["ratio"] >= work["target"] else " ✗"
    return (
        f"| {WORDS.get(work['work'], work['work'])} | {medians[peer]:.3g} {unit} ({peer}) | {medians['thawlab']:.3g} {unit} "
        f"| **{work['ratio']:.3g}×** ({spread}) | {work['target']:g}×{mark} |"
    )


def main() -> None:
    print("| task | fastest peer | thawlab | ratio (range) | target |\n| --- | --- | --- | --- | --- |")
    files = [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]
    works = [work for file in files for work in file["works"]]
    for work in sorted(works, key=lambda work: list(WORDS).index(work["work"])):
        print(row(work))
    if any(file.get("share of the material", 1) < 1 for file in files):
        print("\nMeasured on a tenth of the images that the lines name (`--quick`).")


if __name__ == "__main__":
    main()
