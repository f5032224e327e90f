"""The demonstration: transfer learning in two phases beside the same network from scratch, on real digits, without a download."""

from typing import Any

from thawlab.recipe import Recipe, parse_recipe

_AUGMENT = ["shift:0.08", "rotate:8", "zoom:0.08"]  # no flip: a mirrored digit is not a digit
_HEAD = {"name": "head", "train": "head", "epochs": 40, "lr": 3e-3, "patience": 10}
_EVERY_LAYER = {"epochs": 8, "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.01, "schedule": "one-cycle", "augment": _AUGMENT}


def demo_recipes(seed: int = 0) -> tuple[Recipe, Recipe]:
    """Return the recipes of the two runs: two phases on the bundled backbone, and its network from scratch.

    Both see the same images, splits and augmentation, and the same number of epochs over all layers.
    """

    def recipe(name: str, backbone: str, *phases: dict[str, Any]) -> Recipe:
        # Digits are 8×8 images, enlarged to what the bundled network was trained on.
        data = {"source": "digits", "image_size": 32}
        return parse_recipe({"name": name, "seed": seed, "data": data, "model": {"backbone": backbone}, "phases": phases}, "demo")

    fine_tune = {**_EVERY_LAYER, "name": "fine-tune", "batch_norm": "train"}
    return (
        recipe("demo-two-phase", "bundled", _HEAD, fine_tune),
        recipe("demo-from-scratch", "speednet", {**_EVERY_LAYER, "name": "scratch"}),
    )
