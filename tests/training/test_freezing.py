from collections.abc import Iterator

import pytest
import torch
from torch import nn

from thawlab.errors import UsageError
from thawlab.models.catalog import resolve_backbone
from thawlab.models.classifier import Classifier, build_backbone, make_head
from thawlab.training.freezing import freeze, is_frozen, layer_groups, set_modes, trainable_count, trained_names


def classifier_of(name: str, size: int = 32) -> Classifier:
    backbone = build_backbone(resolve_backbone(name), size)
    return Classifier(backbone, make_head(int(backbone.num_features), [8], [0.5], 4))


def batch_norms(module: nn.Module) -> Iterator[nn.Module]:
    return (layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))


@pytest.mark.parametrize(
    "name", ["resnet20", "timm/resnet18.a1_in1k", "timm/mobilenetv2_100.ra_in1k", "timm/vit_tiny_patch16_224.augreg_in21k"]
)
def test_layer_groups_number_every_parameter_from_the_input_on(name: str) -> None:
    backbone = build_backbone(resolve_backbone(name), 224 if "vit" in name else 32)
    for coarse in (True, False):
        groups = layer_groups(backbone, coarse)
        assert set(groups) == {parameter for parameter, _ in backbone.named_parameters()}
        assert sorted(set(groups.values())) == list(range(max(groups.values()) + 1))
        first, last = next(iter(groups)), list(groups)[-1]
        assert groups[first] == 0
        assert groups[last] == max(groups.values())


def test_head_trains_only_the_head() -> None:
    classifier = classifier_of("resnet20")
    freeze(classifier, "head")
    assert is_frozen(classifier.backbone)
    assert trainable_count(classifier) == trainable_count(classifier.head) == 64 * 8 + 8 + 8 * 4 + 4


def test_all_trains_everything() -> None:
    classifier = classifier_of("resnet20")
    freeze(classifier, "head")
    freeze(classifier, "all")
    assert trainable_count(classifier) == sum(parameter.numel() for parameter in classifier.parameters())


def test_last_layers_are_the_last_modules_with_parameters() -> None:
    backbone = build_backbone(resolve_backbone("resnet20"), 32)
    assert trained_names(backbone, "last:1") == {"stages.9.body.4.weight", "stages.9.body.4.bias"}
    assert trained_names(backbone, "last:2") == trained_names(backbone, "last:1") | {"stages.9.body.3.weight"}


def test_last_stages_are_timms_own() -> None:
    backbone = build_backbone(resolve_backbone("timm/resnet18.a1_in1k"), 64)
    assert {name.split(".")[0] for name in trained_names(backbone, "stages:1")} == {"layer4"}
    assert {name.split(".")[0] for name in trained_names(backbone, "stages:2")} == {"layer3", "layer4"}


@pytest.mark.parametrize("train", ["last:1000", "stages:1000"])
def test_more_than_there_is_is_refused_with_the_number_there_is(train: str) -> None:
    backbone = build_backbone(resolve_backbone("resnet20"), 32)
    with pytest.raises(UsageError, match=r"the backbone has \d+ (layers|stages)"):
        trained_names(backbone, train)


def test_frozen_parts_run_in_eval_mode_and_their_statistics_never_move() -> None:
    classifier = classifier_of("timm/mobilenetv2_100.ra_in1k")
    freeze(classifier, "stages:1")
    set_modes(classifier, "train")
    before = {name: value.clone() for name, value in classifier.backbone.state_dict().items()}
    classifier(torch.randn(8, 3, 32, 32)).sum().backward()
    trained = trained_names(classifier.backbone, "stages:1")
    layers = {name.rpartition(".")[0] for name in trained}
    moved = {name for name, value in classifier.backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert {name.rpartition(".")[0] for name in moved} <= layers
    assert all((layer.weight.requires_grad) == layer.training for layer in batch_norms(classifier.backbone))


def test_batch_norm_eval_keeps_statistics_while_weights_train() -> None:
    classifier = classifier_of("resnet20")
    freeze(classifier, "all")
    set_modes(classifier, "eval")
    assert not any(layer.training for layer in batch_norms(classifier))
    assert all(layer.weight.requires_grad for layer in batch_norms(classifier))
    assert [layer.training for layer in classifier.head.modules() if isinstance(layer, nn.Dropout)] == [True]
