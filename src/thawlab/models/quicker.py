"""The same network, computed quicker on a CPU: no copies for padding, no passes for fixed BatchNorm, no slow or wrong gradients.

TensorFlow's "same" padding, which EfficientNets and some MobileNets were trained with, puts the odd row and column at the end of
an image. PyTorch pads both ends alike, so timm copies every map that a strided convolution takes, and the gradient of the copy
slows down what lies before it. Seen in a mirror, in both directions, the odd row comes first, and padding both ends by half a
kernel computes exactly that. So the image is mirrored once, at the input, and every kernel with it.

BatchNorm that keeps its statistics is a scale and a shift per channel. The convolution before it can carry both, computed anew
from the weights in every step, so that gradients reach all of them (Jacob et al. 2018, section 3.2, train like that).
"""

import copy
import itertools
from collections.abc import Sequence
from typing import Any, cast, final

import torch
import torch.nn.functional as F
from torch import nn

from thawlab.models.depthwise import depthwise, is_slow, with_its_border
from thawlab.models.hooks import eval_mode


def quicker(network: nn.Module, shapes: Sequence[Sequence[int]], fixed: Sequence[tuple[str, str]] = ()) -> nn.Module:
    """Return a module that computes the same and trains the same weights in less time; the network itself where there is none.

    Modes are its own: put both into the same one.

    Args:
        network: gives one tensor.
        shapes: of the inputs that it will take, without the batch; with each the two are compared, on noise.
        fixed: names of convolutions, and of the BatchNorm layer after each, that will keep its statistics.
    """
    if next(network.parameters()).device.type != "cpu":
        return network
    result = swapped(sharing(network), fixed=fixed)
    if result is None:
        return network
    for name, part in list(result.named_modules(remove_duplicate=False)):
        if isinstance(part, nn.Hardtanh) and part.inplace:  # also ReLU6
            result.set_submodule(name, QuickHardtanh(part))
    return result if all(agree(network, result, shape) for shape in shapes) else network


def sharing(network: nn.Module) -> nn.Module:
    """Return a copy of a module that holds the same tensors: what trains or loads one, trains or loads both."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def swapped(network: nn.Module, mirror_back: tuple[int, int] = (2, 3), fixed: Sequence[tuple[str, str]] = ()) -> nn.Module | None:
    """Swap the layers of a network, in place, for their quicker twins; None where it has none.

    Args:
        network: of which the outputs that are maps will be mirrored back.
        mirror_back: the dimensions of such an output that are height and width.
        fixed: names of convolutions and of the BatchNorm after each that they will carry.
    """
    from timm.layers import Conv2dSame

    norms = {before: network.get_submodule(after) for before, after in fixed}
    layers = {name: cast("nn.Conv2d", layer) for name, layer in network.named_modules() if type(layer) in {nn.Conv2d, Conv2dSame}}
    mirrors = any(type(layer) is Conv2dSame for layer in layers.values())
    wanted = {
        name: layer
        for name, layer in layers.items()
        if name in norms or (max(layer.kernel_size) > 1 and (mirrors or _is_depthwise(layer) or max(layer.stride) > 1))
    }
    for name, layer in wanted.items():
        network.set_submodule(name, QuickConv2d(layer, mirrors, norms.get(name)))
    for _, after in fixed:
        network.set_submodule(after, rest_of(network.get_submodule(after)))
    if not wanted:
        return None
    return Mirrored(network, mirror_back) if mirrors else network


def rest_of(norm: nn.Module) -> nn.Module:
    """Return what a BatchNorm layer does besides normalising: timm's carry their activation."""
    return nn.Sequential(norm.drop, norm.act) if hasattr(norm, "act") else nn.Identity()  # type: ignore[arg-type]


def _is_depthwise(layer: nn.Conv2d) -> bool:
    return layer.groups == layer.in_channels == layer.out_channels > 1


@torch.no_grad()
def agree(network: nn.Module, other: nn.Module, shape: Sequence[int]) -> bool:
    """Return whether two networks give the same in eval mode, on the same noise, but for rounding."""
    parameter = next(network.parameters())
    noise = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(parameter.device, parameter.dtype)
    with eval_mode(network), eval_mode(other):
        expected, given = (out if isinstance(out, tuple) else (out,) for out in (network(noise), other(noise)))
    return len(expected) == len(given) and all(
        one.shape == two.shape and bool(((one - two).abs() <= 1e-4 * float(one.abs().max())).all())
        for one, two in zip(expected, given, strict=True)
    )


