"""Layers of Keras that hold numbers: how these are laid out there and here."""

from typing import Any

import numpy as np
import torch

from thawlab.models.keras.file import Array
from thawlab.models.keras.layer import (
    Config,
    Layer,
    UnsupportedError,
    activation,
    is_channels,
    numbers,
    pair,
    refuse_channels_first,
    refuse_rows,
)


def convolution(config: Config, x: torch.Tensor) -> Layer:
    """Return a Conv2D: its kernel is height × width × inputs × outputs there, outputs × inputs × height × width here."""
    refuse_channels_first(config)
    refuse_rows(x)
    inputs, outputs, groups = x.shape[1], int(config["filters"]), int(config.get("groups", 1))
    kernel, bias = pair(config["kernel_size"]), bool(config.get("use_bias", True))
    settings = _windowed(config, kernel) | {"inputs": inputs, "outputs": outputs, "groups": groups, "bias": bias}
    shapes = {"kernel": (*kernel, inputs // groups, outputs)} | ({"bias": (outputs,)} if bias else {})

    def arrange(arrays: list[Array]) -> dict[str, Array]:
        return dict(zip(("weight", "bias"), [arrays[0].transpose(3, 2, 0, 1), *arrays[1:]], strict=False))

    return Layer("convolution", settings, shapes, arrange, activation(config))


def depthwise(config: Config, x: torch.Tensor) -> Layer:
    """Return a DepthwiseConv2D: its kernel is height × width × inputs × multiplier there."""
    refuse_channels_first(config)
    refuse_rows(x)
    inputs, multiplier = x.shape[1], int(config.get("depth_multiplier", 1))
    kernel, bias = pair(config["kernel_size"]), bool(config.get("use_bias", True))
    outputs = inputs * multiplier
    settings = _windowed(config, kernel) | {"inputs": inputs, "outputs": outputs, "groups": inputs, "bias": bias}
    shapes = {"kernel": (*kernel, inputs, multiplier)} | ({"bias": (outputs,)} if bias else {})

    def arrange(arrays: list[Array]) -> dict[str, Array]:
        weight = arrays[0].transpose(2, 3, 0, 1).reshape(outputs, 1, *kernel)
        return dict(zip(("weight", "bias"), [weight, *arrays[1:]], strict=False))

    return Layer("convolution", settings, shapes, arrange, activation(config))


def separable(config: Config, x: torch.Tensor) -> Layer:
    """Return a SeparableConv2D: a depthwise kernel and one of a single cell."""
    refuse_channels_first(config)
    refuse_rows(x)
    inputs, outputs, multiplier = x.shape[1], int(config["filters"]), int(config.get("depth_multiplier", 1))
    kernel, bias = pair(config["kernel_size"]), bool(config.get("use_bias", True))
    settings = _windowed(config, kernel) | {"inputs": inputs, "outputs": outputs, "multiplier": multiplier, "bias": bias}
    shapes = {
        "depthwise_kernel": (*kernel, inputs, multiplier),
        "pointwise_kernel": (1, 1, inputs * multiplier, outputs),
        **({"bias": (outputs,)} if bias else {}),
    }

    def arrange(arrays: list[Array]) -> dict[str, Array]:
        each = arrays[0].transpose(2, 3, 0, 1).reshape(-1, 1, *kernel)
        across = arrays[1].transpose(3, 2, 0, 1)
        return dict(zip(("0.weight", "1.weight", "1.bias"), [each, across, *arrays[2:]], strict=False))

    return Layer("separable", settings, shapes, arrange, activation(config))


def _windowed(config: Config, kernel: list[int]) -> dict[str, Any]:
    padding = config.get("padding", "valid")
    if padding not in ("valid", "same"):
        raise UnsupportedError(f"padding = '{padding}'")
    strides, dilation = pair(config.get("strides", 1)), pair(config.get("dilation_rate", 1))
    if max(strides) > 1 and max(dilation) > 1:
        raise UnsupportedError("strides together with a dilation")
    return {"kernel": kernel, "strides": strides, "padding": padding, "dilation": dilation}


def dense(config: Config, x: torch.Tensor) -> Layer:
    """Return a Dense: its kernel is inputs × outputs there."""
    inputs, outputs, bias = x.shape[1], int(config["units"]), bool(config.get("use_bias", True))
    shapes = {"kernel": (inputs, outputs)} | ({"bias": (outputs,)} if bias else {})
    settings = {"inputs": inputs, "outputs": outputs, "bias": bias, "maps": x.ndim == 4}

    def arrange(arrays: list[Array]) -> dict[str, Array]:
        return dict(zip(("linear.weight", "linear.bias"), [arrays[0].T, *arrays[1:]], strict=False))

    return Layer("dense", settings, shapes, arrange, activation(config))


def norm(config: Config, x: torch.Tensor) -> Layer:
    """Return a BatchNormalization, with ones and zeros where it learns no scale or shift."""
    if not is_channels(config.get("axis", -1), x):
        raise UnsupportedError(f"axis = {config.get('axis')}")
    channels = x.shape[1]
    named = {"gamma": config.get("scale", True), "beta": config.get("center", True), "moving_mean": True, "moving_variance": True}
    shapes = {name: (channels,) for name, is_there in named.items() if is_there}

    def arrange(arrays: list[Array]) -> dict[str, Array]:
        held = dict(zip(shapes, arrays, strict=True))
        return {
            "weight": held.get("gamma", np.ones(channels, np.float32)),
            "bias": held.get("beta", np.zeros(channels, np.float32)),
            "running_mean": held["moving_mean"],
            "running_var": held["moving_variance"],
            "num_batches_tracked": np.zeros((), np.int64),
        }

    settings = {"channels": channels, "epsilon": float(config.get("epsilon", 1e-3)), "maps": x.ndim == 4}
    return Layer("norm", settings | {"momentum": float(config.get("momentum", 0.99))}, shapes, arrange)


def layer_norm(config: Config, x: torch.Tensor) -> Layer:
    """Return a LayerNormalization along the channels."""
    if not is_channels(config.get("axis", -1), x) or config.get("rms_scaling"):
        raise UnsupportedError(f"axis = {config.get('axis')}, rms_scaling = {config.get('rms_scaling')}")
    channels = x.shape[1]
    named = {"gamma": config.get("scale", True), "beta": config.get("center", True)}
    shapes = {name: (channels,) for name, is_there in named.items() if is_there}

    def arrange(arrays: list[Array]) -> dict[str, Array]:
        held = dict(zip(shapes, arrays, strict=True))
        weight, bias = held.get("gamma", np.ones(channels, np.float32)), held.get("beta", np.zeros(channels, np.float32))
        return {"norm.weight": weight, "norm.bias": bias}

    settings = {"channels": channels, "epsilon": float(config.get("epsilon", 1e-3)), "maps": x.ndim == 4}
    return Layer("layer norm", settings, shapes, arrange)


def prelu(config: Config, x: torch.Tensor) -> Layer:
    """Return a PReLU: slopes of the shape of a map, with its channels last there."""
    theirs = [*x.shape[2:], x.shape[1]]
    for axis in config.get("shared_axes") or ():
        theirs[axis - 1] = 1
    ours = [theirs[-1], *theirs[:-1]]

    def arrange(arrays: list[Array]) -> dict[str, Array]:
        return {"alpha": np.moveaxis(arrays[0], -1, 0)}

    return Layer("prelu", {"shape": ours}, {"alpha": tuple(theirs)}, arrange)


def scale_and_offset(op: str, constant: Any) -> tuple[Any, Any]:
    """Return the scale and the offset that a tensor gets from an operation with one constant, or with one for each channel."""
    if op in ("add", "subtract"):
        return np.float64(1), constant if op == "add" else -constant
    return constant if op == "multiply" else 1 / constant, np.float64(0)


def affine(scale: Any, offset: Any, x: torch.Tensor) -> Layer:
    """Return scale · x + offset, with one number for all channels, or one for each.

    Raises:
        UnsupportedError: for other numbers.
    """
    channels, maps = x.shape[1], x.ndim == 4

    def per_channel(value: Any) -> Array:
        held = np.asarray(numbers(value), dtype=np.float64).ravel()
        if held.size not in (1, channels):
            raise UnsupportedError(f"arithmetic with {held.size} numbers for {channels} channels")
        row = np.broadcast_to(held, (channels,)).astype(np.float32)
        return row.reshape(-1, 1, 1) if maps else row

    arrays = {"scale": per_channel(scale), "offset": per_channel(offset)}
    return Layer("affine", {"channels": channels, "maps": maps}, {}, lambda _: arrays)


def normalization(config: Config, x: torch.Tensor) -> Layer:
    """(x − mean) / √variance, from numbers in the settings, or from those that the layer was adapted to."""
    if not is_channels(config.get("axis", -1), x):
        raise UnsupportedError(f"axis = {config.get('axis')}")
    least = 1e-7  # Keras' own lower limit of the deviation
    if config.get("mean") is not None:
        deviation = np.maximum(np.sqrt(np.asarray(numbers(config["variance"]), dtype=np.float64)), least)
        mean = np.asarray(numbers(config["mean"]), dtype=np.float64)
        return affine(deviation, mean, x) if config.get("invert") else affine(1 / deviation, -mean / deviation, x)
    channels, shape = x.shape[1], (-1, 1, 1) if x.ndim == 4 else (-1,)

    def arrange(arrays: list[Array]) -> dict[str, Array]:
        deviation = np.maximum(np.sqrt(arrays[1].astype(np.float64)), least)
        both = {"scale": 1 / deviation, "offset": -arrays[0] / deviation}
        return {name: values.astype(np.float32).reshape(shape) for name, values in both.items()}

    return Layer("affine", {"channels": channels, "maps": x.ndim == 4}, {"mean": (channels,), "variance": (channels,)}, arrange)
