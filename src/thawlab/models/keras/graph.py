"""A network that is a graph of known layers, as Keras writes them down; images are n × channels × height × width here.

Nothing of a file is executed: a node names one of `LAYERS`, and its settings are numbers and words.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from thawlab.models.keras.parts import LAYERS, Pool


class Node(NamedTuple):
    """One call of a layer.

    Attributes:
        name: of its output.
        layer: the layer's name; calls that share weights share it.
        kind: a key of `LAYERS`.
        inputs: names of the nodes whose outputs it takes, "" for the network's input.
        settings: of the layer, as JSON values.
    """

    name: str
    layer: str
    kind: str
    inputs: Sequence[str]
    settings: Mapping[str, Any]


@final
class KerasNetwork(nn.Module):
    """A graph of known layers from one input to one output: a backbone in timm's terms, as far as they are used here.

    Args:
        nodes: in an order in which every node follows its inputs; the last one is the output, n × `width`.
        width: of the output.
        reduction: the stride of the last feature map; None where there is none.
    """

    def __init__(self, nodes: Sequence[Node], width: int, reduction: int | None = None) -> None:
        super().__init__()
        self.nodes = tuple(Node(*node) for node in nodes)
        self.num_features = width
        if reduction is not None:
            self.feature_info = [{"num_chs": width, "reduction": reduction}]
        self.keys = keys_of(self.nodes)
        self.layers = nn.ModuleDict()
        for node in self.nodes:
            if self.keys[node.layer] not in self.layers:
                self.layers[self.keys[node.layer]] = LAYERS[node.kind](**node.settings)
        self._last_use = {name: k for k, node in enumerate(self.nodes) for name in node.inputs}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the last node."""
        values = {"": x}
        for number, node in enumerate(self.nodes):
            values[node.name] = self.layers[self.keys[node.layer]](*(values[name] for name in node.inputs))
            for name in set(node.inputs):
                if self._last_use[name] == number:
                    del values[name]
        return values[self.nodes[-1].name]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return what gives each parameter its group: its layer, or its stage, which ends where the maps get smaller."""
        if not coarse:
            return {"layers": r"^layers\.(\d+)"}
        stages, stage, seen = [], 0, False
        for number, key in enumerate(self.layers):
            layer = self.layers[key]
            if seen and max(_strides(layer)) > 1:
                stage, seen = stage + 1, False
            seen = seen or any(True for _ in layer.parameters())
            stages.append((rf"^layers\.{number:03d}_", (stage,)))
        return {"stages": stages}


def _strides(layer: nn.Module) -> Sequence[int]:
    return layer.stride if isinstance(layer, nn.Conv2d) else layer.strides if isinstance(layer, Pool) else (1,)


def keys_of(nodes: Sequence[Node]) -> dict[str, str]:
    """Return the name in the state of each layer, numbered in the order of the graph."""
    return {layer: f"{number:03d}_{_plain(layer)}" for number, layer in enumerate(dict.fromkeys(node.layer for node in nodes))}


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in name)


def state_of(nodes: Sequence[Node], arrays: Mapping[str, Mapping[str, npt.NDArray[Any]]]) -> dict[str, torch.Tensor]:
    """Return the state of the network of some nodes, from the tensors of its layers by layer and by name."""
    keys = keys_of(nodes)
    return {
        f"layers.{keys[layer]}.{name}": torch.from_numpy(np.array(values))
        for layer, held in arrays.items()
        for name, values in held.items()
    }