@final
class Mirrored(nn.Module):
    """A network of mirrored convolutions, which takes and gives what the plain one does.

    Args:
        inner: the mirrored network.
        back: the dimensions in which its outputs of four dimensions are mirrored back.
    """

    def __init__(self, inner: nn.Module, back: tuple[int, int] = (2, 3)) -> None:
        super().__init__()
        self.inner, self.back = inner, back

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Mirror images, apply the network, and mirror back what is a map."""
        values = self.inner(x.flip(2, 3).contiguous(memory_format=torch.channels_last))
        return tuple(map(self._restored, values)) if isinstance(values, tuple) else self._restored(values)

    def _restored(self, values: torch.Tensor) -> torch.Tensor:
        return values.flip(self.back) if values.ndim == 4 else values


@final
class QuickConv2d(nn.Conv2d):
    """A convolution with the tensors of another one.

    Args:
        layer: whose weights it has.
        mirrored: whether it sees mirrored maps, in which "same" padding is the same at both ends.
        norm: BatchNorm with fixed statistics that it carries; None for none.
    """

    def __init__(self, layer: nn.Conv2d, mirrored: bool, norm: nn.Module | None = None) -> None:
        nn.Module.__init__(self)
        for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"):
            setattr(self, name, getattr(layer, name))
        self.transposed, self.output_padding, self._reversed_padding_repeated_twice = False, (0, 0), []
        self.weight, self.bias, self.training = layer.weight, layer.bias, layer.training
        self.mirrored = mirrored
        self.depthwise = _is_depthwise(layer) and not isinstance(layer.padding, str)  # whose gradients are asked for by numbers
        self.norm = norm
        if type(layer) is not nn.Conv2d:
            self.padding = (layer.kernel_size[0] // 2, layer.kernel_size[1] // 2)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the convolution of n × channels × height × width, normalised where it carries BatchNorm."""
        weight, bias = (self.weight, self.bias) if self.norm is None else _carrying(self.weight, self.bias, self.norm)
        if self.mirrored and max(self.kernel_size) > 1:
            weight = weight.flip(2, 3)
        padding = self.padding
        if not isinstance(padding, str) and (bordered := with_its_border(input, weight, self.stride, padding)) is not None:
            input, padding = bordered, (0, 0)
        if self.depthwise and is_slow(input, weight, self.stride, self.dilation):
            return depthwise(input, weight, bias, self.stride, cast("tuple[int, ...]", padding))
        return F.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


@final
class QuickHardtanh(nn.Module):
    """Hardtanh, or ReLU6, in place: of its gradient the output says as much as the input, of which autograd makes a copy.

    Args:
        layer: whose bounds it has; in place, too.
    """

    def __init__(self, layer: nn.Hardtanh) -> None:
        super().__init__()
        self.bounds, self.training = (layer.min_val, layer.max_val), layer.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Bound the values of a tensor of any shape, and return it."""
        return cast("torch.Tensor", _Bounded.apply(x, *self.bounds))


def _bound(x: torch.Tensor, low: float, high: float) -> None:
    """Bound values in place; in bfloat16 by their bits, which order as values do from 0 up, and several times as quick.

    NaN would become a bound, and training that diverges would not be found out. Where the first image or the first pixel of any
    has one, values are compared: BatchNorm spreads NaN over whole channels, an overflow over most of a map.
    """
    if x.dtype == torch.bfloat16 and x.ndim == 4 and x.numel() > 0 and low == 0.0:
        top = torch.tensor(high).to(torch.bfloat16)
        if 0.0 <= high == top.item() and not any(bool(part.isnan().any()) for part in (x[0], x[:, :, 0, 0])):
            x.view(torch.int16).clamp_(0, int(top.view(torch.int16)))
            return
    F.hardtanh_(x, low, high)


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, low: float, high: float) -> torch.Tensor:
        _bound(x, low, high)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        ctx.bounds = (low, high)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return torch.ops.aten.hardtanh_backward(gradients[0], *ctx.saved_tensors, *ctx.bounds), None, None


def _carrying(weight: torch.Tensor, bias: torch.Tensor | None, norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights and the bias of a convolution with BatchNorm's scale and shift."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean if bias is None else bias - norm.running_mean
    shift = shift * scale if norm.bias is None else shift * scale + norm.bias
    return weight * scale[:, None, None, None], shift
