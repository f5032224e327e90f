"""From what Keras wrote of a model to a graph of layers that are known here, with their weights."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np
import torch

from thawlab.errors import ThawlabError, UsageError
from thawlab.late_imports import need_shapes
from thawlab.models.keras.calls import Call, Tensor, calls_of, in_order, is_tensor_op, tensors_of
from thawlab.models.keras.file import Array, KerasFile
from thawlab.models.keras.graph import Node
from thawlab.models.keras.layer import Layer, UnsupportedError
from thawlab.models.keras.layers import MAKERS
from thawlab.models.keras.parts import LAYERS
from thawlab.models.keras.weighted import affine, scale_and_offset

# Operations on tensors that programs write as expressions (`x / 127.5 - 1`), by the names of Keras 3 and of Keras 2.
_ARITHMETIC = {
    "Add": "add",
    "Subtract": "subtract",
    "Multiply": "multiply",
    "TrueDivide": "divide",
    "Divide": "divide",
    "math.add": "add",
    "__operators__.add": "add",
    "nn.bias_add": "add",
    "math.subtract": "subtract",
    "math.multiply": "multiply",
    "math.truediv": "divide",
    "math.divide": "divide",
}
_LARGEST_SIDE = 4096  # of an input, as in a recipe
_SLICES = {"GetItem", "__operators__.getitem"}
_STACKS = {"Stack", "stack"}
_NOT_READ = "nothing of a file is executed, so that only layers that are known here are read"


class Translated(NamedTuple):
    """A model in our terms.

    Attributes:
        nodes: of its graph, the last one its output.
        arrays: the tensors of its layers, by layer and by name.
        shapes: of each node's output and, as "", of the input: n × channels (× height × width).
    """

    nodes: tuple[Node, ...]
    arrays: dict[str, dict[str, Array]]
    shapes: Mapping[str, Sequence[int]]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.shapes[""][2], self.shapes[""][3]


def translate(file: KerasFile, size: int | None = None) -> Translated:
    """Translate a model.

    Args:
        file: with a description of the model.
        size: of its input, where the file leaves it open.

    Raises:
        UsageError: for a layer or setting that is not supported; the message names it.
        ThawlabError: if weights are missing or do not fit, or the description is damaged.
    """
    assert file.config is not None, "a file of weights alone has no graph"
    translator = _Translator(file)
    try:
        translator.begin(_input_shape(file.config), size)
        translator.model(file.config, (), "")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
        raise ThawlabError(f"{file.path}: the description of the model is damaged ({type(error).__name__}: {error})") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in translator.shapes.items()}
    return Translated(tuple(translator.nodes), translator.arrays, shapes)


def _input_shape(model: Mapping[str, Any]) -> Sequence[int | None] | None:
    """Return the shape of a model's input without the batch: height, width and channels; None where it is not said."""
    config = model["config"]
    layers = config if isinstance(config, list) else config["layers"]
    for key in ("batch_shape", "batch_input_shape"):
        for settings in (layers[0]["config"], config if isinstance(config, Mapping) else {}):
            if settings.get(key):
                shape: Sequence[int | None] = settings[key][1:]
                return shape
    if "layers" in layers[0]["config"]:  # a sequential model that begins with a model
        return _input_shape(layers[0])
    built = model.get("build_config", {}).get("input_shape") or (config.get("build_input_shape") if "layers" in config else None)
    return built[1:] if built else None


