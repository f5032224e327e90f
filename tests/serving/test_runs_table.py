from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thawlab.run import RunFolder
from thawlab.serving import runs_table
from thawlab.serving.runs_table import RunRow, Table, last_epoch, row_of, run_names, stamps_of


def row(folder: RunFolder) -> RunRow:
    return row_of(folder.name, folder, stamps_of(folder.path))


def named(root: Path, name: str) -> RunFolder:
    return RunFolder(next((root / "runs").glob(f"{name}-*")))


def unfinished(folder: RunFolder, status: str = "running", **more: object) -> RunFolder:
    folder.results.unlink()
    folder.set_status(status, **more)
    return folder


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_finished_run_has_what_its_results_say(studio_folder: Path) -> None:
    folder = named(studio_folder, "plain")
    results = json.loads(folder.results.read_text())
    found = row(folder)
    assert (found.name, found.status, found.epoch, found.problem) == (folder.name, "finished", None, None)
    assert found.test_accuracy == results["test"]["accuracy"]
    assert found.test_accuracy_ci95 == tuple(results["test"]["accuracy_ci95"])
    assert found.val_accuracy == results["val"]["accuracy"]
    assert found.seconds == results["seconds"]["total"]
    assert found.settings["data.source"] == "photos"
    assert found.settings["phases.0.epochs"] == 2
    assert abs(found.changed - time.time()) < 3600


def test_a_run_that_trains_has_its_phase_and_epoch_and_a_half_written_row_is_left_out(studio_folder: Path) -> None:
    folder = unfinished(named(studio_folder, "plain"))
    (folder.path / ".owner").write_text(f"process {os.getpid()} on {platform.node()}")
    with folder.metrics.open("a") as file:
        file.write('{"phase": "head", "epo')
    last = json.loads(folder.metrics.read_text().splitlines()[-2])
    found = row(folder)
    assert (found.status, found.phase, found.epoch, found.epochs) == ("running", last["phase"], 2, 2)
    assert found.val_accuracy == last["val_accuracy"]
    assert found.test_accuracy is None


@pytest.mark.parametrize(
    ("owner", "process", "expected"),
    [
        ("process {dead} on {here}", "{here}", "interrupted"),
        ("process {alive} on {here}", "{dead}", "running"),
        ("process {dead} on elsewhere", "{dead}", "running"),
        (None, "{dead}", "interrupted"),
        (None, "{alive}", "running"),
    ],
)
def test_a_run_whose_process_is_dead_here_is_interrupted(
    studio_folder: Path, owner: str | None, process: str, expected: str
) -> None:
    values = {"dead": ended_process(), "alive": os.getpid(), "here": platform.node()}
    folder = unfinished(named(studio_folder, "plain"))
    state = json.loads((folder.path / "state.json").read_text())
    state["pid"] = values["dead" if "dead" in process else "alive"]
    (folder.path / "state.json").write_text(json.dumps(state))
    if owner is not None:
        (folder.path / ".owner").write_text(owner.format(**values))
    assert row(folder).status == expected


def test_failures_and_damage_are_told_in_the_row(studio_folder: Path) -> None:
    failed = unfinished(named(studio_folder, "plain"), "failed", reason="the disk is full")
    assert (row(failed).status, row(failed).problem) == ("failed", "the disk is full")
    for name, file, content in (
        ("faster", "results.json", "{"),
        ("faster", "recipe.toml", "x = ["),
        ("alike", "metrics.jsonl", "{}\n"),
        ("alike", "state.json", '{"status": "flying"}'),
    ):
        folder = named(studio_folder, name)
        kept = (folder.path / file).read_text()
        (folder.path / file).write_text(content)
        found = row(folder)
        assert found.status == "damaged", file
        assert file in (found.problem or "")
        assert "\n" not in (found.problem or "")
        (folder.path / file).write_text(kept)


def test_only_runs_are_named(studio_folder: Path) -> None:
    runs = studio_folder / "runs"
    (runs / "empty").mkdir()
    (runs / "file").write_text("")
    (runs / ".hidden").mkdir()
    (runs / ".hidden" / "recipe.toml").write_text("")
    (runs / "theirs").mkdir()
    (runs / "theirs" / "imported.json").write_text('{"file": "model.keras", "size": 32}')
    assert [name.rpartition("-")[0] or name for name in run_names(runs)] == ["alike", "faster", "plain", "theirs"]
    theirs = row(RunFolder(runs / "theirs"))
    assert (theirs.status, theirs.settings) == ("imported", {"imported.file": "model.keras", "imported.size": 32})
    assert run_names(runs / "nowhere") == []


