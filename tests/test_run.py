from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from thawlab.errors import ThawlabError, UsageError
from thawlab.files import read_json, write_atomically, write_json, write_text
from thawlab.recipe import Recipe
from thawlab.run import RunFolder, find_run, run_folder


def full_disk(*_arguments: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_written_file_holds_the_content_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "er" / "a.txt", "grün\n")
    assert (tmp_path / "deep" / "er" / "a.txt").read_bytes() == "grün\n".encode()
    assert names_in(tmp_path / "deep" / "er") == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_version_and_no_litter(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.json"
    write_text(file, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os if call == "fsync" else Path, call, full_disk)
        with pytest.raises(ThawlabError) as error:
            write_text(file, "new")
    assert str(error.value) == f"{file}: cannot be written: No space left on device; the version before it is untouched"
    assert error.value.exit_code == 1
    assert file.read_text() == "old"
    assert names_in(tmp_path) == ["results.json"]


def test_a_disk_that_fills_up_in_the_middle_of_a_write_leaves_the_old_version(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    file.write_text("old")

    def write(target: BinaryIO) -> None:
        target.write(b"half of the new")
        target.flush()
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"the other half")

    with pytest.raises(ThawlabError, match="No space left on device"):
        write_atomically(file, write)
    assert file.read_text() == "old" and names_in(tmp_path) == ["last.pt"]


def test_an_interruption_in_the_middle_of_a_write_leaves_the_old_version_and_no_litter(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    file.write_text("old")

    def write(target: BinaryIO) -> None:
        target.write(b"half of the new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, write)
    assert file.read_text() == "old" and names_in(tmp_path) == ["last.pt"]


def test_the_content_is_on_the_disk_before_the_name_leads_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.txt"
    events: list[str] = []
    sync, rename = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        events.append("sync folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "sync file")  # noqa: PTH112
        sync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_text(file, "content")
    assert events == ["sync file", "rename", "sync folder"]


def test_a_file_in_the_way_of_a_folder_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(ThawlabError, match=r"cannot be written: (File exists|Not a directory)"):
        write_text(tmp_path / "runs" / "a.txt", "")
    with pytest.raises(ThawlabError, match="cannot be written"), RunFolder(tmp_path / "runs" / "one").locked():
        pass


def test_json_comes_back_as_it_went_and_is_readable_by_people(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": {"class": "Äpfel"}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Äpfel" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_refuses_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b'{"a": ', "cannot be read"), (b"", "cannot be read"), (b"\xff\xfe{}", "cannot be read"), (b"[1]", "is not a JSON object")],
)
def test_damaged_json_is_named(content: bytes, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_bytes(content)
    with pytest.raises(ThawlabError) as error:
        read_json(file)
    assert str(error.value).startswith(f"{file}: {expected}") and "\n" not in str(error.value)


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(ThawlabError, match=r"results\.json: is missing from the run"):
        read_json(tmp_path / "results.json")


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
        assert (folder.path / ".lock").read_text().startswith(f"process {os.getpid()} ")


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
    with pytest.raises(UsageError, match=r"this folder is not a run \(it has no recipe\.toml\)"):
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
