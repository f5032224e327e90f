"""Dropout that costs a fraction of torch's on a CPU, where drawing one float per value takes longer than a linear head."""

from typing import final

import torch
import torch.nn.functional as F
from torch import nn

# A value is dropped where its 16 random bits, read as a number in [-32768, 32767], lie below a threshold.
_LEVELS, _LOWEST = 65536, -32768


@final
class Dropout(nn.Dropout):
    """Dropout (Srivastava et al. 2014) from 16 random bits a value.

    The rate is rounded to a multiple of 1/65536 on a CPU, and the values that stay are scaled by the rounded rate, so that
    the mean is kept exactly. Draws come from torch's global generator.

    Attributes:
        part: where the rows that are given are part of a batch, the place of the first and the number of all: they then get what
            they get in the whole batch.
    """

    part: tuple[int, int] | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the values, some of them zero and the others scaled, in training; the values themselves in eval mode."""
        if not self.training or input.device.type != "cpu":
            return F.dropout(input, self.p, self.training, self.inplace)
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        first, total = self.part or (0, len(input))
        start, count = (rows * (input.numel() // max(len(input), 1)) for rows in (first, total))
        words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[start : start + input.numel()].view(input.shape) >= _LOWEST + dropped
        return input * (kept.to(input.dtype) * (_LEVELS / (_LEVELS - dropped)))
