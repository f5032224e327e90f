"""What a layer of Keras is here, and what its settings share."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from thawlab.models.keras.file import Array
from thawlab.models.keras.parts import ACTIVATIONS


class Layer(NamedTuple):
    """A layer of Keras in our terms.

    Attributes:
        kind: a key of `LAYERS`.
        settings: of the layer.
        shapes: of its variables in Keras, by their names, in order.
        arrange: from these arrays to the tensors of our layer, by name.
        after: what follows it: an activation function's name; "" for none.
    """

    kind: str
    settings: dict[str, Any]
    shapes: Mapping[str, tuple[int, ...]] = {}
    arrange: Callable[[list[Array]], dict[str, Array]] = lambda _: {}
    after: str = ""


class UnsupportedError(Exception):
    """A setting of a layer that is not supported; the message names it."""


Config = Mapping[str, Any]
Make = Callable[[Config, torch.Tensor], Layer]  # of the layer's settings and its first input


def numbers(value: Any) -> Any:
    """Return a number, or nested lists of numbers, which files may also write as an array with its type."""
    return value["config"]["value"] if isinstance(value, Mapping) else value


def pair(value: Any) -> list[int]:
    """Return rows and columns of a setting that may be one number for both."""
    return [int(value)] * 2 if isinstance(value, int | float) else [int(part) for part in value]


def activation(config: Config) -> str:
    """Return our name of a layer's activation function; "" for none."""
    value = config.get("activation") or "linear"
    if isinstance(value, Mapping):
        inner = value.get("config", value)
        value = inner if isinstance(inner, str) else inner.get("name", value.get("class_name", ""))
    name = {"swish": "silu", "hard_swish": "hard_silu"}.get(str(value), str(value))
    if name not in ACTIVATIONS:
        raise UnsupportedError(f"the activation '{name}'")
    return "" if name == "linear" else name


def refuse_channels_first(config: Config) -> None:
    """Refuse tensors that have their channels first."""
    if config.get("data_format", "channels_last") not in (None, "channels_last"):
        raise UnsupportedError("data_format = 'channels_first'")


def refuse_rows(x: torch.Tensor) -> None:
    """Refuse what is given to a layer of maps and is none."""
    if x.ndim != 4:
        raise UnsupportedError(f"an input of {x.ndim} dimensions")


def is_channels(axis: Any, x: torch.Tensor) -> bool:
    """Return whether an axis in Keras' order is that of the channels."""
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    return axis in (-1, x.ndim - 1)
