from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from thawlab.errors import ThawlabError, UsageError
from thawlab.files import (
    cache_folder,
    cache_root,
    found_path,
    read_json,
    refuse_overwrite,
    user_path,
    write_atomically,
    write_json,
    write_text,
)


def full_disk(*_arguments: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_path_as_the_user_writes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", "/data")
    assert user_path("~/photos") == tmp_path / "photos"
    assert user_path("$DATA/photos") == user_path("${DATA}/photos") == Path("/data/photos")
    assert user_path("photos/~") == Path("photos/~") and user_path("$absent/a") == Path("$absent/a")
    assert user_path("~nobody-here/a") == Path("~nobody-here/a")


def test_every_cache_is_under_the_chosen_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("~/x", "decoded") == tmp_path / "x" / "decoded"
    monkeypatch.setenv("THAWLAB_CACHE", "~/y")
    assert cache_folder(None, "features") == tmp_path / "y" / "features"


def test_a_users_file_is_replaced_only_when_allowed(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    refuse_overwrite(file, force=False)
    file.write_text("mine")
    with pytest.raises(UsageError) as error:
        refuse_overwrite(file, force=False)
    assert str(error.value) == f"{file}: exists already; choose another name, or add --force to replace it"
    refuse_overwrite(file, force=True, inputs=[tmp_path / "other.csv"])


def test_a_link_that_leads_nowhere_exists_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UsageError, match="--force"):
        refuse_overwrite(tmp_path / "link", force=False)


@pytest.mark.parametrize("spelling", ["photos.csv", "./photos.csv", "linked.csv", "hard.csv"])
def test_what_is_read_is_never_replaced(spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = Path("photos.csv")
    source.write_text("path,label\n")
    Path("linked.csv").symlink_to(source)
    Path("hard.csv").hardlink_to(source)
    with pytest.raises(UsageError, match="is also read by this command"):
        refuse_overwrite(Path(spelling), force=True, inputs=[tmp_path / "photos.csv"])


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


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
    with pytest.raises(ThawlabError, match=r"results\.json: is missing; finish the training"):
        read_json(tmp_path / "results.json")


def test_without_a_home_the_cache_lies_in_the_folder_of_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("THAWLAB_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user whom the system does not know
    assert cache_root() == Path(tempfile.gettempdir()) / f"thawlab-{os.getuid()}"
    monkeypatch.setenv("XDG_CACHE_HOME", "$SOMEWHERE/cache")
    monkeypatch.setenv("SOMEWHERE", "/tmp/x")
    assert cache_root() == Path("/tmp/x/cache/thawlab")


def test_torchs_own_error_of_a_full_disk_is_one_line_and_the_version_before_stays(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    file.write_bytes(b"before")

    def fail(_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nmore")

    with pytest.raises(ThawlabError) as error:
        write_atomically(file, fail)
    assert str(error.value) == (
        f"{file}: cannot be written: PytorchStreamWriter failed writing file data/0: file write failed; the version before it is "
        "untouched"
    )
    assert file.read_bytes() == b"before" and list(tmp_path.iterdir()) == [file]

    def other(_: object) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        write_atomically(file, other)


def test_relative_paths_are_looked_for_here_and_then_beside_the_recipe_and_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project" / "photos").mkdir(parents=True)
    (tmp_path / "project" / "runs" / "a").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = str(tmp_path / "project" / "runs" / "a")
    assert found_path("photos") == Path("photos")
    assert found_path("photos", [run]) == tmp_path / "project" / "photos"
    assert found_path("nowhere", [run]) == Path("nowhere")
    (tmp_path / "here" / "photos").mkdir()
    assert found_path("photos", [run]) == Path("photos")
    monkeypatch.setenv("PLACE", str(tmp_path))
    assert found_path("$PLACE/project", [run]) == tmp_path / "project"


def test_a_folder_of_the_same_name_far_above_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    far = tmp_path / "a" / "b" / "c" / "runs" / "run"
    far.mkdir(parents=True)
    assert found_path("photos", [str(far)]) == Path("photos")
