"""Muon: momentum whose step is orthogonalised for each matrix of filters (Jordan et al. 2024)."""

from collections.abc import Callable, Iterable
from typing import Any, final

import torch

# Coefficients of the quintic iteration x → ax + bx³ + cx⁵ by Jordan et al. (2024), which brings every singular value from
# (0, 1] close to 1 in few steps.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_TINY = 1e-7


def orthogonalized(matrix: torch.Tensor, steps: int) -> torch.Tensor:
    """Return a matrix with the same singular vectors and singular values near 1, by Newton–Schulz iteration.

    With 5 steps the singular values lie within about [0.7, 1.2].
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x: torch.Tensor = matrix.mT if tall else matrix
    x = x / (x.norm() + _TINY)
    a, b, c = _QUINTIC
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


@final
class Muon(torch.optim.Optimizer):
    """Muon for filters and matrices, SGD with Nesterov momentum for everything else.

    A matrix keeps the norm it has: its step is relative, `lr` times that norm in the direction of the orthogonalised
    momentum, and the norm is restored afterwards. Before a normalisation layer, which takes the norm out anyway, nothing is
    lost by that, and no weight decay is needed; the rate says by how much a step turns the weights.

    Args:
        groups: of parameters; `turned` tells whether Muon takes them (n × inputs, or filters, n × channels × height × width).
            `weight_decay` acts on the others alone, added to the gradient.
        lr: relative for matrices, absolute for the rest.
        momentum: of both.
        steps: of Newton–Schulz.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float, steps: int = 3) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "steps": steps, "turned": False, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the parameters that have gradients."""
        assert closure is None, "the loop computes the gradients"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _update(parameter, parameter.grad, self.state[parameter], group)


def _update(parameter: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not group["turned"] and group["weight_decay"]:
        gradient = gradient.add(parameter, alpha=group["weight_decay"])
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = torch.zeros_like(gradient)
    momentum = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
    direction = gradient.add(momentum, alpha=group["momentum"])
    if not group["turned"]:
        parameter.add_(direction, alpha=-group["lr"])
        return
    turn = orthogonalized(direction.flatten(1), group["steps"]).to(parameter.dtype).view(parameter.shape)
    norm = parameter.norm()
    parameter.add_(turn * (norm / (turn.norm() + _TINY)), alpha=-group["lr"])
    parameter.mul_(norm / (parameter.norm() + _TINY))
