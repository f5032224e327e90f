"""What each class of Keras' layers is here: its kind and settings, and how its weights are laid out."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
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
Make = Callable[[Config, torch.Tensor, bool], Layer]  # the layer's settings, its first input, whether Keras 2 wrote it


def _pair(value: Any) -> list[int]:
    return [int(value)] * 2 if isinstance(value, int | float) else [int(part) for part in value]


def _activation(config: Config, old: bool) -> str:
    """Return our name of a layer's activation function; "" for none."""
    value = config.get("activation") or "linear"
    if isinstance(value, Mapping):
        inner = value.get("config", value)
        value = inner if isinstance(inner, str) else inner.get("name", value.get("class_name", ""))
    name = {"swish": "silu", "hard_swish": "hard_silu"}.get(str(value), str(value))
    if name == "hard_sigmoid" and old:
        return "hard_sigmoid of Keras 2"
    if name not in ACTIVATIONS:
        raise UnsupportedError(f"the activation '{name}'")
    return "" if name == "linear" else name


def _channels_last(config: Config) -> None:
    if config.get("data_format", "channels_last") not in (None, "channels_last"):
        raise UnsupportedError("data_format = 'channels_first'")


def _maps(x: torch.Tensor) -> None:
    if x.ndim != 4:
        raise UnsupportedError(f"an input of {x.ndim} dimensions")


def _separable(config: Config, x: torch.Tensor, old: bool) -> Layer:
    _channels_last(config)
    _maps(x)
    inputs, outputs, multiplier = x.shape[1], int(config["filters"]), int(config.get("depth_multiplier", 1))
    kernel, bias = _pair(config["kernel_size"]), bool(config.get("use_bias", True))
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

    return Layer("separable", settings, shapes, arrange, _activation(config, old))


def _windowed(config: Config, kernel: list[int]) -> dict[str, Any]:
    padding = config.get("padding", "valid")
    if padding not in ("valid", "same"):
        raise UnsupportedError(f"padding = '{padding}'")
    strides, dilation = _pair(config.get("strides", 1)), _pair(config.get("dilation_rate", 1))
    if max(strides) > 1 and max(dilation) > 1:
        raise UnsupportedError("strides together with a dilation")
    return {"kernel": kernel, "strides": strides, "padding": padding, "dilation": dilation}


