"""Operations of PyTorch as layers of Keras, in which images have their channels last."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from thawlab.errors import UsageError
from thawlab.models.keras.parts import same_padding
from thawlab.models.keras.writing import Description

Array = npt.NDArray[np.float32]
# What gives values that are not negative: a margin of zeros before a maximum then changes nothing.
_NOT_NEGATIVE = {"relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "sigmoid", "max_pool2d"}
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
        self._description, self._program = description, program
        self._names: dict[fx.Node, str] = {}
        self._last: set[fx.Node] = set()  # tensors that have their channels last in PyTorch, too
        self._cells: set[fx.Node] = set()  # maps whose height and width are one dimension in PyTorch
        self._below: dict[fx.Node, tuple[fx.Node, list[int]]] = {}  # maps with margins of −∞: of which, and how wide
        self._constants = self._held()

    def emit(self, first: str) -> str:
        """Add all operations on the output of a layer, and return the name of the layer that gives the logits.

        Raises:
            UsageError: for an operation that no layer of Keras stands for.
        """
        for node in self._program.graph.nodes:
            if node.op == "placeholder" and node not in self._constants:
                self._names[node] = first
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                [[result]] = node.args
                return self._names[result]
        raise AssertionError("a program has an output")

    def _held(self) -> dict[fx.Node, torch.Tensor]:
        signature, state = self._program.graph_signature, {**self._program.state_dict, **self._program.constants}
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
        return {node: state[names[node.name]] for node in self._program.graph.nodes if node.name in names}

    def _call(self, node: fx.Node) -> None:
        name = str(getattr(node.target, "_schema", node.target)).partition("(")[0].rpartition("::")[2].partition(".")[0]
        if node.target is operator.getitem:
            name = "getitem"
        if node.all_input_nodes and self._constants.keys() >= set(node.all_input_nodes):  # of weights alone: a weight, too
            self._constants[node] = node.target(*fx.map_arg(node.args, self._constants.__getitem__), **node.kwargs)  # type: ignore[operator]
            return
        plain = name.removesuffix("_")
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if plain in _ACTIVATIONS:
            self._add(node, "Activation", {"activation": _ACTIVATIONS[plain]})
        elif plain in _SAME and source is not None:
            self._as(node, source)
        elif plain in _LAYERS:
            _LAYERS[plain](self, node)
        else:
            raise self._refused(f"the operation '{plain}'")

    def _refused(self, what: str) -> UsageError:
        return UsageError(f"--format keras: no layer of Keras stands for {what} of this network; take onnx or torch")

    def _as(self, node: fx.Node, other: Any) -> None:
        self._names[node] = self._names[other]
        if other in self._last:
            self._last.add(node)

    def _add(
        self, node: fx.Node, kind: str, settings: dict[str, Any], weights: Sequence[Array] = (), given: Sequence[str] = ()
    ) -> None:
        if self._cells.intersection(node.all_input_nodes):
            raise self._refused("an operation on maps without rows")
        sources = list(given) or [self._names[node.args[0]]]  # type: ignore[index]
        self._names[node] = self._description.add(kind, node.name, sources, settings, weights)
        if node.args and node.args[0] in self._last:
            self._last.add(node)

    def _array(self, node: Any) -> Array:
        values: Array = self._constants[node].detach().cpu().numpy().astype(np.float32)
        return values

    def _padded(self, node: fx.Node, padding: Sequence[int]) -> str:
        """Return the input of a node with margins of zeros: rows and columns, alike on both sides."""
        source = self._names[node.args[0]]  # type: ignore[index]
        if not any(padding):
            return source
        sides = {"padding": [[padding[0]] * 2, [padding[1]] * 2]}
        return self._description.add("ZeroPadding2D", f"{node.name}_pad", [source], sides)

    def conv2d(self, node: fx.Node) -> None:
        """Conv2D or DepthwiseConv2D; margins are a layer of their own, or Keras' "same" where that is the same."""
        _, weight, bias, stride, padding, dilation, groups = _arguments(node, (None, 1, 0, 1, 1), 7)
        kernel, held = self._array(weight), [] if bias is None else [self._array(bias)]
        stride, dilation = _pair(stride), _pair(dilation)
        outputs, width, *window = kernel.shape
        reach = [(side - 1) * step for side, step in zip(window, dilation, strict=True)]
        same = padding == "same" or (max(stride) == 1 and [2 * side for side in _pair(padding)] == reach and max(reach) > 0)
        source = self._names[node.args[0]] if same else self._padded(node, _pair(0 if padding == "valid" else padding))  # type: ignore[index]
        settings = {
            "kernel_size": list(window),
            "strides": stride,
            "padding": "same" if same else "valid",
            "dilation_rate": dilation,
            "use_bias": bias is not None,
        }
        if groups > 1 and width == 1:
            arranged = kernel.reshape(groups, outputs // groups, *window).transpose(2, 3, 0, 1)
            self._add(node, "DepthwiseConv2D", settings | {"depth_multiplier": outputs // groups}, [arranged, *held], [source])
        else:
            settings |= {"filters": outputs, "groups": groups}
            self._add(node, "Conv2D", settings, [kernel.transpose(2, 3, 1, 0), *held], [source])

    def batch_norm(self, node: fx.Node) -> None:
        """BatchNormalization, with the numbers that it would have where it has none to learn."""
        _, weight, bias, mean, variance, _, momentum, epsilon = _arguments(node, (), 8)
        means = self._array(mean)
        learnt = [self._array(part) for part in (weight, bias) if part is not None]
        settings = {"epsilon": epsilon, "momentum": 1 - momentum, "scale": weight is not None, "center": bias is not None}
        self._add(node, "BatchNormalization", settings, [*learnt, means, self._array(variance)])

    def layer_norm(self, node: fx.Node) -> None:
        """LayerNormalization along the channels."""
        _, shape, weight, bias, epsilon, *_ = _arguments(node, (None, None, 1e-5, True), 6)
        rank = len(node.meta["val"].shape)
        if len(shape) != 1 or (rank > 2 and node.args[0] not in self._last):
            raise self._refused("a normalisation along other than channels")
        learnt = [self._array(part) for part in (weight, bias) if part is not None]
        settings = {"axis": -1, "epsilon": epsilon, "scale": weight is not None, "center": bias is not None}
        self._add(node, "LayerNormalization", settings, learnt)

    def upsample(self, node: fx.Node) -> None:
        """UpSampling2D to a multiple of the size, nearest."""
        source: Any = node.args[0]
        before, after = source.meta["val"].shape[2:], node.meta["val"].shape[2:]
        if any(new % old for old, new in zip(before, after, strict=True)):
            raise self._refused("a resizing to no multiple")
        factors = [int(new // old) for old, new in zip(before, after, strict=True)]
        self._add(node, "UpSampling2D", {"size": factors, "interpolation": "nearest"})

    def linear(self, node: fx.Node) -> None:
        """Dense."""
        _, weight, bias = _arguments(node, (None,), 3)
        kernel = self._array(weight)
        held = [] if bias is None else [self._array(bias)]
        if len(node.meta["val"].shape) > 2 and node.args[0] not in self._last:
            raise self._refused("a linear layer along the width")
        self._add(node, "Dense", {"units": len(kernel), "use_bias": bias is not None}, [kernel.T, *held])

    def hardtanh(self, node: fx.Node) -> None:
        """ReLU with a largest value."""
        _, low, high = _arguments(node, (-1.0, 1.0), 3)
        if low != 0:
            raise self._refused("a hardtanh from below zero")
        self._add(node, "ReLU", {"max_value": float(high)})

    def leaky_relu(self, node: fx.Node) -> None:
        """LeakyReLU."""
        _, slope = _arguments(node, (0.01,), 2)
        self._add(node, "LeakyReLU", {"negative_slope": float(slope)})

    def gelu(self, node: fx.Node) -> None:
        """GELU, exact."""
        if node.kwargs.get("approximate", "none") != "none":
            raise self._refused("an approximate GELU")
        self._add(node, "Activation", {"activation": "gelu"})

    def max_pool2d(self, node: fx.Node) -> None:
        """MaxPooling2D; margins of zeros change nothing where no value is negative."""
        _, size, stride, padding, dilation, ceil = _arguments(node, ([], 0, 1, False), 6)
        source: Any = node.args[0]
        if source in self._below:
            self._max_pool_same(node, *self._below[source], _pair(size), _pair(stride or size))
            return
        fits = any(getattr(source, "name", "").startswith(name) for name in _NOT_NEGATIVE)
        if ceil or _pair(dilation) != [1, 1] or (any(_pair(padding)) and not fits):
            raise self._refused("a pooling of this kind")
        settings = {"pool_size": _pair(size), "strides": _pair(stride or size), "padding": "valid"}
        self._add(node, "MaxPooling2D", settings, given=[self._padded(node, _pair(padding))])

    def _max_pool_same(self, node: fx.Node, source: fx.Node, sides: list[int], size: list[int], strides: list[int]) -> None:
        height, width = source.meta["val"].shape[2:]
        vertical, horizontal = same_padding(height, size[0], strides[0]), same_padding(width, size[1], strides[1])
        if sides != [*horizontal, *vertical]:
            raise self._refused("a pooling of this kind")
        self._add(node, "MaxPooling2D", {"pool_size": size, "strides": strides, "padding": "same"}, given=[self._names[source]])

    def avg_pool2d(self, node: fx.Node) -> None:
        """AveragePooling2D; margins count."""
        _, size, stride, padding, ceil, counted, divisor = _arguments(node, ([], 0, False, True, None), 7)
        if ceil or divisor or (any(_pair(padding)) and not counted):
            raise self._refused("a pooling of this kind")
        settings = {"pool_size": _pair(size), "strides": _pair(stride or size), "padding": "valid"}
        self._add(node, "AveragePooling2D", settings, given=[self._padded(node, _pair(padding))])

    def adaptive_avg_pool2d(self, node: fx.Node) -> None:
        """GlobalAveragePooling2D, or a pooling to several cells that divide the map evenly."""
        source: Any = node.args[0]
        before, after = source.meta["val"].shape[2:], _pair(node.args[1])
        if tuple(before) == tuple(after):
            self._as(node, source)
            return
        if after != [1, 1]:
            if any(side % cells for side, cells in zip(before, after, strict=True)):
                raise self._refused("a pooling to cells of unlike sizes")
            window = [side // cells for side, cells in zip(before, after, strict=True)]
            self._add(node, "AveragePooling2D", {"pool_size": window, "strides": window, "padding": "valid"})
            return
        self._add(node, "GlobalAveragePooling2D", {"keepdims": True})

    def mean(self, node: fx.Node) -> None:
        """GlobalAveragePooling2D, of a mean over height and width."""
        self._pool_all(node, "GlobalAveragePooling2D")

    def amax(self, node: fx.Node) -> None:
        """GlobalMaxPooling2D, of a maximum over height and width; where places are given beside it, they are left out."""
        self._pool_all(node, "GlobalMaxPooling2D")

    def getitem(self, node: fx.Node) -> None:
        """Return the first of several results; the others have no layer."""
        source, place = node.args
        if place == 0:
            self._as(node, source)
        elif node.users:
            raise self._refused("the second of several results")

    def _pool_all(self, node: fx.Node, kind: str) -> None:
        source, axes, keep = _arguments(node, (False,), 3)
        axes = [axes] if isinstance(axes, int) else axes
        rank = len(source.meta["val"].shape)
        wanted = [2] if source in self._cells else [2, 3]
        if sorted(axis % rank for axis in axes) != wanted or source in self._last:
            raise self._refused("a mean or maximum over other than height and width")
        self._names[node] = self._description.add(kind, node.name, [self._names[source]], {"keepdims": bool(keep)})
        if keep and source in self._cells:
            raise self._refused("a mean or maximum that keeps one dimension of two")

    def pad(self, node: fx.Node) -> None:
        """ZeroPadding2D."""
        sides: Any = node.args[1]
        rest = node.args[2:]
        mode = rest[0] if rest and isinstance(rest[0], str) else "constant"
        value = next((part for part in rest if isinstance(part, int | float)), 0)
        left, right, top, bottom, before, after = [*sides, 0, 0, 0, 0][:6]
        if value == float("-inf") and len(sides) == 4:
            self._below[node] = (node.args[0], list(sides))  # type: ignore[assignment]
            return
        if mode != "constant" or value or min(sides) < 0 or len(sides) > 6:
            raise self._refused("a padding of this kind")
        if before or after:  # channels of zeros, as a convolution of one cell
            source: Any = node.args[0]
            if left or right or top or bottom:
                raise self._refused("a padding of channels and margins at once")
            kernel = np.pad(np.eye(source.meta["val"].shape[1], dtype=np.float32), ((0, 0), (before, after)))[None, None]
            self._add(node, "Conv2D", {"filters": kernel.shape[-1], "kernel_size": [1, 1], "use_bias": False}, [kernel])
            return
        self._add(node, "ZeroPadding2D", {"padding": [[top, bottom], [left, right]]})

    def arithmetic(self, node: fx.Node, kind: str) -> None:
        """Add, Multiply and the like of two tensors; a constant per channel is a rescaling."""
        first, second = node.args[:2]
        constant = self._number(second) if self._number(second) is not None else self._number(first)
        if constant is None:
            self._add(node, kind, {}, given=[self._names[first], self._names[second]])  # type: ignore[index]
            return
        tensor = first if isinstance(first, fx.Node) and first in self._names else second
        turned = tensor is second
        if turned and kind in ("Subtract", "Divide"):
            raise self._refused("arithmetic of this kind")
        scale, offset = np.float64(1), np.float64(0)
        if kind in ("Add", "Subtract"):
            offset = constant if kind == "Add" else -constant
        else:
            scale = constant if kind == "Multiply" else 1 / constant
        numbers = {"scale": np.asarray(scale).tolist(), "offset": np.asarray(offset).tolist()}
        self._add(node, "Rescaling", numbers, given=[self._names[tensor]])  # type: ignore[index]

    def _number(self, value: Any) -> Any:
        """Return a number, or one for each channel; None for a tensor that is computed."""
        if isinstance(value, int | float):
            return np.float64(value)
        if value not in self._constants:
            return None
        numbers = self._constants[value].detach().cpu().double().numpy()
        if numbers.size not in (1, max(numbers.shape, default=1)):
            raise self._refused("arithmetic with numbers other than one for each channel")
        return numbers.ravel() if numbers.size > 1 else numbers.ravel()[0]

    def cat(self, node: fx.Node) -> None:
        """Concatenate."""
        tensors, axis = _arguments(node, (0,), 2)
        if len(tensors) == 1:
            self._as(node, tensors[0])
            return
        if axis not in (1, 1 - len(tensors[0].meta["val"].shape)) or any(part in self._last for part in tensors):
            raise self._refused("a concatenation of other than channels")
        self._add(node, "Concatenate", {"axis": -1}, given=[self._names[part] for part in tensors])

    def permute(self, node: fx.Node) -> None:
        """Nothing, where channels go to the end or come back from it: in Keras they are there anyway."""
        source = node.args[0]
        axes: Any = node.args[1]
        order = [axis % len(axes) for axis in axes]
        self._names[node] = self._names[source]  # type: ignore[index]
        if order == [0, 2, 3, 1] and source not in self._last:
            self._last.add(node)
        elif order != [0, 3, 1, 2] or source not in self._last:
            raise self._refused("a permutation of this kind")

    def reshape(self, node: fx.Node) -> None:
        """Flatten and Reshape; maps with channels first are brought to the order of PyTorch before."""
        source, shape = node.args[0], tuple(node.meta["val"].shape)
        before, given = source.meta["val"].shape, self._names[source]  # type: ignore[union-attr,index]
        if tuple(before) == shape:
            self._as(node, source)
            return
        if len(before) == 4 and source not in self._last and shape[:2] == tuple(before[:2]) and len(shape) == 3:
            self._names[node] = given
            self._cells.add(node)
            return
        if len(before) == 4 and source not in self._last and max(before[2:]) > 1:
            given = self._description.add("Permute", f"{node.name}_order", [given], {"dims": [3, 1, 2]})
        if len(shape) == 2:
            self._add(node, "Flatten", {}, given=[given])
        elif len(shape) == 4 and len(before) == 2 and shape[2:] == (1, 1):
            self._add(node, "Reshape", {"target_shape": [1, 1, shape[1]]}, given=[given])
        elif len(shape) == 4 and len(before) == 2 and shape[1:3] == (1, 1):
            self._add(node, "Reshape", {"target_shape": [1, 1, shape[3]]}, given=[given])
            self._last.add(node)
            return
        else:
            raise self._refused(f"a change of shape from {list(before)} to {list(shape)}")
        self._last.discard(node)

    def slice(self, node: fx.Node) -> None:
        """Every n-th row or column, as a pooling of one cell."""
        source: Any = node.args[0]
        _, axis, start, end, step = _arguments(node, (0, None, None, 1), 5)
        if axis not in (2, 3) or source in self._last or start not in (0, None) or (end is not None and end < 2**62):
            if tuple(source.meta["val"].shape) == tuple(node.meta["val"].shape):
                self._as(node, source)
                return
            raise self._refused("a choice of rows or columns of this kind")
        strides = [int(step) if axis == 2 else 1, int(step) if axis == 3 else 1]
        self._add(node, "MaxPooling2D", {"pool_size": [1, 1], "strides": strides, "padding": "valid"})

    def index_select(self, node: fx.Node) -> None:
        """A choice of channels, as a convolution of one cell."""
        source, axis, index = node.args
        if axis != 1:
            raise self._refused("a choice of other than channels")
        chosen, channels = self._constants[index].tolist(), source.meta["val"].shape[1]  # type: ignore[index,union-attr]
        kernel = np.eye(channels, dtype=np.float32)[:, chosen][None, None]
        self._add(node, "Conv2D", {"filters": len(chosen), "kernel_size": [1, 1], "use_bias": False}, [kernel])


_LAYERS: dict[str, Callable[[Emitter, fx.Node], None]] = {
    "conv2d": Emitter.conv2d,
    "batch_norm": Emitter.batch_norm,
    "layer_norm": Emitter.layer_norm,
    "upsample_nearest2d": Emitter.upsample,
    "linear": Emitter.linear,
    "hardtanh": Emitter.hardtanh,
    "leaky_relu": Emitter.leaky_relu,
    "gelu": Emitter.gelu,
    "max_pool2d": Emitter.max_pool2d,
    "avg_pool2d": Emitter.avg_pool2d,
    "adaptive_avg_pool2d": Emitter.adaptive_avg_pool2d,
    "mean": Emitter.mean,
    "amax": Emitter.amax,
    "max": Emitter.amax,
    "getitem": Emitter.getitem,
    "pad": Emitter.pad,
    "constant_pad_nd": Emitter.pad,
    "add": lambda emitter, node: emitter.arithmetic(node, "Add"),
    "sub": lambda emitter, node: emitter.arithmetic(node, "Subtract"),
    "mul": lambda emitter, node: emitter.arithmetic(node, "Multiply"),
    "div": lambda emitter, node: emitter.arithmetic(node, "Divide"),
    "cat": Emitter.cat,
    "permute": Emitter.permute,
    "flatten": Emitter.reshape,
    "view": Emitter.reshape,
    "reshape": Emitter.reshape,
    "squeeze": Emitter.reshape,
    "unsqueeze": Emitter.reshape,
    "slice": Emitter.slice,
    "index_select": Emitter.index_select,
}


def _arguments(node: fx.Node, defaults: Sequence[Any], count: int) -> list[Any]:
    """Return the arguments of an operation by place, with what is left out filled in."""
    given = [*node.args, *node.kwargs.values()]
    return [*given, *defaults[len(defaults) - (count - len(given)) :]] if len(given) < count else given[:count]


def _pair(value: Any) -> list[int]:
    return [int(value)] * 2 if isinstance(value, int) else [int(part) for part in value] * (2 // len(value))
