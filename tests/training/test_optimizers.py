import math
from itertools import pairwise

import pytest
import torch

from thawlab.models.catalog import resolve_backbone
from thawlab.models.classifier import Classifier, build_backbone, make_head
from thawlab.recipe import Phase
from thawlab.training.freezing import freeze, layer_groups
from thawlab.training.optimizers import lr_factor, make_optimizer, parameter_groups, set_lr


def small_classifier() -> Classifier:
    backbone = build_backbone(resolve_backbone("resnet20"), 32)
    return Classifier(backbone, make_head(64, [], [], 3))


def factors(steps_per_epoch: int = 10, **settings: object) -> list[float]:
    phase = Phase(epochs=5, **settings)  # type: ignore[arg-type]
    return [lr_factor(phase, step, steps_per_epoch) for step in range(5 * steps_per_epoch)]


def test_constant_schedule_is_one_everywhere() -> None:
    assert set(factors(schedule="constant")) == {1.0}


def test_cosine_falls_from_one_to_nearly_zero_and_is_half_in_the_middle() -> None:
    values = factors(schedule="cosine")
    assert values[0] == 1.0
    assert values[25] == pytest.approx(0.5)
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.002


def test_one_cycle_rises_and_falls() -> None:
    values = factors(schedule="one-cycle")
    top = values.index(max(values))
    assert values[0] == pytest.approx(1 / 25)
    assert top == 15
    assert max(values) == pytest.approx(1.0)
    assert values[:top] == sorted(values[:top])
    assert values[top:] == sorted(values[top:], reverse=True)


def test_one_cycle_agrees_with_torchs() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=1001, pct_start=0.3, final_div_factor=400)
    theirs = []
    for _ in range(1000):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    ours = factors(steps_per_epoch=200, schedule="one-cycle")
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 0.006


def test_linear_falls_in_equal_steps_towards_zero() -> None:
    values = factors(schedule="linear")
    assert values == pytest.approx([1 - step / 50 for step in range(50)])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warm_up_rises_in_equal_steps_and_meets_the_schedule_at_its_top(schedule: str) -> None:
    values = factors(schedule=schedule, warmup=1.0)
    steps = [b - a for a, b in pairwise(values[:11])]
    assert all(math.isclose(step, 1 / 11) for step in steps)
    assert values[10] == 1.0


def test_layer_decay_scales_every_parameter_by_its_depth_below_the_head() -> None:
    classifier = small_classifier()
    freeze(classifier, "all")
    groups = parameter_groups(classifier, Phase(epochs=1, layer_decay=0.5))
    scale_of = {id(parameter): group["scale"] for group in groups for parameter in group["params"]}
    depth = layer_groups(classifier.backbone, coarse=False)
    deepest = max(depth.values()) + 1
    for name, parameter in classifier.backbone.named_parameters():
        assert scale_of[id(parameter)] == pytest.approx(0.5 ** (deepest - depth[name]))
    assert all(scale_of[id(parameter)] == 1.0 for parameter in classifier.head.parameters())


def test_biases_and_normalisation_are_not_decayed_and_nothing_is_lost() -> None:
    classifier = small_classifier()
    freeze(classifier, "all")
    groups = parameter_groups(classifier, Phase(epochs=1, weight_decay=0.1))
    decay_of = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert len(decay_of) == len(list(classifier.parameters()))
    for parameter in classifier.parameters():
        assert decay_of[id(parameter)] == (0.1 if parameter.ndim > 1 else 0.0)


def test_frozen_parameters_are_in_no_group() -> None:
    classifier = small_classifier()
    freeze(classifier, "head")
    [group] = parameter_groups(classifier, Phase(epochs=1))
    assert {id(p) for p in group["params"]} == {id(p) for p in classifier.head.parameters()}


def test_head_and_biases_have_rates_of_their_own() -> None:
    classifier = small_classifier()
    freeze(classifier, "all")
    groups = parameter_groups(classifier, Phase(epochs=1, head_lr=3.0, bias_lr=0.5, layer_decay=0.5))
    scale_of = {id(parameter): group["scale"] for group in groups for parameter in group["params"]}
    assert [scale_of[id(parameter)] for parameter in classifier.head.parameters()] == [3.0, 1.5]
    last = layer_groups(classifier.backbone, coarse=False)
    deepest = max(last.values())
    for name, parameter in classifier.backbone.named_parameters():
        wanted = 0.5 ** (deepest + 1 - last[name]) * (0.5 if parameter.ndim < 2 else 1)
        assert scale_of[id(parameter)] == pytest.approx(wanted)


def test_muon_turns_the_filters_of_the_backbone_and_nothing_else() -> None:
    classifier = small_classifier()
    freeze(classifier, "all")
    groups = parameter_groups(classifier, Phase(epochs=1, optimizer="muon"))
    turned = {id(parameter) for group in groups if group["turned"] for parameter in group["params"]}
    assert turned == {id(parameter) for parameter in classifier.backbone.parameters() if parameter.ndim == 4}
    assert not any(group["turned"] for group in parameter_groups(classifier, Phase(epochs=1, optimizer="sgd")))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_every_optimizer_steps_at_the_rate_it_is_set_to(name: str) -> None:
    classifier = small_classifier()
    freeze(classifier, "head")
    optimizer = make_optimizer(classifier, Phase(epochs=1, optimizer=name, lr=1e-3, momentum=0.0))  # type: ignore[arg-type]
    set_lr(optimizer, 0.0)
    before = [parameter.detach().clone() for parameter in classifier.head.parameters()]
    classifier(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, classifier.head.parameters(), strict=True))
    set_lr(optimizer, 0.01)
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, classifier.head.parameters(), strict=True))
