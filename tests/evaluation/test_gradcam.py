from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import nn

from thawlab.evaluation.gradcam import explain, last_map
from thawlab.models.classifier import Classifier, make_head
from thawlab.models.small import backbones


def classifier_of(name: str, size: int) -> Classifier:
    torch.manual_seed(0)
    if name in backbones:
        backbone = backbones.get(name)(size)
    else:
        options = {"img_size": size} if "vit" in name or "swin" in name else {}
        backbone = timm.create_model(name, num_classes=0, **options)
    return Classifier(backbone, make_head(int(backbone.num_features), (), (), 5)).eval()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("cnn5", 32),
        ("resnet20", 32),
        ("speednet", 32),
        ("mobilenetv2_100", 96),
        ("vit_tiny_patch16_224", 96),
        ("convnext_atto", 96),
    ],
)
def test_maps_of_many_architectures_have_the_images_size_and_leave_the_network_alone(name: str, size: int) -> None:
    classifier = classifier_of(name, size)
    classifier.backbone.requires_grad_(False)
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    inputs = torch.rand(3, 3, size, size)
    maps = explain(classifier, inputs, np.array([0, 1, 2]))
    assert maps.shape == (3, size, size) and maps.dtype == np.float32
    assert (maps >= 0).all() and (maps <= 1).all()
    assert set(maps.max(axis=(1, 2)).round(6).tolist()) in ({1.0}, {0.0, 1.0})
    assert all(torch.equal(value, before[key]) for key, value in classifier.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier.parameters())
    alone = np.concatenate([explain(classifier, inputs[k : k + 1], np.array([k])) for k in range(3)])
    assert np.allclose(maps, alone, atol=1e-4)


class Corner(nn.Module):
    """A network that sees brightness: its features are the means of the upper and of the lower half."""

    num_features = 2

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cells = self.pool(x).mean(dim=1)
        return torch.stack([cells[:, :2].mean(dim=(1, 2)), cells[:, 2:].mean(dim=(1, 2))], dim=1)


def test_the_map_is_the_weighted_sum_of_the_papers_equations() -> None:
    classifier = classifier_of("resnet20", 32)
    inputs = torch.rand(2, 3, 32, 32)
    maps = explain(classifier, inputs, np.array([3, 1]))
    stages = classifier.backbone.stages
    values = stages[:-1](inputs).detach().requires_grad_()  # the last stage pools
    logits = classifier.head(stages[-1](values))
    [gradient] = torch.autograd.grad(logits[0, 3] + logits[1, 1], values)
    alpha = gradient.mean(dim=(2, 3), keepdim=True)  # equation 1
    raw = torch.relu((alpha * values).sum(dim=1, keepdim=True))  # equation 2
    full = nn.functional.interpolate(raw, size=(32, 32), mode="bilinear", align_corners=False)[:, 0].detach()
    low, high = full.amin(dim=(1, 2), keepdim=True), full.amax(dim=(1, 2), keepdim=True)
    assert np.allclose(maps, ((full - low) / (high - low).clamp(min=1e-12)).numpy(), atol=1e-5)
    assert maps.max() == 1


def test_maps_equal_those_of_captum() -> None:
    classifier = classifier_of("mobilenetv2_100", 96)
    inputs = torch.rand(2, 3, 96, 96)
    layer, _ = last_map(classifier.backbone, inputs[:1])
    attributions = LayerGradCam(classifier, layer).attribute(inputs, target=torch.tensor([4, 2]), relu_attributions=True)
    expected = LayerAttribution.interpolate(attributions, (96, 96), interpolate_mode="bilinear")[:, 0].detach().numpy()
    low, high = expected.min(axis=(1, 2), keepdims=True), expected.max(axis=(1, 2), keepdims=True)
    shown = high[:, 0, 0] > 0
    assert shown.any()
    maps = explain(classifier, inputs, np.array([4, 2]))
    assert np.allclose(maps[shown], ((expected - low) / (high - low))[shown], atol=1e-4)


def test_a_network_without_a_feature_map_is_named() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    with pytest.raises(ValueError, match="no feature map"):
        last_map(flat, torch.rand(1, 3, 2, 2))


def test_what_lies_elsewhere_does_not_speak_for_a_class() -> None:
    classifier = Classifier(Corner(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        classifier.head.weight.copy_(torch.eye(2))
    inputs = torch.zeros(1, 3, 32, 32)
    inputs[:, :, :8, :8] = 1  # bright in the upper left
    [shown] = explain(classifier, inputs, np.array([0]))
    assert shown[:4, :4].min() > 0.99 and shown[16:].max() < 1e-6
