"""The losses against formulas written out here, torch's own and scikit-learn's; a step against plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from thawlab.environment import choose_device
from thawlab.plan.resolve import resolve
from thawlab.recipe import Phase, Recipe
from thawlab.run import RunFolder
from thawlab.training.context import Context, prepare
from thawlab.training.interruption import Interruption
from thawlab.training.loop import take_step
from thawlab.training.losses import ClassTerms, class_terms, l2_penalty, training_loss
from thawlab.training.optimizers import make_optimizer
from thawlab.training.phase_data import PhaseData, phase_data
from thawlab.training.state import OptimizerState, TrainingState, snapshot

Make = Callable[..., Recipe]
CPU = torch.device("cpu")
LABELS = np.repeat(np.arange(4), [40, 20, 5, 1])
HARD = torch.tensor([0, 3, 2, 2, 1, 0])
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 8.0])


def logits(seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return (scale * torch.randn(len(HARD), 4, generator=torch.Generator().manual_seed(seed))).requires_grad_()


def soft() -> torch.Tensor:
    return torch.rand(len(HARD), 4, generator=torch.Generator().manual_seed(9)).softmax(dim=1)


def phase(**settings: Any) -> Phase:
    return Phase(epochs=1, **settings)


def both(ours: torch.Tensor, x: torch.Tensor, reference: torch.Tensor, y: torch.Tensor) -> None:
    """Compare two losses and their gradients."""
    assert ours.item() == pytest.approx(reference.item(), rel=1e-6)
    ours.backward()  # type: ignore[no-untyped-call]
    reference.backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and y.grad is not None
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("targets", [HARD, soft()], ids=["hard", "soft"])
def test_the_default_is_torchs_cross_entropy_to_the_bit(targets: torch.Tensor, smoothing: float) -> None:
    x = logits()
    ours = training_loss(x, targets, phase(label_smoothing=smoothing), ClassTerms())
    assert torch.equal(ours, F.cross_entropy(x, targets, label_smoothing=smoothing))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("targets", [HARD, soft()], ids=["hard", "soft"])
def test_weights_multiply_the_losses_whose_mean_is_over_the_images(targets: torch.Tensor, smoothing: float) -> None:
    x, y = logits(), logits()
    ours = training_loss(x, targets, phase(label_smoothing=smoothing, class_weights=tuple(WEIGHTS.tolist())), ClassTerms(WEIGHTS))
    reference = F.cross_entropy(y, targets, WEIGHTS, label_smoothing=smoothing, reduction="none").mean()
    both(ours, x, reference, y)


def test_without_smoothing_that_is_the_rule_of_keras() -> None:
    """Keras multiplies the loss of each image by the weight of its class and divides by the number of images."""
    x = logits()
    each = [float(WEIGHTS[label] * -F.log_softmax(row, dim=0)[label]) for row, label in zip(x.detach(), HARD, strict=True)]
    ours = training_loss(x, HARD, phase(class_weights=tuple(WEIGHTS.tolist())), ClassTerms(WEIGHTS))
    assert ours.item() == pytest.approx(sum(each) / len(each), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_the_focal_loss_is_that_of_lin_et_al(gamma: float) -> None:
    x, y = logits(), logits()
    p = torch.stack([torch.exp(y[i]) / torch.exp(y[i]).sum() for i in range(len(HARD))])
    own = torch.stack([p[i, label] for i, label in enumerate(HARD.tolist())])
    both(
        training_loss(x, HARD, phase(loss="focal", focal_gamma=gamma), ClassTerms()),
        x,
        (-((1 - own) ** gamma) * own.log()).mean(),
        y,
    )


def test_the_focal_loss_shares_out_mixed_smoothed_and_weighted_targets() -> None:
    x, y, targets = logits(), logits(), soft()
    p = torch.exp(y) / torch.exp(y).sum(dim=1, keepdim=True)
    q = 0.8 * targets + 0.2 * torch.full_like(targets, 1 / 4)
    reference = sum(
        -WEIGHTS[c] * q[i, c] * (1 - p[i, c]) ** 2 * p[i, c].log() for i in range(len(targets)) for c in range(4)
    ) / len(targets)
    settings = phase(loss="focal", label_smoothing=0.2, class_weights=tuple(WEIGHTS.tolist()))
    assert isinstance(reference, torch.Tensor)
    both(training_loss(x, targets, settings, ClassTerms(WEIGHTS)), x, reference, y)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0])
def test_the_focal_loss_of_the_certain_has_finite_slopes(gamma: float) -> None:
    x = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    training_loss(x, torch.tensor([0, 0]), phase(loss="focal", focal_gamma=gamma), ClassTerms()).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_logit_adjustment_is_equation_10_of_menon_et_al() -> None:
    """The loss is log(1 + Σ_{y' ≠ y} (π_y' / π_y)^τ · e^(f_y' − f_y))."""
    tau, x, y = 1.5, logits(), logits()
    settings = phase(logit_adjustment=tau)
    terms = class_terms(settings, LABELS, 4, CPU)
    prior = [40 / 66, 20 / 66, 5 / 66, 1 / 66]
    losses = []
    for f, own in zip(y, HARD.tolist(), strict=True):
        others = [(prior[k] / prior[own]) ** tau * torch.exp(f[k] - f[own]) for k in range(4) if k != own]
        losses.append(torch.log(1 + torch.stack(others).sum()))
    both(training_loss(x, HARD, settings, terms), x, torch.stack(losses).mean(), y)
    assert terms.weights is None


def test_balanced_weights_are_those_of_scikit_learn_and_weigh_one_on_average() -> None:
    terms = class_terms(phase(class_weights="balanced"), LABELS, 4, CPU)
    assert terms.weights is not None and terms.offsets is None
    expected = compute_class_weight("balanced", classes=np.arange(4), y=LABELS)
    np.testing.assert_allclose(terms.weights.numpy(), expected, rtol=1e-6)
    assert terms.weights.numpy()[LABELS].mean() == pytest.approx(1.0, rel=1e-6)
    given = class_terms(phase(class_weights=(3.0, 1.0, 1.0, 2.0)), LABELS, 4, CPU)
    assert given.weights is not None and given.weights.tolist() == [3.0, 1.0, 1.0, 2.0]
    assert class_terms(phase(), LABELS, 4, CPU) == (None, None)


def test_logits_in_bfloat16_are_judged_in_float32() -> None:
    half = logits().detach().bfloat16()
    for settings, terms in ((phase(loss="focal"), ClassTerms(WEIGHTS)), (phase(), ClassTerms(None, WEIGHTS.log()))):
        loss = training_loss(half, HARD, settings, terms)
        assert loss.dtype == torch.float32 and torch.equal(loss, training_loss(half.float(), HARD, settings, terms))


def ready(recipe: Recipe, folder: Path) -> tuple[Context, PhaseData]:
    closed, spec = resolve(recipe)
    context = prepare(closed, spec, choose_device("cpu"), RunFolder(folder), Interruption())
    return context, phase_data(context, closed.phases[0])


def step(context: Context, data: PhaseData) -> tuple[float, dict[str, torch.Tensor]]:
    """Take one step from where the classifier stands, leave its gradients and put it back; returns the loss and the weights."""
    before = snapshot(context.classifier)
    optimizer = OptimizerState(make_optimizer(context.classifier, data.phase), None)
    loss = take_step(context, data, TrainingState(), optimizer, data.batch(context.dataset.splits.train[:24], 5))
    after = snapshot(context.classifier)
    context.classifier.load_state_dict(before)
    return loss, after


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
@pytest.mark.parametrize(
    ("train", "settings"),
    [
        ("head", {}),
        ("stages:1", {}),
        ("all", {"accumulate": 3, "clip": 0.5}),
        ("all", {"weight_decay": 0.01, "layer_decay": 0.8}),
    ],
)
def test_a_step_with_l2_is_that_of_the_loss_with_the_squares(
    recipe: Make, tmp_path: Path, optimizer: str, train: str, settings: dict[str, Any]
) -> None:
    strengths = {"l2_head": 0.03, **({} if train == "head" else {"l2_backbone": 0.007})}
    table = {"train": train, "epochs": 1, "optimizer": optimizer, "lr": 0.01, **strengths, **settings}
    context, data = ready(recipe(phases=[table]), tmp_path)
    loss, after = step(context, data)
    classifier, reference = context.classifier, make_optimizer(context.classifier, data.phase)
    batch = data.batch(context.dataset.splits.train[:24], 5)
    plain = F.cross_entropy(data.module(data.prepare(data.arrange(batch.rows))), batch.targets)
    squares = torch.zeros(())
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad and parameter.ndim >= 2:
            squares = squares + strengths["l2_head" if name.startswith("head.") else "l2_backbone"] * (parameter**2).sum()
    own = {name: parameter.grad for name, parameter in classifier.named_parameters() if parameter.requires_grad}
    reference.zero_grad(set_to_none=True)
    (plain + squares).backward()  # type: ignore[no-untyped-call]
    if data.phase.clip is not None:
        torch.nn.utils.clip_grad_norm_(classifier.parameters(), data.phase.clip)
    assert loss == pytest.approx(plain.item(), rel=1e-5)  # what is recorded is the loss of the data
    for name, parameter in classifier.named_parameters():
        torch.testing.assert_close(own.get(name), parameter.grad, rtol=1e-3, atol=1e-5)
        parameter.grad = own.get(name)
    reference.step()  # by those gradients, since Adam's first step makes much of the difference between small ones
    assert all(torch.equal(after[name], value) for name, value in classifier.state_dict().items())
    without = data.phase.model_copy(update={"l2_head": 0.0, "l2_backbone": 0.0})
    assert l2_penalty(classifier, without) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weights": "balanced"},
        {"logit_adjustment": 1.0, "label_smoothing": 0.1},
        {"loss": "focal", "class_weights": [1.0] * 9 + [4.0]},
        {"class_weights": "balanced", "augment": ["mixup:0.4"]},
    ],
)
def test_a_batch_in_parts_takes_the_step_of_the_whole(recipe: Make, tmp_path: Path, settings: dict[str, Any]) -> None:
    parts = []
    for accumulate in (1, 5):
        table = {"epochs": 1, "optimizer": "sgd", "lr": 0.1, "accumulate": accumulate, **settings}
        parts.append(step(*ready(recipe("data.long_tail=5", phases=[table]), tmp_path)))
    assert parts[0][0] == pytest.approx(parts[1][0], rel=1e-5)
    for name, value in parts[0][1].items():
        torch.testing.assert_close(parts[1][1][name], value, rtol=1e-4, atol=1e-6, msg=name)