@final
class _Translator:
    """What is known of a model while its graph is walked through, from the input on."""

    def __init__(self, file: KerasFile) -> None:
        self.file = file
        self.old = not file.version.startswith("3")
        self.nodes: list[Node] = []
        self.arrays: dict[str, dict[str, Array]] = {}
        self.shapes: dict[str, torch.Tensor] = {}

    def begin(self, shape: Sequence[int | None] | None, size: int | None) -> None:
        """Take the shape of the input."""
        height, width, channels = shape if shape is not None and len(shape) == 3 else (None, None, 3)
        if shape is not None and (len(shape) != 3 or channels not in (None, 3)):
            raise self._refused(f"its input has the shape {list(shape)}; models of RGB images, height × width × 3, are read")
        height, width = height or size, width or size
        if height is None or width is None:
            raise UsageError(f"{self.file.path}: leaves the size of its images open; add --size PIXELS")
        if height != width:
            raise self._refused(f"its input is {height} × {width}; models of square images are read")
        if height > _LARGEST_SIDE:
            raise self._refused(f"its input is {height:,} px wide; up to {_LARGEST_SIDE:,} are read")
        need_shapes()
        self.shapes[""] = torch.zeros(1, 3, height, width, device="meta")

    def model(self, model: Mapping[str, Any], above: tuple[str, ...], given: str) -> str:
        """Add the nodes of a model that is given the output of a node, and return the name of its own output."""
        kind, config = model["class_name"], model["config"]
        if kind == "Sequential":
            layers = config["layers"] if isinstance(config, Mapping) else config  # Keras 2.1 wrote the list alone
            for layer in layers:
                if layer["class_name"] != "InputLayer":
                    given = self._layer(layer, above, [given], 0)
            return given
        if kind not in ("Functional", "Model") or "input_layers" not in config:
            raise self._refused(
                f"'{config.get('name', kind)}' is a model of the class {kind}; sequential and functional ones are read"
            )
        inputs, outputs = tensors_of(config["input_layers"]), tensors_of(config["output_layers"])
        if len(inputs) != 1 or len(outputs) != 1:
            raise self._refused(
                f"'{config.get('name')}' has {len(inputs)} inputs and {len(outputs)} outputs; one of each is read"
            )
        values = {inputs[0]: given}
        needed = calls_of(config["layers"], self.old)
        for call in in_order(needed, inputs[0], outputs[0]):
            values[call.gives] = self._call(call, above, values)
        return values[outputs[0]]

    def _call(self, call: Call, above: tuple[str, ...], values: Mapping[Tensor, str]) -> str:
        """Add one call of a layer or an operation."""
        kind = str(call.layer["config"].get("function", call.layer["class_name"]))
        taken = [values[part] if isinstance(part, Tensor) else part for part in call.taken]
        if is_tensor_op(call.layer) or kind in _STACKS or kind in _SLICES:
            return self._operation(kind, call, above, taken)
        return self._layer(call.layer, above, [part for part in taken if isinstance(part, str)], call.gives.number)

    def _layer(self, layer: Mapping[str, Any], above: tuple[str, ...], given: list[str], number: int) -> str:
        kind, config = str(layer["class_name"]), layer["config"]
        name = str(config.get("name") or layer.get("name")) if isinstance(config, Mapping) else str(layer.get("name", "model"))
        path = (*above, name)
        if kind in ("Sequential", "Functional", "Model"):
            return self.model(layer, path, *given)
        registered = str(layer.get("registered_name") or "")
        if "Quantized" in str(config.get("dtype")):
            raise self._refused(f"the layer '{name}' ({kind}) is quantized; models in floating point are read")
        if kind not in MAKERS or ">" in registered:
            raise self._refused(f"the layer '{name}' is of the class {registered or kind}; {_NOT_READ}")
        try:
            made = MAKERS[kind](self._as_of_3(config), self.shapes[given[0]])
        except UnsupportedError as error:
            raise self._refused(f"the layer '{name}' ({kind}) has {error}, which is not read") from None
        place = "/".join(path)
        arrays = made.arrange(self.file.weights(path, made.shapes)) if made.shapes else made.arrange([])
        output = self._add(f"{place}:{number}", place, made, given, arrays)
        if not made.after:
            return output
        after = Layer("activation", {"function": made.after})
        return self._add(f"{place}:{number} {made.after}", f"{place} {made.after}", after, [output], {})

    def _as_of_3(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a layer's settings with the name of the one function that Keras 3 computes otherwise than Keras 2."""
        is_other = self.old and config.get("activation") == "hard_sigmoid"
        return {**config, "activation": "hard_sigmoid of Keras 2"} if is_other else config

    def _operation(self, kind: str, call: Call, above: tuple[str, ...], taken: list[Any]) -> str:
        """Add an operation on tensors and constants."""
        place = "/".join((*above, call.gives.layer))
        tensors = [part for part in taken if isinstance(part, str)]
        try:
            if kind in _ARITHMETIC and len(tensors) == 1 and len(taken) == 2:
                made = self._with_constant(_ARITHMETIC[kind], taken)
            elif kind in _ARITHMETIC and len(tensors) == 2:
                made = Layer("arithmetic", {"op": _ARITHMETIC[kind]})
            elif kind in _SLICES:
                made = Layer("channels", {"order": _chosen(call.taken[1], self.shapes[tensors[0]].shape[1])})
            elif kind in _STACKS:  # of maps of one channel each, which keep it here
                made = Layer("concatenate", {})
            else:
                raise UnsupportedError(f"the operation {kind}")
        except UnsupportedError as error:
            raise self._refused(f"'{call.gives.layer}' is {error}, which is not read; {_NOT_READ}") from None
        return self._add(f"{place}:{call.gives.number}", f"{place}:{call.gives.number}", made, tensors, made.arrange([]))

    def _with_constant(self, op: str, taken: list[Any]) -> Layer:
        """Return an operation with one constant as scale and offset."""
        first, second = taken
        turned = not isinstance(first, str)
        tensor, constant = (second, first) if turned else (first, second)
        numbers = np.asarray(constant, dtype=np.float64)
        if op == "divide" and turned:
            raise UnsupportedError("a division by a tensor")
        scale, offset = (-1.0, numbers) if op == "subtract" and turned else scale_and_offset(op, numbers)
        return affine(scale, offset, self.shapes[tensor])

    def _add(self, name: str, layer: str, made: Layer, given: list[str], arrays: dict[str, Array]) -> str:
        while name in self.shapes:  # a model within is called again
            name += " again"
        self.nodes.append(Node(name, layer, made.kind, tuple(given), made.settings))
        if arrays:
            self.arrays[layer] = arrays
        with torch.device("meta"):
            self.shapes[name] = LAYERS[made.kind](**made.settings).eval()(*(self.shapes[part] for part in given))
        return name

    def _refused(self, reason: str) -> UsageError:
        return UsageError(f"{self.file.path}: {reason}")


def _chosen(spec: Any, channels: int) -> list[int]:
    """Return which channels an index such as `[..., ::-1]` or `[..., 2]` takes.

    Raises:
        UnsupportedError: if it takes anything else.
    """
    *before, last = spec if isinstance(spec, list | tuple) else [spec]
    if any(part is not Ellipsis and part != slice(None) for part in before) or not before:
        raise UnsupportedError("an index into something other than the channels")
    chosen = list(range(channels))[last] if isinstance(last, int | slice) else None
    if chosen is None:
        raise UnsupportedError("an index into something other than the channels")
    return [chosen] if isinstance(chosen, int) else chosen
