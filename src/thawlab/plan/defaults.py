"""The built-in recipes, for a user who names only the images and, perhaps, the backbone."""

import re
from pathlib import Path
from typing import Any

from thawlab.models.catalog import BackboneSpec
from thawlab.models.keras import named_scaling

# Small enough to be fine-tuned on a laptop, and good enough to be worth it.
DEFAULT_BACKBONE = "timm/mobilenetv3_large_100.ra_in1k"


def default_tables(source: str, spec: BackboneSpec, pretrained: bool = True, validated: bool = True) -> dict[str, Any]:
    """Return the tables of a recipe for some images and a backbone.

    With pretrained weights the head is trained first, then everything; a small network is trained from scratch in one phase,
    speednet on CIFAR's images by the recipe that is measured for it (recipes/speednet.toml). Without validation images
    (`validated` is false) no phase stops early.
    """
    name = re.sub(r"[^\w.-]+", "-", f"{_short(source)}-{_short(spec.name)}").strip("-")[:120]
    tables = {"name": name, "data": {"source": source}, "model": {"backbone": spec.name}}
    # Some hundred steps at a large batch suit tens of thousands of images, not a folder of a few hundred.
    if spec.name == "speednet" and source.removesuffix(":") in {"cifar10", "cifar100"}:
        return {**tables, "precision": "auto", "phases": [_SPEEDNET]}
    phases = _TWO_PHASES if spec.has_weights and pretrained else [_FROM_SCRATCH]
    kept = [{key: value for key, value in phase.items() if validated or key != "patience"} for phase in phases]
    return {**tables, "phases": kept}


def _short(name: str) -> str:
    if name.startswith("keras:"):
        return Path(named_scaling(name.removeprefix("keras:"))[0]).name.partition(".")[0]
    tail = name.rpartition(":")[2] if name.startswith(("local-dir:", "hf-hub:")) else name.partition(":")[0]
    name = Path(tail).resolve().name if tail in {".", ".."} else Path(tail).name
    return _ARCHIVE.sub("", name)


_ARCHIVE = re.compile(r"\.(zip|csv|parquet|tgz|tar(\.\w+)?)$")
_TWO_PHASES = [
    {"name": "head", "train": "head", "epochs": 30, "patience": 5},
    {
        "name": "fine-tune",
        "epochs": 12,
        "batch_size": 32,
        "optimizer": "adamw",
        "lr": 3e-4,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warmup": 0.5,
        "layer_decay": 0.9,
        "augment": ["flip", "shift:0.1", "zoom:0.1"],
        "patience": 5,
    },
]
_FROM_SCRATCH = {
    "name": "scratch",
    "epochs": 30,
    "batch_size": 128,
    "optimizer": "sgd",
    "lr": 0.1,
    "weight_decay": 5e-4,
    "schedule": "one-cycle",
    "augment": ["flip", "crop:4"],
}
_SPEEDNET = {
    "name": "scratch",
    "epochs": 14,
    "batch_size": 512,
    "optimizer": "muon",
    "lr": 0.1,
    "head_lr": 0.1,
    "bias_lr": 10.0,
    "momentum": 0.7,
    "schedule": "linear",
    "label_smoothing": 0.2,
    "augment": ["alternate-flip", "crop:2"],
    "sizes": [20, 24, 24, 28, 32, 32, 32],
}
