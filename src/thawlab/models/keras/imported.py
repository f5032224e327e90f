"""A file of Keras as a backbone to train on, or as a classifier with its head."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from thawlab.errors import ThawlabError, UsageError
from thawlab.models.keras import SCALINGS
from thawlab.models.keras.architectures import family_of, with_description
from thawlab.models.keras.file import KerasFile, read_keras
from thawlab.models.keras.graph import KerasNetwork, Node, state_of
from thawlab.models.keras.translate import Translated, translate

# What a network of an unknown size is given.
_USUAL = 224


class Backbone(NamedTuple):
    """A network up to its pooled features.

    Attributes:
        arguments: of `KerasNetwork`, as JSON values.
        state: its tensors.
        size: side of the square input.
        scaling: a key of `SCALINGS`.
    """

    arguments: dict[str, Any]
    state: dict[str, torch.Tensor]
    size: int
    scaling: str


class Head(NamedTuple):
    """The last linear layer, classes × features, and its bias."""

    weight: torch.Tensor
    bias: torch.Tensor


def read_backbone(path: Path, scaling: str | None = None) -> Backbone:
    """Read the backbone of a file: of a model with a head what lies before it, of one without its pooled features.

    Args:
        path: of the file.
        scaling: of its inputs, where the file does not say it: a key of `SCALINGS`.

    Raises:
        UsageError: if the file is no model of Keras, or holds what is not supported.
        ThawlabError: if it is damaged.
    """
    file, translated = _read(path, _USUAL)
    return _backbone(file, translated, _pooled(path, translated), scaling)


def read_classifier(path: Path, size: int | None = None, scaling: str | None = None) -> tuple[Backbone, Head]:
    """Read a classifier: its network up to the last dense layer, and that layer, which gives logits.

    A single sigmoid unit becomes two classes, of which the first has the logit 0.

    Args:
        path: of the file.
        size: of its input, where the file leaves it open.
        scaling: of its inputs, where the file does not say it: a key of `SCALINGS`.

    Raises:
        UsageError: if the file is no classifier of Keras, or holds what is not supported.
        ThawlabError: if it is damaged.
    """
    file, translated = _read(path, size, with_head=True)
    nodes, functions = list(translated.nodes), []
    while nodes[-1].kind == "activation":
        functions.append(str(nodes.pop().settings["function"]))
    last = nodes[-1]
    if last.kind != "dense" or last.settings["maps"]:
        raise UsageError(f"{path}: its output is not that of a dense layer, so that it is no classifier that can be read")
    outputs = int(last.settings["outputs"])
    if [name for name in functions if name != "linear"] not in ([], ["softmax"], ["sigmoid"]):
        raise UsageError(f"{path}: its last activation is {functions[-1]}; softmax, sigmoid for two classes, or none is read")
    if "sigmoid" in functions and outputs > 1:
        raise UsageError(
            f"{path}: has {outputs} sigmoid outputs, a yes or no for each; classifiers of one class per image are read"
        )
    arrays = translated.arrays[last.layer]
    weight, bias = arrays["linear.weight"], arrays.get("linear.bias", np.zeros(outputs, np.float32))
    if outputs == 1:
        weight, bias = (np.concatenate([np.zeros_like(part), part]) for part in (weight, bias))
    head = Head(torch.from_numpy(np.ascontiguousarray(weight)), torch.from_numpy(np.ascontiguousarray(bias)))
    return _backbone(file, translated, last.inputs[0], scaling), head


def _read(path: Path, size: int | None, with_head: bool = False) -> tuple[KerasFile, Translated]:
    file = read_keras(path)
    if file.config is None:
        file = with_description(file)
        if with_head and "predictions" not in file.kernels:
            raise UsageError(f"{path}: holds no classifier; as a backbone it is --backbone keras:{path}")
        size = size or _USUAL
    return file, translate(file, size)


def _pooled(path: Path, translated: Translated) -> str:
    """Return the node of the pooled features: before the dense layers at the end, or the pooled last map."""
    producers = {node.name: node for node in translated.nodes}
    name = translated.nodes[-1].name
    if len(translated.shapes[name]) == 4:
        return name
    while name and producers[name].kind in ("dense", "activation", "relu", "dropout", "norm", "affine"):
        name = producers[name].inputs[0]
    if not name or len(translated.shapes[name]) != 2:
        raise UsageError(f"{path}: holds no layer that pools, so that it has no features")
    return name


def _backbone(file: KerasFile, translated: Translated, end: str, scaling: str | None) -> Backbone:
    """Return the part of a model that leads to a node, with the scaling of its inputs."""
    nodes = _leading_to(translated.nodes, end)
    if not nodes:
        raise UsageError(f"{file.path}: has nothing before its last layer")
    width, shapes = translated.shapes[end][1], translated.shapes
    maps = [shapes[node.name] for node in nodes if len(shapes[node.name]) == 4 and shapes[node.name][2] > 1]
    if len(shapes[end]) == 4:
        nodes.append(Node("pooled", "pooled", "global pool", (end,), {"maximum": False, "keepdims": False}))
    chosen = scaling or _scaling(file, nodes)
    if chosen not in SCALINGS:
        raise UsageError(f"--scaling {chosen}: is none of {', '.join(SCALINGS)}")
    arrays = {node.layer: translated.arrays[node.layer] for node in nodes if node.layer in translated.arrays}
    if SCALINGS[chosen][2]:
        nodes = [
            _blue_first(),
            *(node._replace(inputs=["blue first" if part == "" else part for part in node.inputs]) for node in nodes),
        ]
    state = state_of(nodes, arrays)
    reduction = None if not maps else max(1, round(translated.size[0] / maps[-1][2]))
    arguments = {"nodes": [[n.name, n.layer, n.kind, list(n.inputs), dict(n.settings)] for n in nodes], "width": width}
    return Backbone(arguments | {"reduction": reduction}, state, translated.size[0], chosen)


def _blue_first() -> Node:
    return Node("blue first", "blue first", "channels", ("",), {"order": [2, 1, 0]})


def _leading_to(nodes: Sequence[Node], end: str) -> list[Node]:
    """Return the nodes that a node needs, itself included, in order."""
    needed, kept = {end}, []
    for node in reversed(nodes):
        if node.name in needed:
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _scaling(file: KerasFile, nodes: Sequence[Node]) -> str:
    """Return how a network's inputs are scaled: inside it, or as the weights of its family expect.

    Raises:
        UsageError: if neither says it.
    """
    raw = {""}  # what is pixels still: nothing has been learnt of it
    for node in nodes:
        if set(node.inputs) <= raw and node.kind in ("channels", "activation", "concatenate", "zero pad", "resize", "affine"):
            if node.kind == "affine":
                return "raw"
            raw.add(node.name)
    family = family_of({node.layer.rpartition("/")[2] for node in nodes})
    if family is not None:
        return family.scaling
    raise UsageError(
        f"{file.path}: does not say how its inputs are scaled: unit (0 to 1), symmetric (−1 to 1), raw (0 to 255), or as "
        "keras.applications do, caffe or torch; say it: thawlab import … --scaling unit, or --backbone keras:FILE:unit"
    )


def input_config(network: Backbone) -> dict[str, Any]:
    """Return what a network expects of its input, in timm's words; Keras scales images bilinearly."""
    mean, std, _ = SCALINGS[network.scaling]
    return {"input_size": (3, network.size, network.size), "mean": mean, "std": std, "interpolation": "bilinear", "crop_pct": 1.0}


def build_network(arguments: Mapping[str, Any]) -> KerasNetwork:
    """Build a network from what `Backbone.arguments` holds, with random weights.

    Raises:
        ThawlabError: if this is no such description.
    """
    try:
        return KerasNetwork(arguments["nodes"], arguments["width"], arguments["reduction"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ThawlabError(f"the description of a network of Keras is damaged: {error!r}") from None
