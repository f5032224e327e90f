from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from thawlab.models.small import backbones
from thawlab.models.whitening import PatchWhitening, fit_whitening


def correlated(count: int, seed: int = 0) -> torch.Tensor:
    """Smooth images: neighbouring pixels and the colours of a pixel go together."""
    noise = torch.randn(count, 3, 20, 20, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(noise + noise.mean(1, keepdim=True), 5, 1)


def test_the_filters_of_fresh_patches_are_uncorrelated_with_variance_one() -> None:
    layer = PatchWhitening(2)
    layer.fit(correlated(400))
    with torch.no_grad():
        outputs = layer(correlated(400, seed=1)).transpose(0, 1).flatten(1)
    assert torch.equal(outputs[:12], -outputs[12:])
    covariance = outputs[:12] @ outputs[:12].T / outputs.shape[1]
    # Directions of next to no variance are held back by the floor under the eigenvalues.
    strong = covariance.diagonal() > 0.8
    assert strong.sum() >= 6
    assert (covariance[strong][:, strong] - torch.eye(int(strong.sum()))).abs().max() < 0.2
    assert covariance.diagonal().max() < 1.2


def test_fitting_is_a_function_of_the_inputs_alone() -> None:
    first, second = PatchWhitening(2), PatchWhitening(2)
    assert not torch.equal(first.weight, second.weight)
    first.fit(correlated(50))
    second.fit(correlated(50))
    assert torch.equal(first.weight, second.weight)


def test_fitting_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = PatchWhitening(2), PatchWhitening(2)
    whole.fit(correlated(50))
    monkeypatch.setattr("thawlab.models.whitening._VALUES_AT_ONCE", 3000)
    parts.fit(correlated(50))
    assert torch.allclose(whole.weight, parts.weight, rtol=1e-5)


def test_inputs_without_variance_give_numbers() -> None:
    layer = PatchWhitening(2)
    layer.fit(torch.zeros(4, 3, 8, 8))
    assert torch.isfinite(layer.weight).all()


def test_only_whitening_layers_are_fitted_and_no_optimiser_sees_their_filters() -> None:
    network = backbones.get("speednet")(32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fit_whitening(network, lambda: correlated(50))
    changed = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["stages.0.0.weight"]
    assert changed[0] not in dict(network.named_parameters())
    fit_whitening(nn.Linear(2, 2), lambda: pytest.fail("inputs were made for nothing"))
