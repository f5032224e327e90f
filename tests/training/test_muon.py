from __future__ import annotations

import pytest
import torch

from thawlab.training.muon import Muon, orthogonalized


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (16, 16), (64, 216)])
def test_orthogonalized_keeps_singular_vectors_and_brings_the_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    assert values.min() < 0.9 * values.max()
    result = orthogonalized(matrix, 5)
    rotated = left.T @ result @ right.T
    assert torch.allclose(rotated, torch.diag(rotated.diagonal()), atol=1e-4)
    assert 0.65 < float(torch.linalg.svdvals(result).min()) <= float(torch.linalg.svdvals(result).max()) < 1.25


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_five_steps_are_those_of_torchs_muon() -> None:
    """torch's own optimiser takes matrices alone; its first step shows its Newton–Schulz iteration."""
    generator = torch.Generator().manual_seed(1)
    start, gradient = torch.randn(6, 10, generator=generator), torch.randn(6, 10, generator=generator)
    parameter = torch.nn.Parameter(start.clone())
    parameter.grad = gradient.clone()
    torch.optim.Muon([parameter], lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False).step()
    # It computes in bfloat16, and so differs in the third digit.
    assert torch.allclose(start - parameter.detach(), orthogonalized(gradient, 5), atol=0.02)


@pytest.mark.parametrize("shape", [(6, 10), (6, 4, 3, 3)])
def test_a_turned_parameter_keeps_its_norm_and_moves_by_the_rate(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(2)
    parameter = torch.nn.Parameter(3 * torch.randn(shape, generator=generator))
    optimizer = Muon([{"params": [parameter], "turned": True}], lr=0.01, momentum=0.9)
    for _ in range(5):
        before = parameter.detach().clone()
        parameter.grad = torch.randn(shape, generator=generator)
        optimizer.step()
        assert float(parameter.detach().norm()) == pytest.approx(float(before.norm()), rel=1e-5)
        assert float((parameter.detach() - before).norm()) == pytest.approx(0.01 * float(before.norm()), rel=0.05)


def test_what_is_not_turned_is_torchs_sgd_with_nesterov_momentum() -> None:
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(7, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    one = Muon([{"params": [ours], "weight_decay": 0.1}], lr=0.2, momentum=0.8)
    other = torch.optim.SGD([theirs], lr=0.2, momentum=0.8, nesterov=True, weight_decay=0.1)
    for _ in range(6):
        ours.grad = torch.randn(7, generator=generator)
        theirs.grad = ours.grad.clone()
        one.step()
        other.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_parameter_without_gradient_stays() -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 3))
    Muon([{"params": [parameter], "turned": True}], lr=0.1, momentum=0.9).step()
    assert torch.equal(parameter, torch.ones(3, 3))


def test_a_zero_gradient_gives_numbers() -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 3))
    parameter.grad = torch.zeros(3, 3)
    Muon([{"params": [parameter], "turned": True}], lr=0.1, momentum=0.9).step()
    assert torch.allclose(parameter, torch.ones(3, 3))
