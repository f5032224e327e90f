"""Recipes of tests, and what their errors must be."""

from __future__ import annotations

from typing import Any

import pytest

from thawlab.errors import UsageError

MINIMAL: dict[str, Any] = {"data": {"source": "digits"}, "model": {"backbone": "bundled"}, "phases": [{"epochs": 1}]}
TEXT = """
name = "two-phase"
[data]
source = "cifar10"
train_size = 10_000
[model]
backbone = "bundled"
head = [128, 64]
dropout = [0.25, 0.5]
[[phases]]
name = "head"
train = "head"
epochs = 3
lr = 1e-3
[[phases]]
train = "last:5"
epochs = 2
augment = ["flip", "shift:0.1"]
"""


def one_line(error: pytest.ExceptionInfo[UsageError]) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    assert error.value.exit_code == 2
    return text
