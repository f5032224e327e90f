"""The quicker twin of a network: the same outputs, gradients and statistics, in training and in eval mode."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import create_conv2d
from torch import nn

from thawlab.inference.folding import foldable, folded
from thawlab.models.quicker import Mirrored, QuickConv2d, QuickHardtanh, agree, quicker, sharing


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=5).double()  # in single precision, steps of fresh networks drift apart by rounding


def stepped(network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the outputs and gradients of one step in training mode."""
    network.train().zero_grad()
    outputs = network(images)
    F.cross_entropy(outputs, torch.arange(len(images)) % 5).backward()  # type: ignore[no-untyped-call]
    return outputs.detach(), [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(
    ("name", "mirrors"), [("tf_efficientnet_lite0", True), ("tf_efficientnetv2_b0", True), ("mobilenetv2_035", False)]
)
@pytest.mark.parametrize("size", [64, 75, 96])  # 75: odd and even maps by turns
def test_a_step_is_the_same(name: str, mirrors: bool, size: int) -> None:
    plain = network_of(name)
    for module in plain.modules():  # stochastic depth would draw the same, but hide a difference
        module.drop_path_rate = 0.0  # type: ignore[assignment]
    other = copy.deepcopy(plain)
    quick = quicker(other, [(3, size, size)])
    assert isinstance(quick, Mirrored) is mirrors and any(isinstance(part, QuickConv2d) for part in quick.modules())
    images = torch.rand(10, 3, size, size, dtype=torch.float64)
    torch.manual_seed(1)
    expected, gradients = stepped(plain, images)
    torch.manual_seed(1)
    found, again = stepped(quick, images)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert len(gradients) == len(again)
    for one, two in zip(gradients, again, strict=True):
        assert float((one - two).norm()) <= 1e-8 * float(one.norm()) + 1e-12
    for one, two in zip(plain.buffers(), other.buffers(), strict=True):  # BatchNorm's statistics are those of the original
        assert torch.allclose(one, two)


@pytest.mark.parametrize("every", [1, 3])  # all that can be carried, or some
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv2_035", "resnet18"])
def test_a_step_with_fixed_statistics_is_the_same(name: str, every: int) -> None:
    torch.manual_seed(0)
    plain = network_of(name)
    for part in plain.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    other, images = copy.deepcopy(plain), torch.rand(6, 3, 32, 32, dtype=torch.float64)
    pairs = foldable(other)[::every]
    quick = quicker(other, [(3, 32, 32)], pairs)
    assert len(pairs) >= 3 and quick is not other
    results = []
    for network in (plain, quick):
        torch.manual_seed(1)
        network.train()
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
        outputs = network(images)
        F.cross_entropy(outputs, torch.arange(6) % 5).backward()  # type: ignore[no-untyped-call]
        results.append(outputs.detach())
    assert torch.allclose(results[0], results[1], rtol=1e-9, atol=1e-9)
    for (key, one), two in zip(plain.named_parameters(), other.parameters(), strict=True):
        assert one.grad is not None and two.grad is not None, key
        assert float((one.grad - two.grad).norm()) <= 1e-8 * float(one.grad.norm()) + 1e-12, key
    assert all(torch.equal(one, two) for one, two in zip(plain.buffers(), other.buffers(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", [nn.ReLU6(True), nn.Hardtanh(-0.5, 0.25, inplace=True), nn.Hardtanh(0.0, 0.3, inplace=True)])
@pytest.mark.parametrize("is_odd", [False, True])
def test_bounds_in_place_give_the_same_bits_and_keep_less(layer: nn.Hardtanh, dtype: torch.dtype, is_odd: bool) -> None:
    torch.manual_seed(0)
    values = (torch.randn(4, 8, 5, 5) * 5).to(dtype)
    values[1, 1] = torch.tensor([layer.min_val, layer.max_val, 0.0, -0.0, float("inf")])
    if is_odd:
        values[0, 0] = torch.tensor([layer.min_val, layer.max_val, 0.0, float("inf"), float("nan")])
    weights, found, kept = torch.randn(values.shape).to(dtype), [], []
    for way in (nn.Hardtanh(layer.min_val, layer.max_val), QuickHardtanh(layer)):
        x, sizes = values.clone().requires_grad_(), {}

        def pack(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            bounded = way(x * 1.0)
            result = (bounded * bounded * weights).sum()
        (gradient,) = torch.autograd.grad(result, [x])
        found.append((bounded.detach(), gradient))
        kept.append(sum(sizes.values()))
    for expected, given in zip(*found, strict=True):
        assert torch.equal(expected.nan_to_num(7), given.nan_to_num(7))
    assert kept[1] == kept[0] - values.nbytes  # what comes after it keeps its output, too


@pytest.mark.parametrize("where", [(0,), (slice(None), 3), (5,)])  # an image, a channel, another image
def test_what_is_no_number_stays_none_in_bfloat16(where: tuple[int | slice, ...]) -> None:
    values = torch.randn(8, 4, 6, 6).contiguous(memory_format=torch.channels_last).bfloat16()
    values[where] = float("nan")
    assert torch.equal(QuickHardtanh(nn.ReLU6())(values * 1.0).isnan(), values.isnan())


@pytest.mark.parametrize("shape", [(), (0, 3, 4, 4), (5,), (2, 0, 3, 3)])
def test_any_shape_is_bounded(shape: tuple[int, ...]) -> None:
    values = torch.full(shape, 9.0, dtype=torch.bfloat16)
    assert torch.equal(QuickHardtanh(nn.ReLU6())(values * 1.0), torch.full(shape, 6.0, dtype=torch.bfloat16))


def test_what_bounds_in_place_does_so_in_the_twin_and_nothing_else() -> None:
    network = timm.create_model("mobilenetv2_035", num_classes=2)
    network.bn1.act.inplace = False  # type: ignore[union-attr]
    quick = quicker(network, [(3, 32, 32)])
    activations = [part for part in quick.modules() if isinstance(part, (nn.Hardtanh, QuickHardtanh))]
    assert len(activations) > 20 and [type(part) for part in activations if type(part) is not QuickHardtanh] == [nn.ReLU6]
    carrying = quicker(network, [(3, 32, 32)], foldable(network))
    assert carrying is not network and [type(part) for part in carrying.modules()].count(nn.ReLU6) == 1


def test_both_hold_the_same_tensors() -> None:
    network = network_of("tf_efficientnet_lite0").float()
    quick = quicker(network, [(3, 64, 64)])
    assert {id(tensor) for tensor in quick.parameters()} == {id(tensor) for tensor in network.parameters()}
    assert {id(tensor) for tensor in quick.buffers()} == {id(tensor) for tensor in network.buffers()}
    assert not any(isinstance(part, QuickConv2d) for part in network.modules())
    with torch.no_grad():
        network.conv_stem.weight.mul_(2.0)  # type: ignore[union-attr,operator]
    assert agree(network, quick, (3, 64, 64))


def test_what_knows_left_from_right_stays_as_it_is() -> None:
    same = create_conv2d(3, 4, 3, stride=2, padding="same")
    network = nn.Sequential(same, nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Flatten())
    assert quicker(network, [(3, 32, 32)]) is network
    assert isinstance(quicker(nn.Sequential(same, nn.AdaptiveAvgPool2d(1)), [(3, 32, 32)]), Mirrored)


def test_a_network_without_such_layers_is_itself() -> None:
    network = timm.create_model("vgg11", num_classes=3)
    assert quicker(network, [(3, 64, 64)]) is network


def test_copies_that_share_can_be_copied_apart() -> None:
    network = nn.Sequential(nn.Linear(2, 2))
    shared, apart = sharing(network), copy.deepcopy(sharing(network))
    assert shared[0].weight is network[0].weight and apart[0].weight is not network[0].weight  # type: ignore[index]


@pytest.mark.parametrize("global_pool", ["avg", ""])
def test_a_folded_network_takes_no_copies(global_pool: str) -> None:
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0, global_pool=global_pool).eval()
    with torch.inference_mode():
        other = folded(network, (3, 64, 64))
        images = torch.rand(3, 3, 64, 64)
        assert isinstance(other, Mirrored)
        torch.testing.assert_close(other(images), network(images), rtol=2e-3, atol=2e-4)
