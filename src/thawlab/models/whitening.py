"""A first layer that whitens patches: its filters come from the training images, not from training."""

from collections.abc import Callable
from typing import final

import torch
import torch.nn.functional as F
from torch import nn

# Added to the eigenvalues, so that directions without variance are not blown up; inputs are of the order of 1.
_FLOOR = 5e-4
_VALUES_AT_ONCE = 1 << 22


@final
class PatchWhitening(nn.Module):
    """An unpadded convolution whose filters are patches' principal directions at unit variance, and their negatives.

    After Page's and Jordan's fast CIFAR-10 networks. The filters are a buffer, which no optimiser moves; before `fit` they
    are random. There is no bias to learn either, so that no gradient has to be computed for this layer's large output.

    Args:
        side: of a patch, in pixels.
    """

    weight: torch.Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        count = 3 * side * side
        self.outputs = 2 * count
        half = torch.linalg.qr(torch.randn(count, count)).Q.view(count, 3, side, side)
        self.register_buffer("weight", torch.cat([half, -half]))

    @torch.no_grad()
    def fit(self, inputs: torch.Tensor) -> None:
        """Set the filters from inputs, n × 3 × height × width, as the network will see them."""
        side = self.weight.shape[-1]
        width, count = self.outputs // 2, 0
        products = torch.zeros(width, width, dtype=torch.float64)
        # In parts, since unfolded images take four times their room, and on the CPU, since not every device has float64.
        for part in torch.split(inputs, max(1, _VALUES_AT_ONCE // inputs[0].numel())):
            patches = F.unfold(part.cpu().double(), side).transpose(1, 2).reshape(-1, width)
            products += patches.T @ patches
            count += len(patches)
        values, vectors = torch.linalg.eigh(products / count)
        # The sign of an eigenvector is left open; its greatest entry is made positive, for the same filters everywhere.
        vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        filters = (vectors / (values + _FLOOR).sqrt()).T.flip(0).reshape(-1, 3, side, side)
        self.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return n × outputs × (height − side + 1) × (width − side + 1)."""
        return F.conv2d(x, self.weight)


def fit_whitening(network: nn.Module, inputs: Callable[[], torch.Tensor]) -> None:
    """Fit a network's whitening layers to normalised training inputs, which are made only if it has any."""
    for module in network.modules():
        if isinstance(module, PatchWhitening):
            module.fit(inputs())
