from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thawlab.errors import ThawlabError, UsageError
from thawlab.run import RunFolder
from thawlab.studies import search as module
from thawlab.studies.design import Design
from thawlab.studies.folder import StudyFolder
from thawlab.studies.search import search
from thawlab.studies.study import run_study
from thawlab.studies.worker import run_cell

optuna = pytest.importorskip("optuna")
Designs = Callable[..., Design]
RANGES = {
    "phases.0.lr": {"low": 1e-4, "high": 0.3, "log": True},
    "phases.0.batch_size": {"low": 16, "high": 64, "step": 16},
    "model.head": [[], [8]],
    "runs": 5,
}


def test_a_search_tries_the_base_first_and_keeps_to_ranges_and_budget(
    design_of: Designs, tmp_path: Path, in_process: list[str]
) -> None:
    folder, design = StudyFolder(tmp_path / "rates"), design_of(vary=None, search=RANGES)
    found = search(folder, design, parallel=1)
    assert len(found.trials) == len(in_process) == 5 and found.trials[0].changes == {}
    for trial in found.trials[1:]:
        assert set(trial.changes) == {"phases.0.lr", "phases.0.batch_size", "model.head"}
        assert 1e-4 <= trial.changes["phases.0.lr"] <= 0.3 and trial.changes["phases.0.batch_size"] in (16, 32, 48, 64)
        recipe = RunFolder(folder.path / trial.run).recipe
        assert recipe.phases[0].lr == trial.changes["phases.0.lr"] and list(recipe.model.head) == trial.changes["model.head"]
    finished = [trial for trial in found.trials if trial.status == "finished"]
    assert found.val_accuracy == max(trial.val_accuracy or 0 for trial in finished)
    again = search(folder, design, parallel=1)
    assert again == found and len(in_process) == 5
    json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.usefixtures("in_process")
def test_the_winner_is_compared_with_the_base_over_all_seeds(design_of: Designs, tmp_path: Path) -> None:
    ranges = {"phases.0.lr": {"low": 0.02, "high": 0.3}, "runs": 4}
    outcome = run_study(design_of(vary=None, search=ranges), tmp_path, parallel=1)
    assert outcome.found is not None
    names = [variant.name for variant in outcome.comparison.variants]
    assert names[0] == "base" and len(names) <= 2 and all(len(variant.runs) == 2 for variant in outcome.comparison.variants)
    again = run_study(design_of(vary=None, search=ranges), tmp_path, parallel=1)
    assert again.conducted.ran == 0 and again.found == outcome.found


def test_a_trial_that_a_killed_process_began_is_tried_again(design_of: Designs, tmp_path: Path, in_process: list[str]) -> None:
    folder, design = StudyFolder(tmp_path / "rates"), design_of(vary=None, search={**RANGES, "runs": 3})

    class Killed(BaseException):
        pass

    def die(_worker: Any, recipe: Path, runs: Path) -> dict[str, Any]:
        in_process.append(recipe.stem)
        return {"status": "interrupted"} if len(in_process) == 2 else run_cell(recipe, runs)

    real = module._end

    def end(*arguments: Any) -> None:
        if arguments[2]["status"] == "interrupted":
            raise Killed
        real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("thawlab.studies.workers.Worker.run", die)
        patch.setattr(module, "_end", end)
        with pytest.raises(Killed):
            search(folder, design, parallel=1)
    lost = in_process[1]
    found = search(folder, design, parallel=1)
    assert lost in {trial.run for trial in found.trials if trial.status == "finished"}


def test_a_search_whose_trials_fail_says_why(design_of: Designs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thawlab.studies.workers.Worker.run", lambda *_: {"status": "failed", "reason": "no room"})
    with pytest.raises(ThawlabError, match="no trial of the search finished: no room"):
        search(StudyFolder(tmp_path / "rates"), design_of(vary=None, search={**RANGES, "runs": 3}), parallel=1)


def test_a_range_of_a_key_that_does_not_exist_is_said(design_of: Designs, tmp_path: Path, in_process: list[str]) -> None:
    with pytest.raises(UsageError, match=r"data\.trainsize is not a key"):
        search(StudyFolder(tmp_path / "rates"), design_of(vary=None, search={"data.trainsize": [10, 20]}), parallel=1)
    assert in_process == []


def test_a_missing_package_is_named(design_of: Designs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'thawlab\[search\]'"):
        search(StudyFolder(tmp_path / "rates"), design_of(vary=None, search=RANGES), parallel=1)


@pytest.mark.parametrize("content", ["garbage", '{"op_code": 99}', "[]"])
def test_a_damaged_journal_is_one_line_and_no_trial_is_lost(
    design_of: Designs, tmp_path: Path, in_process: list[str], content: str
) -> None:
    folder, design = StudyFolder(tmp_path / "rates"), design_of(vary=None, search={**RANGES, "runs": 2})
    search(folder, design, parallel=1)
    ran = len(in_process)
    folder.journal.write_text(content + "\n")
    with pytest.raises(ThawlabError, match="move it away and search again") as caught:
        search(folder, design, parallel=1)
    assert str(folder.journal) in str(caught.value) and "\n" not in str(caught.value) and len(in_process) == ran
