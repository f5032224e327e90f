"""BatchNorm over the images of all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch.distributed.nn.functional import all_reduce
from torch.overrides import TorchFunctionMode


@final
class SyncedBatchNorm(TorchFunctionMode):
    """Within it, BatchNorm in training mode takes mean and variance over the images of all processes that train together.

    It acts on the function that every BatchNorm layer calls, whatever its class, on any device; torch's own `SyncBatchNorm` takes
    the place of layers, and runs on GPUs alone. Gradients flow through the exchange, as through one large batch.

    Args:
        counts: whether this process's images count; one without a share of the batch only keeps the others company.
    """

    def __init__(self, counts: bool) -> None:
        super().__init__()
        self._counts = float(counts)

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, or what takes its place."""
        if func is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: torch.Tensor,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        """As `torch.nn.functional.batch_norm`; with statistics of all processes where it trains."""
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        values = input.float() if input.element_size() < 4 else input
        shape = [-1 if axis == 1 else 1 for axis in range(input.ndim)]
        own = values.new_tensor([self._counts * input.numel() / input.shape[1]])
        sums = _over_all(torch.cat([self._counts * values.sum(axes), own]))
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = values - mean.view(shape)
        var = _over_all(self._counts * centred.square().sum(axes)) / count
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((var * count / (count - 1)).to(running_var.dtype), momentum)
        scale = torch.rsqrt(var + eps) if weight is None else torch.rsqrt(var + eps) * weight
        result: torch.Tensor = centred * scale.view(shape)
        return (result if bias is None else result + bias.view(shape)).to(input.dtype)


def _over_all(values: torch.Tensor) -> torch.Tensor:
    """Return the sums over all processes, through which gradients flow."""
    summed: torch.Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return summed
