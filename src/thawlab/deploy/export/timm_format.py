"""A folder that timm (`timm.create_model("local-dir:…")`) and the Hugging Face hub take: config.json and model.safetensors."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from thawlab.data.preprocessing import Preprocessing
from thawlab.data.types import Pixels
from thawlab.deploy.export.formats import Exporter, Material, Outputs, Session, exporters, on_fitted
from thawlab.errors import UsageError
from thawlab.files import read_json, write_atomically, write_json
from thawlab.models.classifier import factory_arguments
from thawlab.models.families import create
from thawlab.models.saved import ModelCard, SavedModel, spec_of
from thawlab.models.small import backbones


def _write(material: Material, folder: Path) -> None:
    model = material.model
    config = {
        "architecture": model.card.architecture,
        "num_classes": len(model.card.classes),
        "model_args": _arguments(model.card),
        "label_names": list(model.card.classes),
        "pretrained_cfg": _config(model.card),
    }
    content = save({name: tensor.contiguous() for name, tensor in _state(model).items()})
    write_atomically(folder / "model.safetensors", lambda file: file.write(content))
    write_json(folder / "config.json", config)


def _arguments(card: ModelCard) -> dict[str, Any]:
    return factory_arguments(spec_of(card), card.preprocessing.size)


def _config(card: ModelCard) -> dict[str, Any]:
    look = card.preprocessing
    return {
        "input_size": [3, look.size, look.size],
        "num_classes": len(card.classes),
        "mean": list(look.mean),
        "std": list(look.std),
        "interpolation": look.interpolation,
        "crop_pct": look.crop_pct if look.resize == "crop" else 1.0,
        "crop_mode": "center",
        "fixed_input_size": card.fixed_input_size,
    }


def _state(model: SavedModel) -> dict[str, torch.Tensor]:
    """Return the weights under timm's names, the temperature inside those of the last layer.

    Raises:
        UsageError: if timm has no such network, or the head is more than a linear layer.
    """
    card = model.card
    layers = [layer for layer in model.classifier.head.children() if isinstance(layer, nn.Linear)]
    if card.architecture in backbones:
        raise UsageError(f"--format timm: timm has no '{card.architecture}'; take onnx or torch")
    if len(layers) != 1:
        raise UsageError("--format timm: timm's heads are one linear layer, and this run's has hidden ones; take onnx or torch")
    other: Any = create(card.architecture, num_classes=len(card.classes), **_arguments(card))
    last = other.get_classifier()
    name = next((name for name, part in other.named_modules() if part is last), "")
    state = {key: value.detach().cpu() for key, value in model.classifier.backbone.state_dict().items()}
    # Softmax of the logits then gives calibrated probabilities.
    state |= {f"{name}.{key}": value.detach() / card.temperature for key, value in layers[0].state_dict().items()}
    missing = other.state_dict().keys() ^ state.keys()
    if not isinstance(last, nn.Linear) or missing:
        raise UsageError(f"--format timm: the head of '{card.architecture}' is of another kind than ours; take onnx or torch")
    return state


def _open(folder: Path) -> Session:
    network = create(read_json(folder / "config.json")["architecture"], f"local-dir:{folder}", pretrained=True).eval()

    def answer(look: Preprocessing, fitted: Pixels) -> Outputs:
        return {"probabilities": network(look.inputs(torch.from_numpy(fitted))).softmax(dim=1).numpy()}

    return on_fitted(folder, answer)


_USE = """```python
import timm

model = timm.create_model("local-dir:.", pretrained=True).eval()
```

The softmax of its logits is calibrated: the temperature is in the last layer's weights. timm's own transforms scale a picture's \
long side to whole pixels, so that probabilities then differ a little from those that were checked here."""
exporters.register("timm")(Exporter(_write, _open, library="timm", use=_USE))
