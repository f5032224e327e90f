from __future__ import annotations

import hashlib
import re

import pytest
import torch
from torch import nn

from thawlab.models.classifier import Classifier, feature_map_side, make_head
from thawlab.models.small import REVISIONS, _GlobalMaximum, backbones

NAMES = ["cnn5", "resnet20", "resnet56", "speednet", "vgg10", "wrn16-4"]


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _with_linear_head(name: str, classes: int = 10) -> Classifier:
    backbone = backbones.get(name)(32)
    return Classifier(backbone, make_head(int(backbone.num_features), (), (), classes))


def test_the_small_networks_are_those_of_the_design() -> None:
    assert list(backbones) == NAMES


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("cnn5", 315_722),  # 896 + 18,496 + 295,040 + 1,290: the Keras tutorial's network, counted by hand
        # He et al. (2015), table 6: 0.27 M; shortcuts have no parameters.
        ("resnet20", 269_722),
        ("resnet56", 853_018),
        ("vgg10", 419_242),
        # Zagoruyko and Komodakis (2016): 2.7 M.
        ("wrn16-4", 2_748_890),
        ("speednet", 1_972_490),
    ],
)
def test_networks_have_their_number_of_parameters_with_ten_classes_at_32_px(name: str, parameters: int) -> None:
    assert _parameters(_with_linear_head(name)) == parameters


def test_the_global_maximum_is_torchs_pool_with_its_gradient_ties_included() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-2, 3, (4, 8, 3, 3), generator=generator).bfloat16().contiguous(memory_format=torch.channels_last)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = torch.randn(4, 8, generator=generator).bfloat16()
    one, other = _GlobalMaximum()(ours), nn.functional.adaptive_max_pool2d(theirs, 1).flatten(1)
    assert torch.equal(one, other)
    (one * weights).sum().backward()
    (other * weights).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_the_stride_that_speednet_declares_gives_the_side_of_its_last_map() -> None:
    for size in range(9, 70):
        network = backbones.get("speednet")(size).eval()
        with torch.inference_mode():
            side = network.stages[:-1](torch.zeros(1, 3, size, size)).shape[-1]  # type: ignore[index]
        assert feature_map_side(network, size) == side, size


@pytest.mark.parametrize("size", [16, 32, 33])
@pytest.mark.parametrize("name", NAMES)
def test_networks_give_pooled_features_of_their_declared_width(name: str, size: int) -> None:
    backbone = backbones.get(name)(size).eval()
    with torch.inference_mode():
        features = backbone(torch.rand(3, 3, size, size))
    assert features.shape == (3, backbone.num_features)
    assert torch.isfinite(features).all()
    assert not torch.equal(features[0], features[1])


@pytest.mark.parametrize("name", NAMES)
def test_group_matcher_gives_every_parameter_a_stage_in_order_from_input_to_output(name: str) -> None:
    backbone = backbones.get(name)(32)
    [pattern] = backbone.group_matcher(coarse=True).values()
    found = [re.match(pattern, parameter) for parameter, _ in backbone.named_parameters()]
    assert all(found)
    stages = [int(match[1]) for match in found if match]
    assert stages == sorted(stages)
    assert len(set(stages)) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_networks_say_what_input_they_expect(name: str) -> None:
    config = backbones.get(name)(48).pretrained_cfg
    assert config["input_size"] == (3, 48, 48)
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_the_declared_stride_is_the_stride_of_the_last_feature_map(name: str) -> None:
    backbone = backbones.get(name)(32).eval()
    sides: list[int] = []
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            module.register_forward_hook(lambda _module, _inputs, output: sides.append(output.shape[-1]))
    with torch.inference_mode():
        backbone(torch.rand(1, 3, 32, 32))
    reduction = backbone.feature_info[-1]["reduction"]
    assert -(-32 // reduction) - 2 <= sides[-1] <= -(-32 // reduction)  # cnn5 does not pad, and loses a border


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    classifier = _with_linear_head(name).train()
    torch.nn.functional.cross_entropy(classifier(torch.rand(8, 3, 32, 32)), torch.arange(8)).backward()
    without = [parameter for parameter, value in classifier.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []


@pytest.mark.parametrize("name", NAMES)
def test_fresh_activations_neither_vanish_nor_explode(name: str) -> None:
    torch.manual_seed(0)
    backbone = backbones.get(name)(32).train()
    features = backbone(torch.randn(64, 3, 32, 32))
    assert 0.05 < float(features.detach().std()) < 20


def _structure(network: nn.Module) -> str:
    """Return a short name of a network's layers and shapes."""
    layers = [f"{name} {type(module).__name__} {getattr(module, 'stride', '')}" for name, module in network.named_modules()]
    shapes = [f"{name} {tuple(value.shape)}" for name, value in network.state_dict().items()]
    return hashlib.sha256("\n".join(layers + shapes).encode()).hexdigest()[:12]


def test_no_network_changes_without_a_new_revision() -> None:
    # A wrong value here means: the network is another one now. Raise its revision in REVISIONS, then pin the new structure.
    assert {name: (REVISIONS.get(name, 1), _structure(backbones.get(name)(32))) for name in NAMES} == {
        "cnn5": (1, "9df7369bbcca"),
        "resnet20": (1, "b7885e8c4e58"),
        "resnet56": (1, "58c3b5bafd80"),
        "speednet": (3, "661bc9a3de99"),
        "vgg10": (1, "fea40e69ec16"),
        "wrn16-4": (1, "cfdbaede4527"),
    }
