from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thawlab.studies.design import Design
from thawlab.studies.folder import Entry, StudyFolder
from thawlab.studies.worker import run_cell
from thawlab.studies.workers import Worker, cells_at_once

Designs = Callable[..., Design]
LONG = {"phases.0.epochs": 100_000, "phases.0.train": "all", "phases.0.augment": ["shift:0.1"]}


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    (tmp_path / "study").mkdir()
    return StudyFolder(tmp_path / "study")


def files_of(study: StudyFolder, design: Design) -> list[Path]:
    return [study.recipe(study.add(cell, 1)) for cell in design.cells()]


def long_cell(study: StudyFolder, design_of: Designs) -> Entry:
    """Write the recipe of a cell that would train for hours."""
    return study.add(design_of(vary={key: [value] for key, value in LONG.items()}).cells()[0], 1)


def run_in_thread(worker: Worker, study: StudyFolder, entry: Entry) -> tuple[threading.Thread, list[dict[str, Any]]]:
    """Let a worker run a cell; its answer is appended to the list."""
    answers: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: answers.append(worker.run(study.recipe(entry), study.path)))
    thread.start()
    return thread, answers


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.is_file():
        assert time.monotonic() < end, f"{path} was not written"
        time.sleep(0.05)


def test_a_cell_ends_finished_or_with_its_reason(study: StudyFolder, design_of: Designs, tmp_path: Path) -> None:
    first, *_ = files_of(study, design_of())
    answer = run_cell(first, study.path)
    assert answer["status"] == "finished" and (study.path / answer["run"] / "results.json").is_file()
    broken = tmp_path / "broken.toml"
    broken.write_text(first.read_text().replace("shapes:240x16", "no-such-data"))
    assert run_cell(broken, study.path)["status"] == "failed" and "no-such-data" in run_cell(broken, study.path)["reason"]


def test_a_cell_that_another_process_trains_is_busy(study: StudyFolder, design_of: Designs) -> None:
    first, *_ = files_of(study, design_of())
    [entry] = [study.add(cell, 1) for cell in design_of().cells()[:1]]
    with study.run(entry).locked():
        answer = run_cell(first, study.path)
    assert answer["status"] == "busy" and "is being trained by process" in answer["reason"]


def test_an_error_of_any_kind_is_an_answer(study: StudyFolder, design_of: Designs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("thawlab.runner.train", fail)
    first, *_ = files_of(study, design_of())
    assert run_cell(first, study.path) == {"status": "failed", "reason": "MemoryError: no room"}


@pytest.mark.slow
def test_a_worker_runs_cells_one_after_the_other_and_dies_with_its_input(study: StudyFolder, design_of: Designs) -> None:
    files = files_of(study, design_of())[:2]
    worker = Worker(1, study.log)
    assert [worker.run(file, study.path)["status"] for file in files] == ["finished", "finished"]
    process = worker._process
    assert process is not None
    worker.close()
    assert process.returncode == 0
    assert "already finished" not in study.log.read_text()
    assert worker.run(files[0], study.path)["status"] == "finished"  # in a new process
    assert "already finished" in study.log.read_text()
    worker.close()


def test_a_worker_whose_study_is_killed_saves_its_cell_and_ends(study: StudyFolder, design_of: Designs) -> None:
    entry = long_cell(study, design_of)
    command = [sys.executable, "-m", "thawlab.studies.worker"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps({"recipe": str(study.recipe(entry)), "runs": str(study.path)}) + "\n")
    process.stdin.flush()
    wait_for(study.run(entry).metrics)
    process.stdin.close()  # what the system does when the study's process is killed
    assert json.loads(process.stdout.readline()) == {"status": "interrupted"}
    assert process.wait(30) == 0
    assert study.run(entry).status == "interrupted" and study.run(entry).checkpoint.is_file()


def test_a_worker_is_stopped_and_takes_the_next_cell(study: StudyFolder, design_of: Designs) -> None:
    entry, worker = long_cell(study, design_of), Worker(1, study.log)
    [short, *_] = files_of(study, design_of())
    thread, answers = run_in_thread(worker, study, entry)
    wait_for(study.run(entry).metrics)
    worker.stop()
    thread.join(30)
    assert answers == [{"status": "interrupted"}]
    process = worker._process
    assert worker.run(short, study.path)["status"] == "finished" and worker._process is process
    worker.close()


def test_a_stop_before_training_has_begun_is_not_lost(study: StudyFolder, design_of: Designs) -> None:
    entry, worker = long_cell(study, design_of), Worker(1, study.log)
    thread, answers = run_in_thread(worker, study, entry)
    while worker._process is None:
        time.sleep(0.01)
    time.sleep(0.5)  # it is importing
    worker.stop()
    thread.join(60)
    assert answers == [{"status": "interrupted"}]
    worker.close()


@pytest.mark.slow
def test_a_process_that_is_killed_is_a_failed_cell_and_is_replaced(study: StudyFolder, design_of: Designs) -> None:
    entry, worker = long_cell(study, design_of), Worker(1, study.log)
    [short, *_] = files_of(study, design_of())
    thread, answers = run_in_thread(worker, study, entry)
    wait_for(study.run(entry).metrics)
    worker.kill()
    thread.join(30)
    assert answers[0]["status"] == "failed" and "killed by signal 9 (out of memory?)" in answers[0]["reason"]
    assert worker.run(short, study.path)["status"] == "finished"
    worker.close()


def test_cells_at_once_are_no_more_than_cores_cells_and_memory(design_of: Designs, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = design_of().cells()[0].recipe
    monkeypatch.setattr("thawlab.studies.workers.usable_cores", lambda: 8)
    monkeypatch.setattr("thawlab.studies.workers._free_memory", lambda: 100 << 30)
    assert [cells_at_once(cells, recipe) for cells in (1, 3, 100)] == [1, 3, 8]
    assert cells_at_once(100, recipe, threads=4) == 2
    monkeypatch.setattr("thawlab.studies.workers._free_memory", lambda: 5 << 30)
    assert cells_at_once(100, recipe) == 2
    monkeypatch.setattr("thawlab.studies.workers._free_memory", lambda: 1 << 20)
    assert cells_at_once(100, recipe) == 1


def test_orders_end_with_the_input() -> None:
    from thawlab.studies.worker import serve

    answers, before = io.StringIO(), signal.getsignal(signal.SIGTERM)
    try:
        serve(io.StringIO(""), answers)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert answers.getvalue() == ""
