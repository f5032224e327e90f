"""Small networks to train from scratch. Each follows timm's contract for backbones.

That contract, as far as it is used here: `forward(x)` gives n × `num_features` pooled features, `group_matcher(coarse)`
names the layer groups from input to output, `pretrained_cfg` tells the input that the network expects, and
`feature_info[-1]["reduction"]` is the stride of the last feature map.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise, starmap
from typing import Any, Literal, final

import torch
from torch import nn

from thawlab.late_imports import need_shapes
from thawlab.models.whitening import PatchWhitening
from thawlab.registry import Registry

# A factory is given the side of the square input in pixels.
backbones: Registry[Callable[[int], nn.Module]] = Registry("backbone")

# Raised with every change of what a name builds, so that runs of the network as it was are not taken for runs of the present
# one. A network that never changed is not listed.
REVISIONS = {"speednet": 3}
_SIDE = 32  # of the images that the networks are made for


def other_revision(name: str, held: int | None) -> str | None:
    """Return which revision of a network is held and which one is built; None where they are the same.

    Args:
        name: of one of our own networks, or any other, which has one revision.
        held: as it was recorded; None for the first one.
    """
    held, built = held or 1, REVISIONS.get(name, 1)
    return None if held == built else f"holds revision {held} of '{name}', and this version of thawlab builds revision {built}"


def _config(size: int) -> dict[str, Any]:
    return {
        "input_size": (3, size, size),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
    }


def config_of(name: str) -> dict[str, Any]:
    """Return the input that a network expects: one for all of our own; a plug-in's is built, without memory, and asked."""
    factory = backbones.get(name)
    if factory.__module__ == __name__:
        return _config(_SIDE)
    need_shapes()
    with torch.device("meta"):
        config: dict[str, Any] = factory(_SIDE).pretrained_cfg  # type: ignore[assignment]
    return config


