from __future__ import annotations

import torch

from thawlab.data.types import indicator


def test_a_label_becomes_a_row_with_one_at_its_class() -> None:
    rows = indicator(torch.tensor([2, 0]), 3)
    assert rows.dtype == torch.float32 and rows.tolist() == [[0, 0, 1], [1, 0, 0]]
