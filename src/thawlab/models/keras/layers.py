"""What each class of Keras' layers is here: its kind and settings."""

import math
from typing import Any

import numpy as np
import torch

from thawlab.models.keras.layer import (
    Config,
    Layer,
    Make,
    UnsupportedError,
    activation,
    is_channels,
    numbers,
    pair,
    refuse_channels_first,
    refuse_rows,
)
from thawlab.models.keras.weighted import affine, convolution, dense, depthwise, layer_norm, norm, normalization, prelu, separable


def _pool(maximum: bool) -> Make:
    def make(config: Config, x: torch.Tensor) -> Layer:
        refuse_channels_first(config)
        refuse_rows(x)
        size = pair(config.get("pool_size", 2))
        padding = config.get("padding", "valid")
        if padding not in ("valid", "same"):
            raise UnsupportedError(f"padding = '{padding}'")
        return Layer(
            "pool", {"maximum": maximum, "size": size, "strides": pair(config.get("strides") or size), "padding": padding}
        )

    return make


def _global_pool(maximum: bool) -> Make:
    def make(config: Config, x: torch.Tensor) -> Layer:
        refuse_channels_first(config)
        refuse_rows(x)
        return Layer("global pool", {"maximum": maximum, "keepdims": bool(config.get("keepdims", False))})

    return make


def _margins(key: str, sign: int) -> Make:
    def make(config: Config, x: torch.Tensor) -> Layer:
        refuse_channels_first(config)
        refuse_rows(x)
        given = config.get(key, 1)
        rows = [[given] * 2] * 2 if isinstance(given, int) else [pair(part) for part in given]
        return Layer("zero pad", {"padding": [[sign * part for part in row] for row in rows]})

    return make


def _flatten(config: Config, x: torch.Tensor) -> Layer:
    refuse_channels_first(config)
    return Layer("reshape", {"shape": [math.prod(x.shape[1:])], "maps": x.ndim == 4})


def _reshape(config: Config, x: torch.Tensor) -> Layer:
    shape, size = [int(part) for part in config["target_shape"]], math.prod(x.shape[1:])
    if -1 in shape:
        shape[shape.index(-1)] = size // -math.prod(shape)
    if len(shape) not in (1, 3) or math.prod(shape) != size:
        raise UnsupportedError(f"target_shape = {config['target_shape']}")
    return Layer("reshape", {"shape": shape, "maps": x.ndim == 4})


def _permute(config: Config, x: torch.Tensor) -> Layer:
    refuse_rows(x)
    return Layer("permute", {"dims": [int(part) for part in config["dims"]]})


def _upsampled(config: Config, x: torch.Tensor) -> Layer:
    refuse_channels_first(config)
    refuse_rows(x)
    size = [side * factor for side, factor in zip(x.shape[2:], pair(config.get("size", 2)), strict=True)]
    return Layer("resize", {"size": size, "mode": _mode(config)})


def _resizing(config: Config, x: torch.Tensor) -> Layer:
    refuse_channels_first(config)
    refuse_rows(x)
    for key in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"):
        if config.get(key):
            raise UnsupportedError(f"{key} = True")
    return Layer("resize", {"size": [int(config["height"]), int(config["width"])], "mode": _mode(config)})


def _mode(config: Config) -> str:
    mode = config.get("interpolation", "bilinear")
    if mode not in ("nearest", "bilinear"):
        raise UnsupportedError(f"interpolation = '{mode}'")
    return str(mode)


def _relu(config: Config, x: torch.Tensor) -> Layer:  # noqa: ARG001
    largest = config.get("max_value")
    slope, threshold = (float(config.get(key) or 0.0) for key in ("negative_slope", "threshold"))
    return Layer("relu", {"slope": slope, "threshold": threshold, "largest": None if largest is None else float(largest)})


def _leaky_relu(config: Config, x: torch.Tensor) -> Layer:  # noqa: ARG001
    slope = config.get("negative_slope", config.get("alpha", 0.3))
    return Layer("relu", {"slope": _number(slope), "threshold": 0.0, "largest": None})


def _number(value: Any) -> float:
    """Return a number, which old files may write as a NumPy array."""
    return float(np.ravel(numbers(value))[0])


def _merge(op: str) -> Make:
    return lambda config, x: Layer("arithmetic", {"op": op})  # noqa: ARG005


def _concatenate(config: Config, x: torch.Tensor) -> Layer:
    if not is_channels(config.get("axis", -1), x):
        raise UnsupportedError(f"axis = {config.get('axis')}")
    return Layer("concatenate", {})


def _dropout(config: Config, x: torch.Tensor) -> Layer:  # noqa: ARG001
    """Dropout; where one draw serves a whole image it is stochastic depth."""
    noise = config.get("noise_shape")
    if noise is None:
        return Layer("dropout", {"p": float(config["rate"])})
    if any(side != 1 for side in noise[1:]):
        raise UnsupportedError(f"noise_shape = {noise}")
    return Layer("drop path", {"drop_prob": float(config["rate"])})


def _nothing(config: Config, x: torch.Tensor) -> Layer:  # noqa: ARG001
    return Layer("activation", {"function": "linear"})


# Augmentation does nothing when a model predicts.
_AUGMENTATIONS = (
    "RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast RandomBrightness RandomErasing GaussianNoise "
    "GaussianDropout AlphaDropout ActivityRegularization RandomShear RandomSaturation RandomHue RandomGrayscale RandomSharpness "
    "RandomColorJitter RandomColorDegeneration RandomPosterization RandomInvert RandomGaussianBlur RandomPerspective "
    "RandomElasticTransform RandAugment AugMix MixUp CutMix"
)
MAKERS: dict[str, Make] = {
    "Conv2D": convolution,
    "DepthwiseConv2D": depthwise,
    "SeparableConv2D": separable,
    "Dense": dense,
    "BatchNormalization": norm,
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
    "LayerNormalization": layer_norm,
    "PReLU": prelu,
    "Identity": _nothing,
    "Reshape": _reshape,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "Activation": lambda config, x: Layer("activation", {"function": activation(config) or "linear"}),  # noqa: ARG005
    "Softmax": lambda config, x: Layer("activation", {"function": "softmax"}),  # noqa: ARG005
    "Dropout": _dropout,
    "SpatialDropout2D": lambda config, x: Layer("spatial dropout", {"p": float(config["rate"])}),  # noqa: ARG005
    "Rescaling": lambda config, x: affine(config.get("scale", 1.0), config.get("offset", 0.0), x),
    "Normalization": normalization,
    "Add": _merge("add"),
    "Subtract": _merge("subtract"),
    "Multiply": _merge("multiply"),
    "Average": _merge("average"),
    "Maximum": _merge("maximum"),
    "Minimum": _merge("minimum"),
    "Concatenate": _concatenate,
    **dict.fromkeys(_AUGMENTATIONS.split(), _nothing),
}
