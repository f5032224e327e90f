"""The calls of layers in a functional model, as Keras 2 and Keras 3 write them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Tensor(NamedTuple):
    """The output of a layer's call, by the layer's name and the call's number."""

    layer: str
    number: int


class Call(NamedTuple):
    """A call of a layer.

    Attributes:
        layer: as the file describes it.
        gives: its output.
        taken: what it takes: `Tensor`s, and constants (numbers, lists of numbers, slices) among them.
    """

    layer: Mapping[str, Any]
    gives: Tensor
    taken: tuple[Any, ...]


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors that a list such as a model's outputs names: one, or several."""
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], int):
        return [Tensor(value[0], value[1])]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [tensor for part in value for tensor in tensors_of(part)]


def is_tensor_op(layer: Mapping[str, Any]) -> bool:
    """Return whether an entry among the layers is an operation on tensors that a program wrote as an expression.

    Operations have classes such as "Add", as layers do; what they lack is all that only layers have.
    """
    if layer["class_name"] in ("TFOpLambda", "SlicingOpLambda") or str(layer.get("module", "")).startswith("keras.src.ops"):
        return True
    config = layer["config"]
    return isinstance(config, Mapping) and not {"trainable", "dtype", "layers", "batch_input_shape"} & config.keys()


def calls_of(layers: Sequence[Mapping[str, Any]], old: bool) -> dict[Tensor, Call]:
    """Return all calls of a model's layers, by what they give."""
    result = {}
    for layer in layers:
        name = str(layer.get("name") or layer["config"]["name"])
        # Keras 2 counts the building of a model within a model as its first call.
        first = int(old and isinstance(layer["config"], Mapping) and "layers" in layer["config"])
        for number, node in enumerate(layer.get("inbound_nodes", ()), start=first):
            gives = Tensor(name, number)
            taken = tuple(_newer(node)) if isinstance(node, Mapping) else tuple(_older(node, is_tensor_op(layer) and old))
            result[gives] = Call(layer, gives, taken)
    return result


def in_order(calls: Mapping[Tensor, Call], start: Tensor, end: Tensor) -> list[Call]:
    """Return the calls that lead from one tensor to another, each after those whose outputs it takes.

    Raises:
        ValueError: if there is no way between them.
    """
    result: list[Call] = []
    done, waiting = {start}, [end]
    opened: set[Tensor] = set()
    while waiting:
        tensor = waiting[-1]
        if tensor in done:
            waiting.pop()
            continue
        call = calls.get(tensor)
        if call is None:
            raise ValueError(f"nothing gives {tensor.layer}:{tensor.number}")
        missing = [part for part in call.taken if isinstance(part, Tensor) and part not in done]
        if missing and tensor in opened:
            raise ValueError(f"{tensor.layer} takes its own output")
        opened.add(tensor)
        if missing:
            waiting += missing
        else:
            result.append(call)
            done.add(tensor)
            waiting.pop()
    return result


def _newer(node: Mapping[str, Any]) -> Iterator[Any]:
    """Give what a call takes as Keras 3 writes it: arguments by place, then the tensors and constants among the named ones."""
    for value in node["args"]:
        yield from _flat(_value(value))
    for key, value in node.get("kwargs", {}).items():
        if key not in ("training", "mask"):
            yield from _flat(_value(value))


def _flat(value: Any) -> Iterator[Any]:
    """Give the tensors of a list one by one, and anything else as it is."""
    if isinstance(value, list) and value and all(isinstance(part, Tensor) for part in value):
        yield from value
    elif value is not None and not isinstance(value, str):
        yield value


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(part) for part in value]
    if not isinstance(value, Mapping):
        return value
    kind, config = value.get("class_name"), value.get("config", {})
    if kind == "__keras_tensor__":
        name, number, _ = config["keras_history"]
        return Tensor(name, number)
    if kind in ("__tensor__", "__numpy__"):
        return config["value"]
    if kind == "__ellipsis__":
        return ...
    if kind == "__tuple__":
        return [_value(part) for part in value.get("items", config.get("items", ()))]
    if kind == "__slice__":
        return slice(*(config.get(key) for key in ("start", "stop", "step")))
    if set(value) == {"start", "stop", "step"}:
        return slice(value["start"], value["stop"], value["step"])
    return {key: _value(part) for key, part in value.items()}


def _older(node: Sequence[Any], operation: bool) -> Iterator[Any]:
    """Give what a call takes as Keras 2 writes it: a list of [layer, call, tensor, named arguments], or one of these alone."""
    parts = [node] if node and isinstance(node[0], str) else node
    for part in parts:
        if part[0] == "_CONSTANT_VALUE":
            yield _value(part[2])
        else:
            yield Tensor(part[0], part[1])
        if operation and len(part) > 3:
            yield from _named(part[3])


def _named(arguments: Mapping[str, Any]) -> Iterator[Any]:
    """Give the named arguments of an operation; [layer, call, tensor] among them is a tensor."""
    for key, value in arguments.items():
        if key in ("name", "axis") or value is None or isinstance(value, str):
            continue
        if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
            yield Tensor(value[0], value[1])
        else:
            yield _value(value)
