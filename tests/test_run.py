from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from thawlab.errors import ThawlabError, UsageError
from thawlab.files import read_json, write_text
from thawlab.recipe import Recipe
from thawlab.run import RunFolder, find_run, run_folder


def test_a_run_is_a_folder_named_by_name_and_digest(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    first = recipe()
    folder = run_folder(first, tmp_path)
    assert folder.path == tmp_path / f"small-{first.digest[:12]}"
    assert run_folder(recipe("system.workers=1"), tmp_path) == folder
    assert run_folder(recipe("seed=1"), tmp_path) != folder


def test_the_recipe_is_read_back_from_the_folder(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    folder = run_folder(recipe(), tmp_path)
    with pytest.raises(ThawlabError, match=r"recipe\.toml: is missing from the run"):
        _ = folder.recipe
    write_text(folder.recipe_file, recipe().to_toml())
    assert folder.recipe == recipe()


def test_the_status_is_new_until_it_is_set(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.status == "new"
    folder.set_status("interrupted", epoch=3)
    assert folder.status == "interrupted"
    state = read_json(folder.path / "state.json")
    assert (state["pid"], state["epoch"]) == (os.getpid(), 3)


def test_where_the_record_of_the_status_is_damaged_the_other_files_tell(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.set_status("running")
    (folder.path / "state.json").write_text("{")
    assert folder.status == "new"
    write_text(folder.checkpoint, "")
    assert folder.status == "interrupted"
    write_text(folder.results, "{}")
    assert folder.status == "finished"


def test_the_log_grows_by_a_line_with_the_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log("begin")
    folder.log("end")
    first, second = (tmp_path / "log.txt").read_text().splitlines()
    assert first.endswith(" begin") and second.endswith(" end")
    assert first[:4].isdigit()


HOLD = """
import sys, time
from pathlib import Path
from thawlab.run import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_run_is_held_by_one_process_and_the_other_is_told_which(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ThawlabError) as error, folder.locked():
            pass
        assert f"is being trained by process {other.pid} on {os.uname().nodename}" in str(error.value)
        other.stdin.write("\n")
        other.stdin.flush()
        other.wait(20)
    with folder.locked():
        assert (folder.path / ".owner").read_text().startswith(f"process {os.getpid()} ")


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        other.kill()
        other.wait(20)
    with folder.locked():
        pass


def test_a_file_in_the_way_of_a_run_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(ThawlabError, match="cannot be written"), RunFolder(tmp_path / "runs" / "one").locked():
        pass


def test_the_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyError), folder.locked():
        raise KeyError
    with folder.locked():
        pass


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("cats-0123456789ab", "dogs-aaaaaaaaaaaa", "dogs-bbbbbbbbbbbb"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "recipe.toml").write_text("")
    (tmp_path / "runs" / "no-run").mkdir()
    return tmp_path / "runs"


@pytest.mark.parametrize("name", ["cats-0123456789ab", "cats", "cats-01"])
def test_a_run_is_found_by_its_name_or_the_beginning_that_is_its_own(name: str, runs: Path) -> None:
    assert find_run(name, runs) == RunFolder(runs / "cats-0123456789ab")


@pytest.mark.parametrize("name", ["rates/lr-0123456789ab", "rates/lr"])
def test_a_run_of_a_study_is_found_by_both_names(name: str, runs: Path) -> None:
    (runs / "rates" / "lr-0123456789ab").mkdir(parents=True)
    (runs / "rates" / "lr-0123456789ab" / "recipe.toml").write_text("")
    (runs / "rates" / "study.json").write_text("{}")
    assert find_run(name, runs) == RunFolder(runs / "rates" / "lr-0123456789ab")
    with pytest.raises(UsageError, match=r"no run 'rates/rl-0123456789ab' in .* \(did you mean 'rates/lr-0123456789ab'\?\)"):
        find_run("rates/rl-0123456789ab", runs)


def test_a_run_is_found_by_its_path(runs: Path) -> None:
    path = runs / "cats-0123456789ab"
    assert find_run(str(path), Path("elsewhere")) == RunFolder(path)


def test_a_beginning_that_fits_several_runs_names_them(runs: Path) -> None:
    with pytest.raises(UsageError, match="'dogs' may be any of dogs-aaaaaaaaaaaa, dogs-bbbbbbbbbbbb; name one of them in full"):
        find_run("dogs", runs)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cast-0123456789ab", "(did you mean 'cats-0123456789ab'?)"),
        ("dogs-aaaaaaaaaaab", "(did you mean 'dogs-aaaaaaaaaaaa'?)"),
        ("zzz", "(there are: cats-0123456789ab, dogs-aaaaaaaaaaaa, dogs-bbbbbbbbbbbb)"),
    ],
)
def test_a_wrong_name_gives_the_nearest_run(name: str, expected: str, runs: Path) -> None:
    with pytest.raises(UsageError) as error:
        find_run(name, runs)
    assert f"there is no run '{name}' in {runs}" in str(error.value) and expected in str(error.value)


def test_a_folder_that_is_no_run_is_named(runs: Path) -> None:
    with pytest.raises(UsageError, match=r"this folder is not a run \(it has neither recipe\.toml nor imported\.json\)"):
        find_run(str(runs / "no-run"), runs)


def test_no_runs_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it is empty"):
        find_run("cats", tmp_path / "runs")


def test_a_folder_is_known_by_fixed_names(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    files = [folder.recipe_file, folder.metrics, folder.results, folder.report, folder.checkpoint, folder.model]
    names = [file.relative_to(tmp_path).as_posix() for file in [*files, folder.predictions("val")]]
    assert names == [
        "recipe.toml",
        "metrics.jsonl",
        "results.json",
        "report.html",
        "checkpoints/last.pt",
        "model",
        "predictions/val.npz",
    ]
    assert folder.name == tmp_path.name
