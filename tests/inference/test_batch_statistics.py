from __future__ import annotations

import pytest
import torch
from torch import nn

from thawlab.inference.batch_statistics import batch_norm_distance


def network(mean: float, variance: float) -> nn.Module:
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(mean)
    norm.running_var.fill_(variance)
    return nn.Sequential(norm, nn.ReLU()).train()


def test_the_distance_is_in_stored_deviations() -> None:
    inputs = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 + 5
    assert batch_norm_distance(network(5, 4), inputs) == pytest.approx(0, abs=0.05)
    assert batch_norm_distance(network(-1, 4), inputs) == pytest.approx(3, abs=0.05)


def test_the_network_is_left_as_it_was() -> None:
    module = network(0, 1)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    batch_norm_distance(module, torch.rand(4, 3, 8, 8))
    assert module.training and not module[0]._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_without_batch_norm_there_is_nothing_to_say() -> None:
    assert batch_norm_distance(nn.Conv2d(3, 4, 3), torch.rand(2, 3, 8, 8)) is None
