"""An exponential moving average of the weights, evaluated and kept in place of the last weights."""

import copy
from typing import Any, final

import torch
from torch import nn

# The average follows quickly at first: decay (1 + t) / (10 + t) until that exceeds the one asked for.
_WARMUP = 10.0


@final
class WeightAverage:
    """A second copy of a module whose weights follow those of the first.

    Args:
        module: whose weights are averaged; BatchNorm's statistics are averaged with them.
        decay: in (0, 1); the average looks back over about 1 / (1 − decay) steps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.module = copy.deepcopy(module).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Follow the module's weights after a step of its optimiser."""
        self.steps += 1
        weight = 1 - min(self.decay, self.steps / (self.steps + _WARMUP - 1))
        own, other = self.module.state_dict(), module.state_dict()
        floating = [name for name, value in own.items() if value.is_floating_point()]
        torch._foreach_lerp_([own[name] for name in floating], [other[name] for name in floating], weight)
        for name in own.keys() - set(floating):
            own[name].copy_(other[name])

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"steps": self.steps, "weights": self.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.steps = state["steps"]
        self.module.load_state_dict(state["weights"])
