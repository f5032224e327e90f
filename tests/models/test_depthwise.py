"""Gradients of depthwise convolutions: those of the plain layer, however they are put together."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from thawlab.models.depthwise import is_slow
from thawlab.models.quicker import QuickConv2d, quicker


@pytest.mark.parametrize(("side", "kernel"), [(2, 3), (3, 5), (4, 5), (1, 3), (2, 7)])
def test_the_gradient_of_a_small_depthwise_convolution(side: int, kernel: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, kernel, padding=kernel // 2, groups=8, bias=False).double()
    quick = QuickConv2d(layer.float(), mirrored=False)
    x = torch.randn(4, 8, side, side, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    weights = torch.randn(4, 8, side, side)
    (expected,) = torch.autograd.grad((layer(x) * weights).sum(), [layer.weight], retain_graph=True)
    of_x = torch.autograd.grad((layer(x) * weights).sum(), [x])[0]
    of_y, found = torch.autograd.grad((quick(y) * weights).sum(), [y, layer.weight])
    assert torch.allclose(found, expected, atol=1e-5) and torch.allclose(of_y, of_x, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3, 4, 5, 7, (3, 5)])
@pytest.mark.parametrize("stride", [1, 2, 3, (2, 1)])
@pytest.mark.parametrize("side", [(9, 12), (8, 7), (2, 2), (1, 3)])
def test_gradients_in_bfloat16_are_those_of_the_layer(
    kernel: int | tuple[int, int], stride: int | tuple[int, int], side: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    layer = nn.Conv2d(8, 8, kernel, stride, (height // 2, width // 2), groups=8).to(memory_format=torch.channels_last)
    quick = QuickConv2d(layer, mirrored=False)
    x = torch.randn(4, 8, *side).contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = layer(x)
    above = torch.randn(exact.shape)
    expected = torch.autograd.grad((exact * above).sum(), [x, layer.weight, layer.bias])
    with torch.autocast("cpu", torch.bfloat16):
        rough = quick(x)
        slow = is_slow(x, quick.weight, quick.stride, quick.dilation)
    assert slow == (max(height, width) > 3 or stride != 1)
    assert rough.dtype == torch.bfloat16 and (not slow or type(rough.grad_fn).__name__ == "_DepthwiseBackward")
    found = torch.autograd.grad((rough.float() * above).sum(), [x, layer.weight, layer.bias])
    assert torch.allclose(exact, rough.float(), atol=0.03)
    for one, two in zip(expected, found, strict=True):
        assert float((one - two).norm()) < 0.01 * float(one.norm())


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize(("side", "stride"), [((1, 1), 2), ((2, 2), 3), ((1, 4), 2), ((2, 2), 2), ((5, 5), 2), ((3, 1), (2, 4))])
def test_gradients_of_taps_that_meet_only_padding_are_zero_in_bfloat16(
    groups: int, kernel: int, side: tuple[int, int], stride: int | tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 32, kernel, stride, kernel // 2, groups=groups).to(memory_format=torch.channels_last)
    quick = QuickConv2d(layer, mirrored=False)
    x = torch.randn(4, 16, *side).contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = layer(x)
    above = torch.randn(exact.shape)
    expected = torch.autograd.grad((exact * above).sum(), [x, layer.weight, layer.bias])
    for _ in range(3):  # what is left unwritten may be zero by chance
        junk = [torch.full((1 << 16,), 1e4) for _ in range(8)]
        del junk
        with torch.autocast("cpu", torch.bfloat16):
            rough = quick(x)
        found = torch.autograd.grad((rough.float() * above).sum(), [x, layer.weight, layer.bias])
        for one, two in zip(expected, found, strict=True):
            assert float((one - two).norm()) < 0.01 * float(one.norm())


def test_strided_convolutions_of_any_network_are_among_those() -> None:
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=4, zero_init_last=False).to(memory_format=torch.channels_last)
    quick = quicker(network, [(3, 16, 16)])  # whose last stage sees maps of one pixel
    strided = {name for name, part in network.named_modules() if isinstance(part, nn.Conv2d) and part.stride > (1, 1)}
    twins = {name for name, part in quick.named_modules() if isinstance(part, QuickConv2d)}
    assert twins == {name for name in strided if "downsample" not in name} and "layer4.0.conv1" in twins
    with torch.autocast("cpu", torch.bfloat16):
        logits = quick(torch.rand(8, 3, 16, 16).contiguous(memory_format=torch.channels_last))
    logits.float().square().sum().backward()
    gradient = network.get_submodule("layer4.0.conv1").weight.grad  # of its kernels only the middle meets anything
    assert isinstance(gradient, torch.Tensor) and gradient[:, :, 1, 1].abs().max() > 0
    gradient[:, :, 1, 1] = 0
    assert not gradient.any()


def test_what_needs_no_gradient_gets_none() -> None:
    layer = QuickConv2d(nn.Conv2d(8, 8, 5, padding=2, groups=8), mirrored=False)
    x = torch.randn(2, 8, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).float().sum().backward()
        assert x.grad is None and layer.weight.grad is not None
        layer.weight.requires_grad_(False)
        assert not is_slow(x, layer.weight, (1, 1), (1, 1)) and is_slow(x.requires_grad_(), layer.weight, (1, 1), (1, 1))
        layer(x).float().sum().backward()
        assert x.grad is not None
        with torch.no_grad():
            assert not is_slow(x, layer.weight, (1, 1), (1, 1))
        assert not is_slow(x, layer.weight, (1, 1), (2, 2))


def test_padding_by_name_is_left_to_torch() -> None:
    layer = nn.Conv2d(8, 8, 7, padding="same", groups=8)
    with torch.autocast("cpu", torch.bfloat16):
        QuickConv2d(layer, mirrored=False)(torch.randn(2, 8, 5, 5)).float().sum().backward()
    assert layer.weight.grad is not None
