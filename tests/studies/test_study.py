from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thawlab.comparison.comparison import compare_runs
from thawlab.errors import ThawlabError, UsageError
from thawlab.run import RunFolder
from thawlab.studies import conduct
from thawlab.studies.design import Design
from thawlab.studies.folder import StudyFolder
from thawlab.studies.study import forecast, run_study
from thawlab.studies.worker import run_cell

Designs = Callable[..., Design]


def test_a_study_runs_every_cell_once_and_writes_what_they_show(
    design_of: Designs, tmp_path: Path, in_process: list[str]
) -> None:
    outcome = run_study(design_of(), tmp_path / "runs", parallel=1)
    assert outcome.folder.path == tmp_path / "runs" / "rates" and len(in_process) == 4
    assert outcome.conducted == (4, 0, {})
    document = json.loads(outcome.folder.comparison.read_text())
    assert document["question"] == "Which rate?" and [row["name"] for row in document["variants"]] == ["lr 0.01", "lr 0.03"]
    assert [effect["keys"] for effect in document["pairs"]] == [["phases.0.lr"]]
    assert "Which rate?" in outcome.folder.page.read_text()
    again = run_study(design_of(), tmp_path / "runs", parallel=1)
    assert len(in_process) == 4 and again.conducted == (0, 4, {})
    assert json.loads(again.folder.comparison.read_text()) == document
    json.dumps(again.as_json(), allow_nan=False)


def test_a_cell_that_fails_is_reported_and_the_rest_goes_on(
    design_of: Designs, tmp_path: Path, in_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    design = design_of()
    bad = design.cells()[1].run
    real = run_cell

    def run(_worker: Any, recipe: Path, runs: Path) -> dict[str, Any]:
        return {"status": "failed", "reason": "no room"} if recipe.stem == bad else real(recipe, runs)

    with monkeypatch.context() as patch:
        patch.setattr("thawlab.studies.workers.Worker.run", run)
        outcome = run_study(design, tmp_path, parallel=1)
    assert outcome.conducted.failed == {bad: "no room"} and outcome.conducted.ran == 3
    assert any("1 of 4 cells are missing, the first is lr 0.01, seed 1" in line for line in outcome.comparison.caveats)
    assert run_study(design, tmp_path, parallel=1).conducted == (1, 3, {})
    assert in_process == [bad]


def test_a_study_without_two_finished_cells_says_why(design_of: Designs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thawlab.studies.workers.Worker.run", lambda *_: {"status": "failed", "reason": "no room"})
    with pytest.raises(ThawlabError, match="0 of 4 cells finished"):
        run_study(design_of(), tmp_path, parallel=1)


def test_a_cell_that_another_process_has_is_waited_for(
    design_of: Designs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conduct, "_BUSY_SECONDS", 0.1)
    turns = iter(range(100))

    def run(_worker: Any, recipe: Path, runs: Path) -> dict[str, Any]:
        return {"status": "busy", "reason": "elsewhere"} if next(turns) == 0 else run_cell(recipe, runs)

    monkeypatch.setattr("thawlab.studies.workers.Worker.run", run)
    assert run_study(design_of(), tmp_path, parallel=1).conducted == (4, 0, {})


def test_a_forecast_lists_cells_and_writes_nothing(design_of: Designs, tmp_path: Path, in_process: list[str]) -> None:
    design = design_of()
    planned = forecast(design, tmp_path)
    assert [cell.run for cell in planned.cells] == [cell.run for cell in design.cells()]
    assert not any(planned.finished) and all(cost.seconds > 0 and not cost.measured for cost in planned.costs)
    assert planned.costs[0].seconds > planned.costs[1].seconds  # features are computed once
    assert list(tmp_path.glob("rates")) == [] and in_process == []
    json.dumps(planned.as_json(), allow_nan=False)
    run_study(design, tmp_path, parallel=1)
    after = forecast(design, tmp_path)
    assert all(after.finished) and after.seconds == 0
    more = forecast(design_of(seeds=3), tmp_path)
    assert [cost.measured for cost in more.costs] == [True] * 6 and more.seconds > 0


def test_a_fault_in_the_design_is_said_before_anything_is_written(design_of: Designs, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a key"):
        run_study(design_of(vary={"data.trainsize": [10, 20]}), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def same(one: RunFolder, other: RunFolder) -> None:
    """Compare two runs bit by bit, but for times."""
    files = ("model/model.safetensors", "recipe.toml")
    assert all((one.path / name).read_bytes() == (other.path / name).read_bytes() for name in files)
    for split in ("val", "test"):
        with np.load(one.predictions(split)) as a, np.load(other.predictions(split)) as b:
            assert all(np.array_equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_a_study_that_is_interrupted_goes_on_to_the_same_result(study_file: Callable[..., Path], tmp_path: Path) -> None:
    """Through real processes: a Ctrl-C, then a kill of everything, then to the end; beside it a study without either."""
    phases = [
        {
            "name": "all",
            "train": "all",
            "epochs": 6,
            "lr": 0.003,
            "batch_size": 16,
            "augment": ["shift:0.1"],
            "batch_norm": "eval",
        }
    ]
    base = {
        "name": "b",
        "data": {"source": "shapes:240x16", "image_size": 16},
        "model": {"backbone": "bundled"},
        "phases": phases,
    }
    file = study_file(base=base, vary={"phases.0.lr": [0.003, 0.001]})
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}

    def start(runs: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "thawlab", "study", str(file), "--runs", str(tmp_path / runs), "--parallel", "2"]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)

    whole = start("whole")
    assert whole.wait(300) == 0
    for number in (signal.SIGINT, signal.SIGKILL):
        process = start("broken")
        deadline = time.monotonic() + 120
        while not list((tmp_path / "broken").glob("rates/*/metrics.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(120) == (130 if number == signal.SIGINT else -9)
    assert start("broken").wait(300) == 0
    folders = [StudyFolder(tmp_path / runs / "rates") for runs in ("whole", "broken")]
    records = [folder.read() for folder in folders]
    assert records[0] == records[1]
    for entry in records[0].entries:
        same(folders[0].run(entry), folders[1].run(entry))
    comparisons = [compare_runs([folder.run(entry) for entry in records[0].entries]) for folder in folders]
    assert comparisons[0].verdict == comparisons[1].verdict
