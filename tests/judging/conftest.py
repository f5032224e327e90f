import shutil
from pathlib import Path

import pytest

from thawlab.run import RunFolder


@pytest.fixture
def copy(run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the run that a test may change."""
    shutil.copytree(run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")
