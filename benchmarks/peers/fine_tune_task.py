"""What the peers that fine-tune a folder of images are given: the same images, weights, input scaling and size."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def parsed() -> argparse.Namespace:
    """Return the arguments of the command line, with timm's `model`, its `weights`, and `mean` and `std` of its input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="train/CLASS and val/CLASS")
    parser.add_argument("--backbone", type=Path, required=True, help="a folder with config.json and model.safetensors")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = json.loads((arguments.backbone / "config.json").read_text(encoding="utf-8"))
    arguments.model, arguments.weights = config["architecture"], arguments.backbone / "model.safetensors"
    arguments.mean, arguments.std = (config["pretrained_cfg"][key] for key in ("mean", "std"))
    return arguments
