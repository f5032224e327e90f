from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from thawlab.inference.folding import folded
from thawlab.models.small import backbones


def _with_statistics(network: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics and weights that are not those of a fresh layer."""
    generator = torch.Generator().manual_seed(1)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low, high in ((part.running_mean, -1, 1), (part.running_var, 0.3, 3), (part.weight, 0.5, 1.5)):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
            part.bias.data.copy_(torch.rand(part.bias.shape, generator=generator) - 0.5)
    return network.eval()


@pytest.mark.parametrize("name", ["mobilenetv2_100", "resnet18", "tf_efficientnetv2_b0", "densenet121", "regnety_002"])
def test_a_folded_timm_network_gives_the_same_features(name: str) -> None:
    torch.manual_seed(0)
    network = _with_statistics(timm.create_model(name, num_classes=0))
    other = folded(network, (3, 64, 64))
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(other(images), network(images), rtol=2e-3, atol=2e-4)
    before, after = (sum(isinstance(part, nn.BatchNorm2d) for part in net.modules()) for net in (network, other))
    assert after < before


@pytest.mark.parametrize("name", ["cnn5", "vgg10", "resnet20", "speednet"])
def test_a_folded_small_network_gives_the_same_features(name: str) -> None:
    torch.manual_seed(0)
    network = _with_statistics(backbones.get(name)(32))
    images = torch.rand(4, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(folded(network, (3, 32, 32))(images), network(images), rtol=2e-3, atol=2e-4)


def test_folding_leaves_the_network_as_it_was() -> None:
    network = _with_statistics(timm.create_model("resnet18", num_classes=0))
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network(images)
        folded(network, (3, 64, 64))
        assert torch.equal(network(images), expected)
    assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())


def test_a_network_without_batch_norm_is_itself() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    assert folded(network, (3, 8, 8)) is network


def test_a_network_that_depends_on_its_input_is_itself() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.convolution(x)) if x.mean() > 0 else x

    network = Odd().eval()
    assert folded(network, (3, 8, 8)) is network


def test_a_convolution_that_others_use_too_is_not_folded() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.convolution(x)
            return self.norm(y) + y

    network = _with_statistics(Shared())
    images = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(folded(network, (3, 8, 8))(images), network(images))


def test_a_norm_that_is_called_twice_is_not_folded() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.norm(self.convolution(x)))

    network = _with_statistics(Twice())
    images = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(folded(network, (3, 8, 8))(images), network(images))
