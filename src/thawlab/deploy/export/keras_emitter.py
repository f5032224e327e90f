"""A walk through an exported program that adds a layer of Keras for each of its operations."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from thawlab.errors import UsageError
from thawlab.models.keras.writing import Description

Array = npt.NDArray[np.float32]
_ACTIVATIONS = {
    "relu": "relu",
    "relu6": "relu6",
    "silu": "silu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "hardswish": "hard_silu",
    "hardsigmoid": "hard_sigmoid",
    "softplus": "softplus",
    "mish": "mish",
    "selu": "selu",
    "elu": "elu",
}
_SAME = {"dropout", "dropout_", "feature_dropout", "clone", "contiguous", "detach", "alias", "to", "_to_copy", "identity"}


@final
class Emitter:
    """Adds the operations of an exported program to a description.

    Args:
        description: that grows.
        program: from one image tensor to logits.
    """

    def __init__(self, description: Description, program: torch.export.ExportedProgram) -> None:
        self.description, self._program = description, program
        self.names: dict[fx.Node, str] = {}  # the layer that gives each tensor
        self.last: set[fx.Node] = set()  # tensors that have their channels last in PyTorch, too
        self.cells: set[fx.Node] = set()  # maps whose height and width are one dimension in PyTorch
        self.below: dict[fx.Node, tuple[fx.Node, list[int]]] = {}  # maps with margins of −∞: of which, and how wide
        self.constants = self._held()

    def emit(self, first: str, operations: Mapping[str, "Operation"]) -> str:
        """Add all operations on the output of a layer, and return the name of the layer that gives the logits.

        Args:
            first: the layer's name.
            operations: how each is added, by its name in PyTorch.

        Raises:
            UsageError: for an operation that no layer of Keras stands for.
        """
        for node in self._program.graph.nodes:
            if node.op == "placeholder" and node not in self.constants:
                self.names[node] = first
            elif node.op == "call_function":
                self._call(node, operations)
            elif node.op == "output":
                [[result]] = node.args
                return self.names[result]
        raise AssertionError("a program has an output")

    def _held(self) -> dict[fx.Node, torch.Tensor]:
        signature, state = self._program.graph_signature, {**self._program.state_dict, **self._program.constants}
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
        return {node: state[names[node.name]] for node in self._program.graph.nodes if node.name in names}

    def _call(self, node: fx.Node, operations: Mapping[str, "Operation"]) -> None:
        name = str(getattr(node.target, "_schema", node.target)).partition("(")[0].rpartition("::")[2].partition(".")[0]
        if node.target is operator.getitem:
            name = "getitem"
        if node.all_input_nodes and self.constants.keys() >= set(node.all_input_nodes):  # of weights alone: a weight, too
            self.constants[node] = node.target(*fx.map_arg(node.args, self.constants.__getitem__), **node.kwargs)  # type: ignore[operator]
            return
        plain = name.removesuffix("_")
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if plain in _ACTIVATIONS:
            self.add(node, "Activation", {"activation": _ACTIVATIONS[plain]})
        elif plain in _SAME and source is not None:
            self.same_as(node, source)
        elif plain in operations:
            operations[plain](self, node)
        else:
            raise self.refused(f"the operation '{plain}'")

    def refused(self, what: str) -> UsageError:
        """Return the error for what cannot be written."""
        return UsageError(f"--format keras: no layer of Keras stands for {what} of this network; take onnx or torch")

    def same_as(self, node: fx.Node, other: Any) -> None:
        """Let a tensor be the output of the layer that gives another one."""
        self.names[node] = self.names[other]
        if other in self.last:
            self.last.add(node)

    def add(
        self, node: fx.Node, kind: str, settings: dict[str, Any], weights: Sequence[Array] = (), given: Sequence[str] = ()
    ) -> None:
        """Add a layer for an operation, on the operation's first tensor unless it is said on what."""
        if self.cells.intersection(node.all_input_nodes):
            raise self.refused("an operation on maps without rows")
        sources = list(given) or [self.names[node.args[0]]]  # type: ignore[index]
        self.names[node] = self.description.add(kind, node.name, sources, settings, weights)
        if node.args and node.args[0] in self.last:
            self.last.add(node)

    def array(self, node: Any) -> Array:
        """Return the numbers of a weight."""
        values: Array = self.constants[node].detach().cpu().numpy().astype(np.float32)
        return values

    def padded(self, node: fx.Node, padding: Sequence[int]) -> str:
        """Return the input of a node with margins of zeros: rows and columns, alike on both sides."""
        source = self.names[node.args[0]]  # type: ignore[index]
        if not any(padding):
            return source
        sides = {"padding": [[padding[0]] * 2, [padding[1]] * 2]}
        return self.description.add("ZeroPadding2D", f"{node.name}_pad", [source], sides)


Operation = Callable[[Emitter, fx.Node], None]
