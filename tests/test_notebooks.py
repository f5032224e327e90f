"""The notebooks run from the first cell to the last, and are committed without outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_committed_without_outputs(file: Path) -> None:
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    assert len(cells) >= 10
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


def shown_by(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Run a notebook in a folder and return what its cells show, by type."""
    client, formats = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook = formats.read(file, as_version=4)
    client.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ())]


@pytest.mark.slow
def test_the_first_steps_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = shown_by(FOLDER / "first-steps.ipynb", tmp_path, monkeypatch)
    assert sum("text/html" in data for data in shown) >= 3  # the run, a prediction, the comparison
    assert sum("image/svg+xml" in data for data in shown) >= 1
    assert (next((tmp_path / "runs").glob("photos-bundled-*")) / "report.html").is_file()


@pytest.mark.slow
def test_what_matters_is_shown_from_the_committed_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").symlink_to(FOLDER.parent / "results")
    shown = shown_by(FOLDER / "what-matters.ipynb", tmp_path, monkeypatch)
    assert sum("image/png" in data for data in shown) >= 3
