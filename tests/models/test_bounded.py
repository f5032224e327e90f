"""Convolutions that bound their output: what a convolution and its activation give one after the other, to the bit."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from thawlab.inference.folding import foldable
from thawlab.models.bounded import Places, bounded_conv2d, bounds_of
from thawlab.models.quicker import QuickConv2d, QuickHardtanh, quicker

SHAPES = [  # channels in and out, kernel, stride, padding, dilation, groups
    (8, 16, 1, 1, 0, 1, 1),
    (8, 8, 3, 1, 1, 1, 8),
    (8, 8, 5, 2, 2, 1, 8),
    (3, 8, 3, 2, 1, 1, 1),
    (8, 16, 3, 1, 2, 2, 2),
]


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("activation", [nn.ReLU6(), nn.ReLU(), nn.Hardtanh(-0.5, 0.75)])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_two(shape: tuple[int, ...], activation: nn.Module, rounds: bool) -> None:
    torch.manual_seed(0)
    inner, outer, kernel, stride, padding, dilation, groups = shape
    layer = nn.Conv2d(inner, outer, kernel, stride, padding, dilation, groups).to(memory_format=torch.channels_last)
    plain = QuickConv2d(layer, mirrored=False)  # whose gradients are quick ones, too
    x = 3 * torch.randn(4, inner, 9, 9).contiguous(memory_format=torch.channels_last)
    bounds = bounds_of(activation)
    assert bounds is not None and layer.bias is not None
    results = []
    for together in (False, True):
        taken = x.clone(memory_format=torch.preserve_format).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=rounds):
            places = Places([stride] * 2, [padding] * 2, [dilation] * 2, groups)
            y = bounded_conv2d(taken, layer.weight, layer.bias, places, bounds) if together else activation(plain(taken))
        above = torch.linspace(-1, 1, y.numel()).view_as(y).contiguous(memory_format=torch.channels_last)
        results.append((y, *torch.autograd.grad((y.float() * above).sum(), [taken, layer.weight, layer.bias])))
    assert results[0][0].dtype == results[1][0].dtype == (torch.bfloat16 if rounds else torch.float32)
    assert {bounds[0], min(bounds[1], 99.0)} & set(results[0][0].detach().float().unique().tolist())  # some are held
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


def test_other_types_are_computed_one_after_the_other() -> None:
    layer = nn.Conv2d(3, 4, 3).double()
    assert layer.bias is not None
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    places = Places([1, 1], [0, 0], [1, 1], 1)
    assert torch.equal(bounded_conv2d(x, layer.weight, layer.bias, places, (0.0, 6.0)), F.relu6(layer(x)))
    assert torch.autograd.gradcheck(lambda x, w, b: bounded_conv2d(x, w, b, places, (0.0, 0.3)), (x, layer.weight, layer.bias))


def test_only_what_is_wanted_gets_a_gradient() -> None:
    layer = nn.Conv2d(8, 8, 3, 2, 1, groups=8)
    assert layer.bias is not None
    layer.weight.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        y = bounded_conv2d(torch.randn(2, 8, 6, 6), layer.weight, layer.bias, Places([2, 2], [1, 1], [1, 1], 8), (0.0, 6.0))
    y.float().sum().backward()  # type: ignore[no-untyped-call]
    assert layer.weight.grad is None and layer.bias.grad is not None


@pytest.mark.parametrize("where", ["input", "weight", "bias"])
@pytest.mark.parametrize("groups", [1, 8])
def test_what_is_no_number_stays_none(where: str, groups: int) -> None:
    layer = nn.Conv2d(8, 8, 3, 1, 1, groups=groups)
    x = torch.randn(2, 8, 6, 6)
    assert layer.bias is not None
    {"input": x, "weight": layer.weight.data, "bias": layer.bias.data}[where].fill_(float("nan"))
    with torch.autocast("cpu", torch.bfloat16):
        y = bounded_conv2d(x, layer.weight, layer.bias, Places([1, 1], [1, 1], [1, 1], groups), (0.0, 6.0))
    assert y.isnan().all()


def test_what_bounds() -> None:
    infinity = float("inf")
    assert bounds_of(nn.ReLU6()) == (0.0, 6.0) and bounds_of(nn.ReLU()) == (0.0, infinity) and bounds_of(nn.Hardtanh()) == (-1, 1)
    assert bounds_of(nn.SiLU()) is None and bounds_of(nn.LeakyReLU()) is None and bounds_of(nn.Identity()) is None


@pytest.mark.parametrize(("name", "some"), [("tf_efficientnet_lite0", 30), ("mobilenetv2_035", 30), ("tf_efficientnetv2_b0", 0)])
def test_convolutions_that_carry_fixed_statistics_bound_as_well(name: str, some: int) -> None:
    network = timm.create_model(name, num_classes=2)
    quick = quicker(network, [(3, 64, 64)], foldable(network))
    bounding = [part for part in quick.modules() if isinstance(part, QuickConv2d) and part.bounds is not None]
    assert len(bounding) >= some and bool(bounding) == bool(some)
    called: list[nn.Module] = []
    for part in quick.modules():
        if isinstance(part, QuickHardtanh | nn.ReLU6):
            part.register_forward_hook(lambda part, *_: called.append(part))
    quick.eval()(torch.rand(1, 3, 64, 64))
    assert not called
