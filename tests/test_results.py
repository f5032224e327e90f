from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from thawlab.errors import ThawlabError
from thawlab.results import EpochRow, read_rows, write_rows


def _row(epoch: int, **changes: Any) -> EpochRow:
    values = {"phase": "all", "step": 7 * epoch, "seconds": 0.25, "train_loss": 1 / epoch, "lr": 0.1}
    return EpochRow.model_validate({"epoch": epoch, "val_loss": 0.5, "val_accuracy": 0.75, **values, **changes})


def test_metric_rows_are_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    rows = [_row(1), _row(2, lr=0.05, val_loss=None, val_accuracy=None, images_per_second=12.5)]
    write_rows(file, rows[:1])
    write_rows(file, rows)
    assert read_rows(file) == rows
    lines = file.read_text().splitlines()
    assert len(lines) == 2
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert json.loads(lines[1])["val_loss"] is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_damaged_or_missing_metrics_are_named(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with pytest.raises(ThawlabError, match=r"metrics\.jsonl: is missing"):
        read_rows(file)
    write_rows(file, [_row(1)])
    file.write_text(file.read_text() + '{"epo')
    with pytest.raises(ThawlabError, match=r"metrics\.jsonl: is damaged"):
        read_rows(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ThawlabError, match=r"metrics\.jsonl: cannot be read"):
        read_rows(file)
