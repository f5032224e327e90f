"""What trackers are told, and that nothing is lost or told twice; the trackers themselves are tested beside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from thawlab import api, progress
from thawlab.errors import ThawlabError, UsageError
from thawlab.results import EpochRow, read_results, read_rows, write_rows
from thawlab.run import RunFolder
from thawlab.tracking import rows as rows_module
from thawlab.tracking.rows import (
    Snapshot,
    Target,
    TrackedRun,
    Write,
    described,
    final_metrics,
    snapshot,
    track,
    tracked,
    trackers,
)


def row(phase: str, epoch: int, step: int, **changes: float | None) -> EpochRow:
    plain = {"seconds": 1.0, "train_loss": 0.5, "val_loss": 0.25, "val_accuracy": 0.75, "lr": 0.1}
    return EpochRow.model_validate({"phase": phase, "epoch": epoch, "step": step, **plain, **changes})


def test_steps_go_on_over_the_phases() -> None:
    found = tracked([row("head", 1, 5), row("head", 2, 10), row("all", 1, 7), row("all", 2, 14)])
    assert [one.step for one in found] == [5, 10, 17, 24]
    assert found[0].values == {"train_loss": 0.5, "val_loss": 0.25, "val_accuracy": 0.75, "lr": 0.1}


def test_what_was_not_measured_is_left_out() -> None:
    [found] = tracked([row("head", 1, 5, val_loss=None, val_accuracy=None)])
    assert found.values == {"train_loss": 0.5, "lr": 0.1}
    assert tracked([]) == ()


def test_a_finished_run_has_rows_test_metrics_and_settings(run: RunFolder) -> None:
    now, what = snapshot(run), described(run)
    assert now.status == "finished" and len(now.rows) == len(read_rows(run.metrics))
    assert now.step == now.rows[-1].step > read_rows(run.metrics)[-1].step  # there are two phases
    assert now.final["test_accuracy"] == read_results(run.results).test.accuracy
    assert all(isinstance(value, float) for value in now.final.values())
    assert what.digest == run.recipe.digest and what.name == f"{run.name}-{what.digest[:12]}"
    assert what.settings["phases.1.name"] == run.recipe.phases[1].name


def test_a_plugins_metric_is_tracked(run: RunFolder) -> None:
    test = read_results(run.results).test.model_copy(update={"specificity": 0.5})
    assert final_metrics(test)["test_specificity"] == 0.5


def test_a_folder_that_bears_its_digest_keeps_its_name(run: RunFolder) -> None:
    moved = run.path.rename(run.path.with_name(f"mine-{run.recipe.digest[:12]}"))
    assert described(RunFolder(moved)).name == moved.name


def test_a_run_that_has_just_begun_has_nothing_yet(run: RunFolder) -> None:
    run.metrics.unlink()
    run.set_status("running")
    assert snapshot(run) == Snapshot("running", (), {})
    run.set_status("finished")
    with pytest.raises(ThawlabError, match=r"metrics\.jsonl: is missing from the run"):
        snapshot(run)


@contextmanager
def _kept(run: TrackedRun, target: Target) -> Iterator[Write]:
    """A tracker that writes into a file, a line per snapshot."""
    file = Path(str(target.out)) / f"{run.name}.jsonl"

    def write(now: Snapshot) -> str:
        with file.open("a") as stream:
            stream.write(json.dumps([now.status, len(now.rows), len(now.final)]) + "\n")
        return str(file)

    yield write
    file.with_suffix(".closed").touch()


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers._entries, "kept", _kept)


def _lines(place: str) -> list[list[object]]:
    return [json.loads(line) for line in Path(place).read_text().splitlines()]


def test_following_writes_what_comes_until_the_run_is_finished(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_rows(run.metrics)
    steps = iter([(2, "running"), (4, "running"), (len(rows), "finished")])

    def train_on(_seconds: float) -> None:
        count, status = next(steps)
        write_rows(run.metrics, rows[:count])
        run.set_status(status)  # type: ignore[arg-type]

    monkeypatch.setattr(rows_module.time, "sleep", train_on)
    run.metrics.unlink()
    run.set_status("interrupted")  # it is about to be resumed
    [place] = track([run], _kept, Target(out=tmp_path), follow=True).values()
    counts = [line[:2] for line in _lines(place)]
    assert counts == [["interrupted", 0], ["running", 2], ["running", 4], ["finished", len(rows)]]
    assert Path(place).with_suffix(".closed").exists()


@pytest.mark.parametrize("ending", ["interrupted", "failed"])
def test_following_ends_when_training_stops(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    progress.silence(False)
    run.set_status("running")
    monkeypatch.setattr(rows_module.time, "sleep", lambda _seconds: run.set_status(ending))  # type: ignore[arg-type]
    [place] = track([run], _kept, Target(out=tmp_path), follow=True).values()
    assert [line[0] for line in _lines(place)] == ["running", ending]
    assert f"{ending}; what there is has been written" in capsys.readouterr().err


def test_without_following_an_unfinished_run_is_written_as_it_is(run: RunFolder, tmp_path: Path) -> None:
    run.set_status("running")
    [place] = track([run], _kept, Target(out=tmp_path)).values()
    assert [line[0] for line in _lines(place)] == ["running"]


@pytest.mark.usefixtures("kept")
def test_the_api_takes_several_runs_and_a_plugins_tracker(run: RunFolder, other_run: RunFolder, tmp_path: Path) -> None:
    places = api.track([run.path, other_run.path, run.path], "kept", out=tmp_path)
    assert list(places) == [described(run).name, described(other_run).name]
    assert all(len(_lines(place)) == 1 for place in places.values())


def test_a_wrong_tracker_is_told_the_nearest(run: RunFolder) -> None:
    with pytest.raises(UsageError, match=r"--to: there is no tracker named 'tensorbord' \(did you mean 'tensorboard'\?\)"):
        api.track([run.path], "tensorbord", out="events")


@pytest.mark.parametrize(
    ("to", "target", "message"),
    [
        ("tensorboard", {}, "name their folder with --out DIR"),
        ("tensorboard", {"out": "events", "uri": "http://localhost"}, "and no --uri"),
        ("mlflow", {}, "needs the address of a tracking server: --uri"),
        ("mlflow", {"out": "events"}, "needs the address of a tracking server: --uri"),
    ],
)
def test_each_tracker_says_where_it_can_write(run: RunFolder, to: str, target: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        api.track([run.path], to, **target)  # type: ignore[arg-type]


@pytest.mark.parametrize(("to", "place"), [("tensorboard", "--out"), ("mlflow", "--uri")])
def test_a_missing_package_is_one_line_that_names_the_extra(run: RunFolder, tmp_path: Path, to: str, place: str) -> None:
    hidden = f"import sys; sys.modules[{to!r}] = None; sys.argv[0] = 'thawlab'; from thawlab.__main__ import run; run()"
    command = [sys.executable, "-c", hidden, "track", str(run.path), "--to", to, place, str(tmp_path / "there")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"thawlab: --to {to} needs") and f"pip install 'thawlab[{to}]'" in done.stderr
    assert not (tmp_path / "there").exists()