def _convolution(config: Config, x: torch.Tensor, old: bool) -> Layer:
    _channels_last(config)
    _maps(x)
    inputs, outputs, groups = x.shape[1], int(config["filters"]), int(config.get("groups", 1))
    kernel, bias = _pair(config["kernel_size"]), bool(config.get("use_bias", True))
    settings = _windowed(config, kernel) | {"inputs": inputs, "outputs": outputs, "groups": groups, "bias": bias}
    shapes = {"kernel": (*kernel, inputs // groups, outputs)} | ({"bias": (outputs,)} if bias else {})

    def arrange(arrays: list[Array]) -> dict[str, Array]:
        return dict(zip(("weight", "bias"), [arrays[0].transpose(3, 2, 0, 1), *arrays[1:]], strict=False))

    return Layer("convolution", settings, shapes, arrange, _activation(config, old))


def _depthwise(config: Config, x: torch.Tensor, old: bool) -> Layer:
    _channels_last(config)
    _maps(x)
    inputs, multiplier = x.shape[1], int(config.get("depth_multiplier", 1))
    kernel, bias = _pair(config["kernel_size"]), bool(config.get("use_bias", True))
    outputs = inputs * multiplier
    settings = _windowed(config, kernel) | {"inputs": inputs, "outputs": outputs, "groups": inputs, "bias": bias}
    shapes = {"kernel": (*kernel, inputs, multiplier)} | ({"bias": (outputs,)} if bias else {})

    def arrange(arrays: list[Array]) -> dict[str, Array]:
        weight = arrays[0].transpose(2, 3, 0, 1).reshape(outputs, 1, *kernel)
        return dict(zip(("weight", "bias"), [weight, *arrays[1:]], strict=False))

    return Layer("convolution", settings, shapes, arrange, _activation(config, old))


def _dense(config: Config, x: torch.Tensor, old: bool) -> Layer:
    inputs, outputs, bias = x.shape[1], int(config["units"]), bool(config.get("use_bias", True))
    shapes = {"kernel": (inputs, outputs)} | ({"bias": (outputs,)} if bias else {})
    settings = {"inputs": inputs, "outputs": outputs, "bias": bias, "maps": x.ndim == 4}

    def arrange(arrays: list[Array]) -> dict[str, Array]:
        return dict(zip(("linear.weight", "linear.bias"), [arrays[0].T, *arrays[1:]], strict=False))

    return Layer("dense", settings, shapes, arrange, _activation(config, old))


def _is_channels(axis: Any, x: torch.Tensor) -> bool:
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    return axis in (-1, x.ndim - 1)


def _norm(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001 - as the others
    if not _is_channels(config.get("axis", -1), x):
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


def _pool(maximum: bool) -> Make:
    def make(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
        _channels_last(config)
        _maps(x)
        size = _pair(config.get("pool_size", 2))
        padding = config.get("padding", "valid")
        if padding not in ("valid", "same"):
            raise UnsupportedError(f"padding = '{padding}'")
        return Layer(
            "pool", {"maximum": maximum, "size": size, "strides": _pair(config.get("strides") or size), "padding": padding}
        )

    return make


def _global_pool(maximum: bool) -> Make:
    def make(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
        _channels_last(config)
        _maps(x)
        return Layer("global pool", {"maximum": maximum, "keepdims": bool(config.get("keepdims", False))})

    return make


def _margins(key: str, sign: int) -> Make:
    def make(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
        _channels_last(config)
        _maps(x)
        given = config.get(key, 1)
        rows = [[given] * 2] * 2 if isinstance(given, int) else [_pair(part) for part in given]
        return Layer("zero pad", {"padding": [[sign * part for part in row] for row in rows]})

    return make


def _flatten(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
    _channels_last(config)
    return Layer("reshape", {"shape": [math.prod(x.shape[1:])], "maps": x.ndim == 4})


def _reshape(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
    shape, size = [int(part) for part in config["target_shape"]], math.prod(x.shape[1:])
    if -1 in shape:
        shape[shape.index(-1)] = size // -math.prod(shape)
    if len(shape) not in (1, 3) or math.prod(shape) != size:
        raise UnsupportedError(f"target_shape = {config['target_shape']}")
    return Layer("reshape", {"shape": shape, "maps": x.ndim == 4})


def _permute(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
    _maps(x)
    return Layer("permute", {"dims": [int(part) for part in config["dims"]]})


def _upsampled(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
    _channels_last(config)
    _maps(x)
    size = [side * factor for side, factor in zip(x.shape[2:], _pair(config.get("size", 2)), strict=True)]
    return Layer("resize", {"size": size, "mode": _mode(config)})


def _resizing(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
    _channels_last(config)
    _maps(x)
    for key in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"):
        if config.get(key):
            raise UnsupportedError(f"{key} = True")
    return Layer("resize", {"size": [int(config["height"]), int(config["width"])], "mode": _mode(config)})


def _mode(config: Config) -> str:
    mode = config.get("interpolation", "bilinear")
    if mode not in ("nearest", "bilinear"):
        raise UnsupportedError(f"interpolation = '{mode}'")
    return str(mode)


def _layer_norm(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
    if not _is_channels(config.get("axis", -1), x) or config.get("rms_scaling"):
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


def _prelu(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
    theirs = [*x.shape[2:], x.shape[1]]
    for axis in config.get("shared_axes") or ():
        theirs[axis - 1] = 1
    ours = [theirs[-1], *theirs[:-1]]

    def arrange(arrays: list[Array]) -> dict[str, Array]:
        return {"alpha": np.moveaxis(arrays[0], -1, 0)}

    return Layer("prelu", {"shape": ours}, {"alpha": tuple(theirs)}, arrange)


def _relu(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
    largest = config.get("max_value")
    numbers = {"slope": float(config.get("negative_slope") or 0.0), "threshold": float(config.get("threshold") or 0.0)}
    return Layer("relu", numbers | {"largest": None if largest is None else float(largest)})


def _leaky_relu(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
    slope = config.get("negative_slope", config.get("alpha", 0.3))
    return Layer("relu", {"slope": _number(slope), "threshold": 0.0, "largest": None})


def _number(value: Any) -> float:
    """Return a number, which old files may write as a NumPy array."""
    return float(np.ravel(value["config"]["value"] if isinstance(value, Mapping) else value)[0])


def affine(scale: Any, offset: Any, x: torch.Tensor) -> Layer:
    """Return scale · x + offset, with one number for all channels, or one for each.

    Raises:
        UnsupportedError: for other numbers.
    """
    channels, maps = x.shape[1], x.ndim == 4

    def per_channel(value: Any) -> Array:
        numbers = np.asarray(value, dtype=np.float64).ravel()
        if numbers.size not in (1, channels):
            raise UnsupportedError(f"arithmetic with {numbers.size} numbers for {channels} channels")
        row = np.broadcast_to(numbers, (channels,)).astype(np.float32)
        return row.reshape(-1, 1, 1) if maps else row

    arrays = {"scale": per_channel(scale), "offset": per_channel(offset)}
    return Layer("affine", {"channels": channels, "maps": maps}, {}, lambda _: arrays)


def _normalization(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
    """(x − mean) / √variance, from numbers in the settings, or from those that the layer was adapted to."""
    if not _is_channels(config.get("axis", -1), x):
        raise UnsupportedError(f"axis = {config.get('axis')}")
    least = 1e-7  # Keras' own lower limit of the deviation
    if config.get("mean") is not None:
        deviation = np.maximum(np.sqrt(np.asarray(config["variance"], dtype=np.float64)), least)
        mean = np.asarray(config["mean"], dtype=np.float64)
        return affine(deviation, mean, x) if config.get("invert") else affine(1 / deviation, -mean / deviation, x)
    channels, shape = x.shape[1], (-1, 1, 1) if x.ndim == 4 else (-1,)

    def arrange(arrays: list[Array]) -> dict[str, Array]:
        deviation = np.maximum(np.sqrt(arrays[1].astype(np.float64)), least)
        pair = {"scale": 1 / deviation, "offset": -arrays[0] / deviation}
        return {name: values.astype(np.float32).reshape(shape) for name, values in pair.items()}

    return Layer("affine", {"channels": channels, "maps": x.ndim == 4}, {"mean": (channels,), "variance": (channels,)}, arrange)


def _merge(op: str) -> Make:
    return lambda config, x, old: Layer("arithmetic", {"op": op})  # noqa: ARG005


def _concatenate(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
    if not _is_channels(config.get("axis", -1), x):
        raise UnsupportedError(f"axis = {config.get('axis')}")
    return Layer("concatenate", {})


def _dropout(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
    """Dropout; where one draw serves a whole image it is stochastic depth."""
    noise = config.get("noise_shape")
    if noise is None:
        return Layer("dropout", {"p": float(config["rate"])})
    if any(side != 1 for side in noise[1:]):
        raise UnsupportedError(f"noise_shape = {noise}")
    return Layer("drop path", {"drop_prob": float(config["rate"])})


def _nothing(config: Config, x: torch.Tensor, old: bool) -> Layer:  # noqa: ARG001
    return Layer("activation", {"function": "linear"})


# Augmentation does nothing when a model predicts.
_AUGMENTATIONS = (
    "RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast RandomBrightness RandomErasing GaussianNoise "
    "GaussianDropout AlphaDropout ActivityRegularization RandomShear RandomSaturation RandomHue RandomGrayscale RandomSharpness "
    "RandomColorJitter RandomColorDegeneration RandomPosterization RandomInvert RandomGaussianBlur RandomPerspective "
    "RandomElasticTransform RandAugment AugMix MixUp CutMix"
)
MAKERS: dict[str, Make] = {
    "Conv2D": _convolution,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "Dense": _dense,
    "BatchNormalization": _norm,
    "MaxPooling2D": _pool(True),
    "AveragePooling2D": _pool(False),
    "GlobalMaxPooling2D": _global_pool(True),
    "GlobalAveragePooling2D": _global_pool(False),
    "ZeroPadding2D": _margins("padding", 1),
    "Cropping2D": _margins("cropping", -1),
    "Flatten": _flatten,
    "Permute": _permute,
    "UpSampling2D": _upsampled,
    "Resizing": _resizing,
    "LayerNormalization": _layer_norm,
    "PReLU": _prelu,
    "Identity": _nothing,
    "Reshape": _reshape,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "Activation": lambda config, x, old: Layer("activation", {"function": _activation(config, old) or "linear"}),  # noqa: ARG005
    "Softmax": lambda config, x, old: Layer("activation", {"function": "softmax"}),  # noqa: ARG005
    "Dropout": _dropout,
    "SpatialDropout2D": lambda config, x, old: Layer("spatial dropout", {"p": float(config["rate"])}),  # noqa: ARG005
    "Rescaling": lambda config, x, old: affine(config.get("scale", 1.0), config.get("offset", 0.0), x),  # noqa: ARG005
    "Normalization": _normalization,
    "Add": _merge("add"),
    "Subtract": _merge("subtract"),
    "Multiply": _merge("multiply"),
    "Average": _merge("average"),
    "Maximum": _merge("maximum"),
    "Minimum": _merge("minimum"),
    "Concatenate": _concatenate,
    **dict.fromkeys(_AUGMENTATIONS.split(), _nothing),
}
