"""Predict images with the model beside this file: python predict.py IMAGE… (needs numpy, pillow, and onnxruntime or torch)."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps


def read(file: Path, card: dict[str, Any]) -> np.ndarray:
    """Return an image file as the graph takes it: uint8 RGB, height × width × 3, upright."""
    look = card["preprocessing"]
    with Image.open(file) as image:
        # A JPEG far larger than the network's input is decoded at a half, quarter or eighth of its size.
        short, long = sorted(image.size)
        side = long if look["resize"] == "pad" else short * (look["crop_pct"] if look["resize"] == "crop" else 1)
        scale = look["size"] * 2.0 / side
        if scale < 1 and image.mode in {"RGB", "L"}:
            image.draft(None, (max(1, int(image.width * scale)), max(1, int(image.height * scale))))
        image.load()
        upright = ImageOps.exif_transpose(image)
        if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
            values = np.nan_to_num(np.asarray(upright).astype(np.float64))
            top = values.max()
            usual = [0, (1 if top <= 1 else 255) if image.mode == "F" and top <= 255 else 65535]
            low, high = look["grey_range"] or usual
            grey = np.clip(np.rint((values - low) * (255.0 / (high - low))), 0, 255).astype(np.uint8)
            return np.asarray(Image.fromarray(grey).convert("RGB"))
        if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
            # Transparent images are laid on white; those drawn in white on black.
            layers = upright.convert("RGBA")
            pixels = np.asarray(layers)
            weight = pixels[..., 3].astype(np.float64)
            covered = weight.sum()
            is_mixed = 0 < covered < 255 * weight.size
            ink = (weight[..., None] * pixels[..., :3]).sum() / (3 * covered) if is_mixed else 0
            ground = Image.new("RGBA", layers.size, (0, 0, 0, 255) if ink > 208 else (255, 255, 255, 255))
            upright = Image.alpha_composite(ground, layers)
        return np.asarray(upright.convert("RGB"))


def load(folder: Path) -> tuple[Callable[[np.ndarray], dict[str, np.ndarray]], dict[str, Any]]:
    """Return the model in a folder as a function from n × height × width × 3 to its outputs by name, and its description."""
    card = json.loads((folder / "thawlab.json").read_text(encoding="utf-8"))
    if (file := folder / "model.onnx").exists():
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return lambda images: dict(zip(card["outputs"], session.run(card["outputs"], {"images": images}), strict=True)), card
    import torch

    graph = torch.export.load(folder / "model.pt2").module()
    return lambda images: dict(
        zip(card["outputs"], (part.detach().numpy() for part in graph(torch.from_numpy(images.copy()))), strict=True)
    ), card


if __name__ == "__main__":
    answer, card = load(Path(__file__).parent)
    for name in sys.argv[1:]:
        try:
            pixels = read(Path(name), card)
        except OSError as error:
            sys.exit(f"{name}: cannot be read: {error.strerror or error}")
        outputs = answer(pixels[None])
        best = int(outputs["probabilities"][0].argmax())
        unsure, novel = (bool(outputs.get(key, [False])[0]) for key in ("unsure", "novel"))
        said = " (not like anything in training)" if novel else " (unsure)" if unsure else ""
        print(f"{name}: {card['classes'][best]} {outputs['probabilities'][0][best]:.1%}{said}")
