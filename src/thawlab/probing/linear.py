"""Many linear heads at once: softmax regression by SGD, all heads of a grid in the same matrix products."""

from typing import NamedTuple, Self, final

import torch

from thawlab.randomness import derive

# What they reach beside logistic regression, and in what time: benchmarks/README.md.
EPOCHS, BATCH, MOMENTUM = 6, 256, 0.9
# Of few images an epoch is a step or two; every head takes this many at least.
LEAST_STEPS = 300
# Columns of weights that are trained together: of wider ones, weights and velocities fall out of the processor's cache.
_COLUMNS = 250
# Rows whose logits of all heads are held at once.
_ROWS = 2048


@final
class LinearHeads(NamedTuple):
    """Linear heads side by side.

    Attributes:
        weight: width × heads × classes.
        bias: heads × classes.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits of every head, n × heads × classes, of features, n × width."""
        return torch.addmm(self.bias.flatten(), features, self.weight.flatten(1)).view(-1, *self.bias.shape)

    def one(self, head: int) -> Self:
        """Return one of the heads."""
        return self._replace(weight=self.weight[:, head : head + 1], bias=self.bias[head : head + 1])

    def judge(self, features: torch.Tensor, labels: torch.Tensor) -> list[tuple[float, float]]:
        """Return accuracy and negative cross-entropy of every head; both are minus infinity for one that diverged."""
        right, loss = torch.zeros(len(self.bias), dtype=torch.float64), torch.zeros(len(self.bias), dtype=torch.float64)
        for rows, truth in zip(torch.split(features, _ROWS), torch.split(labels, _ROWS), strict=True):
            logits = self.logits(rows)
            right += (logits.argmax(dim=2) == truth[:, None]).sum(dim=0)
            loss -= logits.log_softmax(dim=2)[torch.arange(len(rows)), :, truth].double().sum(dim=0)
        values = torch.stack([right, -loss], dim=1) / len(labels)
        # The largest of NaNs is the first class, which would pass for an answer.
        values[~loss.isfinite()] = -torch.inf
        return [(accuracy, negative) for accuracy, negative in values.tolist()]


def train_linear(
    features: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    rates: torch.Tensor,
    decays: torch.Tensor,
    seed: int,
    epochs: int = EPOCHS,
    batch: int = BATCH,
) -> LinearHeads:
    """Train a linear head for each pair of a learning rate and a weight decay, all on the same batches.

    SGD with momentum from zero weights; rates decay linearly to zero. The gradient of the cross-entropy, softmax minus one-hot,
    is written out, so that a step is two matrix products over all heads. Heads do not influence each other.

    Args:
        features: float32, n × width, standardised.
        labels: int64, n.
        classes: how many there are.
        rates: learning rates, one per head.
        decays: weight decays (L2), one per head; biases have none.
        seed: of the order of the samples.
        epochs: over the samples; more where these are few.
        batch: samples per step.
    """
    together = max(1, _COLUMNS // classes)
    parts = [
        _train_together(features, labels, classes, rate, decay, seed, epochs, batch)
        for rate, decay in zip(torch.split(rates, together), torch.split(decays, together), strict=True)
    ]
    return LinearHeads(torch.cat([part.weight for part in parts], dim=1), torch.cat([part.bias for part in parts]))


def _train_together(
    features: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    rates: torch.Tensor,
    decays: torch.Tensor,
    seed: int,
    epochs: int,
    batch: int,
) -> LinearHeads:
    (n, width), shape = features.shape, (len(rates), classes)
    weight, bias = torch.zeros(width, len(rates) * classes), torch.zeros(len(rates) * classes)
    velocity, bias_velocity = torch.zeros_like(weight), torch.zeros_like(bias)
    rate, decay = rates.repeat_interleave(classes), decays.repeat_interleave(classes)
    per_epoch = -(-n // batch)
    steps = per_epoch * max(epochs, -(-LEAST_STEPS // per_epoch))
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            generator = torch.Generator().manual_seed(derive(seed, "probe", "order", epoch))
            batches = torch.split(torch.randperm(n, generator=generator), batch)
        rows = batches[place]
        inputs, left = features[rows], 1 - step / steps
        slope = torch.addmm(bias, inputs, weight).view(-1, *shape).softmax(dim=2)
        slope[torch.arange(len(rows)), :, labels[rows]] -= 1
        flat = slope.flatten(1)
        velocity.addmm_(inputs.T, flat, beta=MOMENTUM, alpha=1 / len(rows)).addcmul_(weight, decay)
        bias_velocity.mul_(MOMENTUM).add_(flat.mean(dim=0))
        weight.addcmul_(velocity, rate, value=-left)
        bias.addcmul_(bias_velocity, rate, value=-left)
    return LinearHeads(weight.view(width, *shape), bias.view(shape))
