from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from thawlab.probing.heads import DECAYS, RATES, Samples, coordinates, grid, standardiser
from thawlab.probing.linear import LinearHeads, train_linear


def blobs(n: int, width: int = 24, classes: int = 5, seed: int = 0) -> Samples:
    """Overlapping classes, the same ones for every seed."""
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randperm(n, generator=generator) % classes
    return Samples(centres[labels] + 2 * torch.randn(n, width, generator=generator), labels)


def test_heads_trained_together_are_those_trained_alone() -> None:
    train = blobs(700)
    rates, decays = torch.tensor([0.001, 0.003, 0.01, 0.03]), torch.tensor([0.0, 0.1, 0.01, 0.001])
    together = train_linear(*train, 5, rates, decays, seed=3)
    for k in range(4):
        alone = train_linear(*train, 5, rates[k : k + 1], decays[k : k + 1], seed=3)
        torch.testing.assert_close(together.one(k).weight, alone.weight, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(together.one(k).bias, alone.bias, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(together.one(0).weight, together.one(1).weight)


def test_heads_in_several_parts_are_those_in_one() -> None:
    train = blobs(300, classes=5)
    rates, decays = torch.logspace(-4, -2, 70), torch.full((70,), 0.01)  # 350 columns: two parts
    heads = train_linear(*train, 5, rates, decays, seed=0)
    assert heads.weight.shape == (24, 70, 5) and heads.bias.shape == (70, 5)
    alone = train_linear(*train, 5, rates[60:61], decays[60:61], seed=0)
    torch.testing.assert_close(heads.one(60).weight, alone.weight, rtol=1e-4, atol=1e-6)


def test_steps_are_those_of_torch() -> None:
    train, rate, decay = blobs(512), 0.01, 0.05
    heads = train_linear(*train, 5, torch.tensor([rate]), torch.tensor([decay]), seed=0, epochs=300, batch=512)
    weight, bias = torch.zeros(24, 5, requires_grad=True), torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.SGD([{"params": [weight], "weight_decay": decay}, {"params": [bias]}], lr=rate, momentum=0.9)
    for step in range(300):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / 300)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(torch.addmm(bias, train.features, weight), train.labels).backward()
        optimizer.step()
    torch.testing.assert_close(heads.weight[:, 0], weight.detach(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(heads.bias[0], bias.detach(), rtol=1e-3, atol=1e-5)


def test_with_enough_steps_sgd_ends_where_logistic_regression_does() -> None:
    train, decay = blobs(600), 0.1
    heads = train_linear(*train, 5, torch.tensor([0.01]), torch.tensor([decay]), seed=0, epochs=2000, batch=600)
    reference = LogisticRegression(C=1 / (decay * 600), tol=1e-8, max_iter=1000).fit(*(part.numpy() for part in train))
    torch.testing.assert_close(heads.weight[:, 0].T, torch.from_numpy(reference.coef_), rtol=0.02, atol=2e-3, check_dtype=False)


def test_a_head_that_diverges_is_never_best_and_leaves_the_others_alone() -> None:
    train = blobs(400)
    # The decay alone multiplies the weights by −39 in every step.
    heads = train_linear(*train, 5, torch.tensor([1.0, 0.005]), torch.tensor([40.0, 0.01]), seed=0)
    first, second = heads.judge(*train)
    assert not heads.weight[:, 0].isfinite().all()
    assert first == (-float("inf"), -float("inf")) and second[0] > 0.4
    alone = train_linear(*train, 5, torch.tensor([0.005]), torch.tensor([0.01]), seed=0)
    torch.testing.assert_close(heads.one(1).weight, alone.weight, rtol=1e-4, atol=1e-6)


def test_judging_counts_right_answers_and_the_loss() -> None:
    heads = LinearHeads(torch.randn(24, 3, 5), torch.randn(3, 5))
    samples = blobs(5000)  # more than one portion
    for k, (accuracy, negative) in enumerate(heads.judge(*samples)):
        logits = samples.features @ heads.weight[:, k] + heads.bias[k]
        assert accuracy == pytest.approx((logits.argmax(dim=1) == samples.labels).double().mean().item())
        assert negative == pytest.approx(-torch.nn.functional.cross_entropy(logits, samples.labels).item(), rel=1e-4)


def test_the_order_depends_on_the_seed_alone() -> None:
    train, one = blobs(600), (torch.tensor([0.01]), torch.tensor([0.0]))
    first, again, other = (train_linear(*train, 5, *one, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)


def test_the_grid_has_each_rate_with_each_decay_and_is_coarser_for_many_classes() -> None:
    features = torch.full((10, 16), 0.5)  # mean squared length 4
    rates, decays = grid(features, 10)
    assert len(rates) == len(decays) == len({*zip(rates.tolist(), decays.tolist(), strict=True)}) == 100
    assert rates[0].item() == pytest.approx(RATES[0] / 4) and decays[-1].item() == pytest.approx(DECAYS[-1])
    assert len(grid(features, 41)[0]) == 25


def test_standardised_features_have_mean_zero_and_variance_one_and_dead_ones_stay_small() -> None:
    features = torch.randn(50, 6) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 0.0]) + 7
    scaled = standardiser(features)(features)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled[:, :5].std(dim=0, correction=0), torch.ones(5))
    assert standardiser(features)(features + 1)[:, 5].abs().max() < 10
    same = torch.ones(4, 3)
    assert standardiser(same)(same).isfinite().all()


def test_coordinates_keep_products_with_training_samples() -> None:
    train, others = torch.randn(8, 40), torch.randn(5, 40)
    placed = coordinates(train)
    assert placed(train).shape == (8, 8)
    torch.testing.assert_close(placed(others) @ placed(train).T, others @ train.T, rtol=1e-4, atol=1e-4)
    many = torch.randn(60, 40)
    assert coordinates(many)(others) is others


def test_heads_in_coordinates_give_the_answers_of_heads_on_features() -> None:
    train, val = blobs(20, width=200), blobs(300, width=200, seed=1)
    placed, one = coordinates(train.features), (torch.tensor([0.001]), torch.tensor([0.1]))
    whole = train_linear(*train, 5, *one, seed=0).logits(val.features)
    small = train_linear(placed(train.features), train.labels, 5, *one, seed=0).logits(placed(val.features))
    torch.testing.assert_close(small, whole, rtol=1e-3, atol=1e-4)
