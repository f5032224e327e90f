"""Finished runs that are kept in the repository, copied so that a test may change them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from thawlab.run import RunFolder

DIGITS = Path(__file__).resolve().parents[1] / "fixtures" / "digits"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of two phases."""
    return RunFolder(Path(shutil.copytree(DIGITS / "demo-two-phase", tmp_path / "runs" / "two-phase")))


@pytest.fixture
def other_run(tmp_path: Path) -> RunFolder:
    """Another run."""
    return RunFolder(Path(shutil.copytree(DIGITS / "demo-from-scratch", tmp_path / "runs" / "from-scratch")))
