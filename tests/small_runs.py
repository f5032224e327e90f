"""Phases of small runs, and what must be equal in two runs of the same recipe."""

from __future__ import annotations

from typing import Any

import numpy as np

from thawlab.evaluation.predictions import load_predictions
from thawlab.files import read_json
from thawlab.results import read_rows
from thawlab.run import RunFolder


def small_phase(**settings: Any) -> dict[str, Any]:
    return {"name": "scratch", "train": "all", "epochs": 3, "batch_size": 32, "lr": 0.02, **settings}


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    phases = [{key: value for key, value in phase.items() if key != "seconds"} for phase in results["phases"]]
    return {**{key: value for key, value in results.items() if key not in {"seconds", "name", "digest"}}, "phases": phases}


def metric_rows(folder: RunFolder) -> list[dict[str, Any]]:
    return [row.model_dump(exclude={"seconds", "images_per_second"}) for row in read_rows(folder.metrics)]


def assert_same_run(one: RunFolder, two: RunFolder) -> None:
    assert (one.model / "model.safetensors").read_bytes() == (two.model / "model.safetensors").read_bytes()
    assert metric_rows(one) == metric_rows(two)
    assert without_times(read_json(one.results)) == without_times(read_json(two.results))
    for split in ("val", "test"):
        assert np.array_equal(load_predictions(one.predictions(split)).logits, load_predictions(two.predictions(split)).logits)
