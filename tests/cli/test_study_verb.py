"""`thawlab study` and `thawlab compare` as a user calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from thawlab.cli.main import app
from thawlab.studies.worker import run_cell

BASE: dict[str, Any] = {
    "name": "small",
    "data": {"source": "shapes:240x16", "image_size": 16},
    "model": {"backbone": "bundled"},
    "phases": [{"name": "head", "train": "head", "epochs": 1, "lr": 0.01, "batch_size": 32}],
}
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the program in a folder of its own, its cells in this process; returns the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("thawlab.studies.workers.Worker.run", lambda _worker, recipe, runs: run_cell(recipe, runs))
    Path("recipe.toml").write_text(tomli_w.dumps(BASE))

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            app(list(arguments))
        except SystemExit as error:
            code = error.code
        printed = capsys.readouterr()
        return int(code or 0), printed.out, printed.err

    return run


STUDY = ("study", "recipe.toml", "--vary", "phases.0.lr=0.01,0.03", "--seeds", "2", "--parallel", "1")


def test_a_study_in_one_line_prints_its_table_and_writes_its_page(call: Call) -> None:
    code, out, _ = call(*STUDY, "--dry-run")
    assert code == 0 and "4 of 4 cells to run" in out and not Path("runs").exists()
    code, out, _ = call(*STUDY, "--question", "Which rate?")
    assert code == 0 and "Which rate?" in out and "lr 0.01 → 0.03: " in out
    assert Path("runs/recipe-study/comparison.html").is_file() and Path("runs/recipe-study/comparison.json").is_file()
    code, out, _ = call(*STUDY, "--json")
    document = json.loads(out)
    assert document["ran"] == 0 and document["finished_before"] == 4 and document["comparison"]["schema"] == 2
    code, out, _ = call("compare", "recipe-study", "--json", "--difference", "2")
    compared = json.loads(out)
    assert code == 0 and compared["question"] == "Which rate?" and Path("comparison.html").is_file()
    assert [row["name"] for row in compared["variants"]] == ["lr 0.01", "lr 0.03"]
    assert call("compare", "recipe-study")[0] == 2  # the page is there already
    assert call("report", "runs/recipe-study", "--out", "again.html")[0] == 0 and Path("again.html").is_file()
    assert call("compare", "runs/recipe-study/lr-*", "--out", "pattern.html")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ("study", "recipe.toml", "--vary", "data.trainsize=10,20"),
            2,
            "data.trainsize is not a key (did you mean 'train_size'?)",
        ),
        (("study", "recipe.toml", "--vary", "model.dropout=[2.0],[0.1]"), 2, "every rate must be in [0, 1)"),
        (("study", "recipe.toml", "--vary", "phases.0.lr=0.1,0.1"), 2, "has 0.1 twice"),
        (("study", "recipe.toml"), 2, "a study needs one of [vary], [[variants]] and [search]"),
        (("study", "absent.toml", "--vary", "a=1"), 2, "there is no such recipe"),
        (("study", "recipe.toml", "--vary", "phases.0.lr=0.1,0.2", "--seeds", "1"), 2, "give at least 2"),
        (("study", "recipe.toml", "--vary", "phases.0.lr=0.1,0.2", "--seeds", "x"), 2, "--seeds x: give a number of seeds"),
        (("study", "recipe.toml", "--vary", "phases.0.lr=0.1,0.2", "--name", "a/b"), 2, "must be made of letters"),
        (("compare", "absent", "other"), 2, "there is no run 'absent'"),
        (("compare", "nothing-*"), 2, "'nothing-*' fits no finished run"),
    ],
)
def test_bad_input_is_one_line(call: Call, arguments: tuple[str, ...], code: int, says: str) -> None:
    found, out, err = call(*arguments)
    assert found == code and says in err and err.startswith("thawlab: ") and err.count("\n") == 1 and out == ""


def test_other_cells_in_a_finished_study_are_refused(call: Call) -> None:
    assert call(*STUDY)[0] == 0
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    code, _, err = call("study", "recipe.toml", "--vary", "phases.0.lr=0.01,0.1", "--seeds", "2")
    assert code == 2 and "holds a study with other cells (lr 0.03, seed 0: only there)" in err and err.count("\n") == 1
    assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == before


def test_a_run_that_lost_a_file_is_named_and_repaired_by_the_study(call: Call) -> None:
    assert call(*STUDY)[0] == 0
    lost = sorted(Path("runs/recipe-study").glob("lr-*"))[0] / "predictions" / "test.npz"
    lost.unlink()
    code, _, err = call("compare", "runs/recipe-study/lr-*")
    assert code == 1 and str(lost) in err and "repair" in err and err.count("\n") == 1
    code, out, _ = call("compare", "recipe-study")
    assert code == 0 and "1 of 4 cells are missing" in out
    assert call(*STUDY)[0] == 0 and lost.is_file()


def test_a_failed_cell_makes_the_study_fail_after_the_others(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_worker: Any, recipe: Path, runs: Path) -> dict[str, Any]:
        return {"status": "failed", "reason": "no room"} if "lr-0.03" in recipe.stem else run_cell(recipe, runs)

    monkeypatch.setattr("thawlab.studies.workers.Worker.run", run)
    code, out, err = call(*STUDY)
    assert code == 1 and "2 cells failed, the first is lr-0.03" in err and "no room" in err and "lr 0.01" in out
