"""Looking into a network while it runs, and running it in eval mode."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


@contextmanager
def forward_hooks(layers: Iterable[nn.Module], hook: Callable[[Any, Any, Any], Any]) -> Iterator[None]:
    """Call a hook with each layer, its inputs and its output while the block runs; what it returns replaces the output."""
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(hook).remove)
        yield


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Run a module in eval mode, and give every layer its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    if any(mode for _, mode in modes):
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            if part.training != mode:  # to set an attribute of a module takes longer than to look at it
                part.training = mode
