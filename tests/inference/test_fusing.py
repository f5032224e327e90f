"""Convolutions that compute the activations after them: the same as without, and nothing else is touched."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from thawlab.environment import has_fast_bfloat16
from thawlab.inference.folding import folded
from thawlab.inference.fusing import FusedConv2d, compacted, fused, rounded
from thawlab.models.classifier import Classifier, WithFeatures
from thawlab.models.small import backbones

pytestmark = pytest.mark.skipif(not torch._C._has_mkldnn, reason="torch was built without oneDNN")


def fused_in(network: nn.Module) -> list[FusedConv2d]:
    return [part for part in network.modules() if isinstance(part, FusedConv2d)]


@pytest.mark.parametrize(
    ("name", "least"), [("mobilenetv2_035", 30), ("tf_efficientnet_lite0", 30), ("tf_efficientnetv2_b0", 30), ("resnet18", 8)]
)
@pytest.mark.parametrize("size", [64, 75])
def test_the_outputs_are_those_of_the_folded_network(name: str, least: int, size: int) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5).eval()
    plain = folded(network, (3, size, size))
    quick = compacted(network, (3, size, size))
    assert len(fused_in(quick)) >= least and not fused_in(network) and not fused_in(plain)
    assert not any(part._ordered for part in fused_in(quick))  # nothing stays of the trial
    for count in (1, 5, 32, 5):
        images = torch.randn(count, 3, size, size).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected, found = plain(images), quick(images)
        assert float((expected - found).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["vgg10", "resnet20"])
def test_the_outputs_of_small_networks_are_the_same(name: str) -> None:
    torch.manual_seed(0)
    network = backbones.get(name)(32).eval()
    quick, images = compacted(network, (3, 32, 32)), torch.randn(32, 3, 32, 32)
    with torch.inference_mode():
        assert fused_in(quick) and torch.allclose(folded(network, (3, 32, 32))(images), quick(images), rtol=1e-5, atol=1e-5)


class _Branching(nn.Module):
    """The output of one convolution is taken twice, another convolution is called twice, and one is bounded by ELU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.again, self.smooth, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, padding_mode="reflect")
        self.relu, self.elu, self.end = nn.ReLU(), nn.ELU(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.norm(self.first(x))
        x = first + self.relu(first)
        x = self.again(self.again(x))
        return self.end(self.last(self.elu(self.smooth(x)))).flatten(1)


def test_what_is_used_twice_or_has_no_name_there_is_left_alone() -> None:
    torch.manual_seed(0)
    network = _Branching().eval()
    quick = compacted(network, (3, 8, 8))
    assert [part.activation for part in fused_in(quick)] == [("none", ())] * 2
    kept = [name for name, part in quick.named_modules() if isinstance(part, nn.ReLU | nn.ELU) or type(part) is nn.Conv2d]
    assert sorted(kept) == ["again", "elu", "end", "last", "relu"]
    images = torch.randn(4, 3, 8, 8)
    with torch.inference_mode():
        assert torch.allclose(network(images), quick(images), rtol=1e-5, atol=1e-5)


def test_other_precisions_are_left_alone() -> None:
    network = folded(timm.create_model("resnet18", num_classes=2).double().eval(), (3, 64, 64))
    assert fused(network, (3, 64, 64)) is network


FAST = pytest.mark.skipif(not has_fast_bfloat16(torch.device("cpu")), reason="this processor has no products of bfloat16")


@FAST
@pytest.mark.parametrize("name", ["mobilenetv2_035", "tf_efficientnetv2_b0", "resnet18", "vit_tiny_patch16_224"])
def test_a_rounded_network_is_near_and_its_head_exact(name: str) -> None:
    torch.manual_seed(0)
    classifier = Classifier(timm.create_model(name, num_classes=0), nn.LazyLinear(5))
    images = torch.randn(4, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    classifier(images)
    network = compacted(WithFeatures(classifier).eval(), (3, 224, 224))
    quick = rounded(network)
    assert compacted(quick, (3, 224, 224)) is quick
    with torch.inference_mode():
        (_, features), (near, rough) = network(images), quick(images)
        assert near.dtype == rough.dtype == torch.float32
        assert 0 < float((features - rough).norm() / features.norm()) < 0.05
        assert torch.allclose(classifier.head(rough), near, rtol=1e-5, atol=1e-5)
    assert not any(part.dtype == torch.bfloat16 for part in network.parameters())