@final
class SequentialBackbone(nn.Module):
    """A backbone that is a chain of stages.

    Args:
        stages: from input to output; the last one must give n × `num_features`.
        num_features: of the output.
        reduction: stride of the last feature map.
        size: the input size the network is made for.
    """

    def __init__(self, stages: Sequence[nn.Module], num_features: int, reduction: int, size: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(*stages)
        self.num_features = num_features
        self.pretrained_cfg = _config(size)
        self.feature_info = [{"num_chs": num_features, "reduction": reduction}]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return n × `num_features` features of n × 3 × height × width inputs."""
        features: torch.Tensor = self.stages(x)
        return features

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:  # noqa: ARG002 - timm's contract
        """Return the pattern that gives each parameter its stage."""
        return {"stages": r"^stages\.(\d+)"}


def _initialize(module: nn.Module) -> nn.Module:
    """Draw convolutions and linear layers as He et al. (2015) do for networks with ReLU."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan: Literal["fan_out", "fan_in"] = "fan_out" if isinstance(layer, nn.Conv2d) else "fan_in"
            nn.init.kaiming_normal_(layer.weight, mode=fan, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def _conv(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """Return a 3×3 convolution with BatchNorm."""
    return [nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs)]


def _pooled() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


@backbones.register("cnn5")
def cnn5(size: int) -> nn.Module:
    """Two unpadded 3×3 convolutions (32, 64), each with a pool, then dense 128: 315,722 parameters with ten classes at 32 px."""
    side = ((size - 2) // 2 - 2) // 2
    stages = [
        nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(32, 64, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(64 * side * side, 128), nn.ReLU(inplace=True)),
    ]
    return _initialize(SequentialBackbone(stages, 128, 4, size))


@backbones.register("vgg10")
def vgg10(size: int) -> nn.Module:
    """Three blocks of two 3×3 convolutions and a pool (32, 64, 128), then dense 64: 0.42 M parameters at 32 px."""
    stages = [
        nn.Sequential(*_conv(inputs, width), nn.ReLU(inplace=True), *_conv(width, width), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        for inputs, width in pairwise((3, 32, 64, 128))
    ]
    stages.append(nn.Sequential(nn.Flatten(), nn.Linear(128 * (size // 8) ** 2, 64), nn.ReLU(inplace=True)))
    return _initialize(SequentialBackbone(stages, 64, 8, size))


@final
class _Residual(nn.Module):
    """Two 3×3 convolutions beside a shortcut without parameters (option A of He et al. 2015); twice the width halves the side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.extra = outputs // inputs, outputs - inputs
        self.body = nn.Sequential(*_conv(inputs, outputs, self.stride), nn.ReLU(inplace=True), *_conv(outputs, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.extra:
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return nn.functional.relu(self.body(x) + shortcut)


def _cifar_resnet(depth: int, size: int) -> nn.Module:
    widths = [16] + [width for width in (16, 32, 64) for _ in range((depth - 2) // 6)]
    stem = nn.Sequential(*_conv(3, 16), nn.ReLU(inplace=True))
    return _initialize(SequentialBackbone([stem, *starmap(_Residual, pairwise(widths)), _pooled()], 64, 4, size))


@backbones.register("resnet20")
def resnet20(size: int) -> nn.Module:
    """ResNet-20 for CIFAR (He et al. 2015, section 4.2): 0.27 M parameters."""
    return _cifar_resnet(20, size)


@backbones.register("resnet56")
def resnet56(size: int) -> nn.Module:
    """ResNet-56 for CIFAR (He et al. 2015, section 4.2): 0.85 M parameters."""
    return _cifar_resnet(56, size)


@final
class _WideBlock(nn.Module):
    """BatchNorm, ReLU and a 3×3 convolution, twice; the shortcut is a 1×1 convolution where width or stride change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.body = nn.Sequential(*_conv(inputs, outputs, stride), nn.ReLU(inplace=True), *_conv(outputs, outputs)[:1])
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.before(x)
        result: torch.Tensor = self.body(activated) + (x if self.shortcut is None else self.shortcut(activated))
        return result


@backbones.register("wrn16-4")
def wrn16_4(size: int) -> nn.Module:
    """WRN-16-4 (Zagoruyko and Komodakis 2016): pre-activation residual blocks, four times as wide, 2.75 M parameters."""
    stages: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    for inputs, width, stride in ((16, 64, 1), (64, 128, 2), (128, 256, 2)):
        stages += [_WideBlock(inputs, width, stride), _WideBlock(width, width, 1)]
    stages.append(nn.Sequential(nn.BatchNorm2d(256), nn.ReLU(inplace=True), _pooled()))
    return _initialize(SequentialBackbone(stages, 256, 4, size))


def _speed_block(inputs: int, outputs: int) -> nn.Module:
    first, second = (nn.Conv2d(width, outputs, 3, padding=1, bias=False) for width in (inputs, outputs))
    # The first filters pass each input channel on unchanged; the others stay as PyTorch draws convolutions by default, with a
    # variance of 1 / (3 · fan-in).
    for convolution in (first, second):
        nn.init.dirac_(convolution.weight[: convolution.in_channels])
    pooled = (nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.GELU())
    return nn.Sequential(first, *pooled, second, nn.BatchNorm2d(outputs), nn.GELU())


@final
class _GlobalMaximum(nn.Module):
    """The largest value of each channel; unlike torch's adaptive pool it has a deterministic gradient on every device."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).max(dim=2).values


@backbones.register("speednet")
def speednet(size: int) -> nn.Module:
    """A whitening layer and six 3×3 convolutions, made for short training times: 1.97 M parameters.

    After the facts published for Page's ResNet-9 and Jordan's airbench94: whitening first layer, identity-initialised
    convolutions, pooling right after the first convolution of a block, a maximum at the end.
    """
    whitening = PatchWhitening(2)
    blocks = starmap(_speed_block, pairwise((whitening.outputs, 64, 256, 256)))
    stages = [nn.Sequential(whitening, nn.GELU()), *blocks, _GlobalMaximum()]
    # The unpadded first layer and the pools round down: 32 px end in 3 × 3 cells.
    side = max(((size - 1) // 2 // 2) // 2, 1)
    return SequentialBackbone(stages, 256, -(-size // side), size)
