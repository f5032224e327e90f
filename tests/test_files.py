from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from thawlab.errors import UsageError
from thawlab.files import cache_folder, refuse_overwrite, user_path, write_text


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