def test_runs_of_a_study_are_named_with_it(studio_folder: Path) -> None:
    runs = studio_folder / "runs"
    before = run_names(runs)
    plain = named(studio_folder, "plain")
    shutil.copytree(plain.path, runs / "rates" / plain.name)
    assert run_names(runs) == before  # in a folder that is nobody's
    (runs / "rates" / "study.json").write_text("{}")
    (runs / "rates" / "recipes").mkdir()
    shutil.copytree(plain.path, runs / "two\nlines")  # whose address no route would match
    assert run_names(runs) == sorted([*before, f"rates/{plain.name}"])
    table = Table(runs)
    rows = {one.name: one for one in table.look().rows}
    copied, own = rows[f"rates/{plain.name}"], rows[plain.name]
    assert copied.model_copy(update={"name": own.name, "changed": own.changed}) == own


def test_the_table_gives_what_changed_and_reads_nothing_else_again(studio_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(runs_table, "row_of", lambda name, *of: read.append(name) or row_of(name, *of))
    table = Table(studio_folder / "runs")
    first = table.look()
    assert first.whole
    assert [one.name for one in first.rows] == sorted(read)
    assert len(read) == 3
    again = table.look(first.version)
    assert (again.whole, again.rows, again.gone, again.version) == (False, [], [], first.version)
    assert len(read) == 3

    folder = named(studio_folder, "plain")
    folder.set_status("failed", reason="why not")
    changed = table.look(first.version)
    assert [(one.name, one.status) for one in changed.rows] == [(folder.name, "failed")]
    assert read[3:] == [folder.name]

    folder.path.rename(studio_folder / "away")
    gone = table.look(changed.version)
    assert (gone.rows, gone.gone) == ([], [folder.name])
    (studio_folder / "away").rename(folder.path)
    back = table.look(gone.version)
    assert ([one.name for one in back.rows], back.gone) == ([folder.name], [])
    assert [one.name for one in table.look(first.version).rows] == [folder.name]
    for unknown in ("", "nonsense", "12345678-1", f"{first.version.partition('-')[0]}-999", f"{first.version}x"):
        assert table.look(unknown).whole


def test_a_run_whose_process_ends_becomes_interrupted_though_no_file_changes(studio_folder: Path) -> None:
    folder = unfinished(named(studio_folder, "plain"))
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (folder.path / ".owner").write_text(f"process {process.pid} on {platform.node()}")
    table = Table(folder.path.parent)
    first = table.look()
    assert [one.status for one in first.rows if one.name == folder.name] == ["running"]
    process.communicate(b"\n")
    assert [(one.name, one.status) for one in table.look(first.version).rows] == [(folder.name, "interrupted")]


def test_the_last_epoch_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert last_epoch(file) is None
    file.write_text('{"phase": "a", "epo')
    assert last_epoch(file) is None
    line = {"phase": "a", "epoch": 1, "seconds": 0.5, "val_accuracy": None}
    file.write_text("x" * 10_000 + "\n" + json.dumps(line) + "\n")
    assert last_epoch(file) == line
    for wrong in (
        '{"phase": 1}',
        "[]",
        json.dumps({**line, "epoch": "2"}),
        '{"phase": "a", "epoch": 1, "seconds": NaN, "val_accuracy": 0}',
    ):
        file.write_text(wrong + "\n")
        with pytest.raises((ValueError, TypeError, KeyError)):
            last_epoch(file)


def test_thousands_of_runs_are_looked_at_again_within_a_second(studio_folder: Path) -> None:
    source = named(studio_folder, "plain")
    runs = studio_folder / "many"
    for number in range(2000):
        folder = runs / f"run-{number:04d}"
        folder.mkdir(parents=True)
        for name in ("recipe.toml", "state.json", "metrics.jsonl", "results.json"):
            os.link(source.path / name, folder / name)
    table = Table(runs)
    first = table.look()
    assert len(first.rows) == 2000
    start = time.process_time()  # of this process alone: others may hold the cores
    assert table.look(first.version).rows == []
    assert time.process_time() - start < 1
