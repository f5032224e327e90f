"""The demonstration: transfer learning in two phases beside the same network from scratch, on real digits, without a download."""

from typing import Any

from thawlab.recipe import Recipe, parse_recipe

# Digits are 8×8 images, enlarged to what the bundled network was trained on.
_DATA = {"source": "digits", "image_size": 32}
_AUGMENT = ["shift:0.08", "rotate:8", "zoom:0.08"]  # no flip: a mirrored digit is not a digit


def demo_recipes(seed: int = 0) -> tuple[Recipe, Recipe]:
    """Return the recipes of the two runs: two phases on the bundled backbone, and its network from scratch.

    Both see the same images, splits and augmentation, and the same number of epochs over all layers.
    """
    every_layer: dict[str, Any] = {"train": "all", "epochs": 8, "batch_size": 64, "schedule": "one-cycle", "augment": _AUGMENT}
    two_phases = {
        "name": "demo-two-phase",
        "seed": seed,
        "data": _DATA,
        "model": {"backbone": "bundled"},
        "phases": [
            {"name": "head", "train": "head", "epochs": 40, "lr": 3e-3, "patience": 10},
            {"name": "fine-tune", "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.01, "batch_norm": "train", **every_layer},
        ],
    }
    from_scratch = {
        "name": "demo-from-scratch",
        "seed": seed,
        "data": _DATA,
        "model": {"backbone": "speednet"},
        "phases": [{"name": "scratch", "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.01, **every_layer}],
    }
    return parse_recipe(two_phases, "demo"), parse_recipe(from_scratch, "demo")
