from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from thawlab.studies.design import Design, read_design
from thawlab.studies.worker import run_cell

BASE: dict[str, Any] = {
    "name": "small",
    "data": {"source": "shapes:240x16", "image_size": 16},
    "model": {"backbone": "bundled"},
    "phases": [{"name": "head", "train": "head", "epochs": 2, "lr": 0.01, "batch_size": 32}],
}


@pytest.fixture
def base() -> dict[str, Any]:
    """The tables of a recipe that trains in a second."""
    return BASE


@pytest.fixture
def study_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a study file: two rates, two seeds, trained in seconds; keys replace those of the file, None takes one out."""

    def write(file: str = "rates.toml", **changes: Any) -> Path:
        table = {"question": "Which rate?", "base": BASE, "seeds": 2, "vary": {"phases.0.lr": [0.01, 0.03]}, **changes}
        path = tmp_path / file
        path.write_text(tomli_w.dumps({key: value for key, value in table.items() if value is not None}), encoding="utf-8")
        return path

    return write


@pytest.fixture
def design_of(study_file: Callable[..., Path]) -> Callable[..., Design]:
    return lambda **changes: read_design(study_file(**changes))


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run cells in this process, and list which: starting others takes seconds each."""
    ran: list[str] = []

    def run(_worker: Any, recipe: Path, runs: Path) -> dict[str, Any]:
        ran.append(recipe.stem)
        return run_cell(recipe, runs)

    monkeypatch.setattr("thawlab.studies.workers.Worker.run", run)
    return ran
