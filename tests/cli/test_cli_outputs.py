"""Files that users name are theirs: nothing is replaced unless they say so, and what is read never; said before the work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from thawlab import api
from thawlab.cli.main import app
from thawlab.errors import Interrupted, ThawlabError

Verb = Callable[..., tuple[int, str]]


@pytest.fixture
def thawlab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verb:
    """Run a verb in this process."""

    def run(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["thawlab", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            app()
        return int(left.value.code or 0), capsys.readouterr().err

    return run


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("work has begun")

    for user in ("data.dataset", "probing.probe", "training.records", "deploy.export.pictures", "studies.estimate"):
        import_module(f"thawlab.{user}")  # now, since one that is first imported meanwhile would keep what fails
    monkeypatch.setattr("thawlab.data.selection.open_data", fail)
    monkeypatch.setattr("thawlab.data.sources.open_source", fail)


@pytest.fixture
def manifest(photos: Path) -> Path:
    file = photos.parent / "photos.csv"
    rows = [f"photos/{path.parent.name}/{path.name},{path.parent.name},someone" for path in sorted(photos.rglob("*.png"))]
    file.write_text("\n".join(["path,label,person", *rows]) + "\n")
    return file


OUTPUTS = [("data", "check", "--write-clean"), ("data", "check", "--page"), ("data", "show", "--sheet")]


def test_a_watched_folder_is_decoded_by_as_many_threads_as_asked_for(
    thawlab: Verb, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "x").mkdir(parents=True)
    shutil.copy(Path(__file__).parents[2] / "recipes" / "cnn5.toml", tmp_path / "runs" / "x" / "recipe.toml")
    asked: list[object] = []
    monkeypatch.setattr("thawlab.api.watch", lambda *_, workers, **__: asked.append(workers) or [])
    run, out = tmp_path / "runs" / "x", tmp_path / "out.jsonl"
    assert thawlab("predict", run, "--watch", photos, "--out", out, "--workers", "3")[0] == 0
    assert asked == [3]


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(("room", "verb", "option"), OUTPUTS)
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_the_manifest_that_is_read_is_never_replaced(
    room: str, verb: str, option: str, force: tuple[str, ...], thawlab: Verb, manifest: Path
) -> None:
    before = manifest.read_bytes()
    link = manifest.with_name("link.csv")
    link.symlink_to(manifest)
    for path in (manifest, link):
        code, said = thawlab(room, verb, manifest, option, path, *force)
        assert code == 2 and "is also read by this command" in said
    assert manifest.read_bytes() == before


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(("room", "verb", "option"), OUTPUTS)
def test_an_image_of_the_source_is_never_replaced(room: str, verb: str, option: str, thawlab: Verb, photos: Path) -> None:
    for path in (photos / "red" / "00.png", photos / "red" / ".." / "red" / "00.png"):
        code, said = thawlab(room, verb, photos, option, path, "--force")
        assert code == 2 and "is also read by this command" in said


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(("room", "verb", "option"), OUTPUTS)
def test_a_file_that_is_there_is_kept(room: str, verb: str, option: str, thawlab: Verb, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "edited.csv"
    file.write_text("mine")
    code, said = thawlab(room, verb, photos, option, file)
    assert (code, file.read_text()) == (2, "mine")
    assert said == f"thawlab: {file}: exists already; choose another name, or add --force to replace it\n"


@pytest.mark.usefixtures("no_work")
def test_two_outputs_have_two_files(thawlab: Verb, photos: Path, tmp_path: Path) -> None:
    code, said = thawlab("data", "check", photos, "--page", tmp_path / "a", "--write-clean", tmp_path / "b" / ".." / "a")
    assert code == 2 and "is the file of both" in said


@pytest.mark.usefixtures("photos")
def test_force_replaces_and_a_home_folder_is_found(thawlab: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sheet.png").write_text("old")
    code, _ = thawlab("data", "show", "~/photos", "--sheet", "~/sheet.png", "--force")
    assert code == 0 and (tmp_path / "sheet.png").stat().st_size > 1000
    assert not Path("~").exists()


def test_explanations_need_a_folder_and_are_refused_before_predicting(
    thawlab: Verb, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "x").mkdir(parents=True)
    shutil.copy(Path(__file__).parents[2] / "recipes" / "cnn5.toml", tmp_path / "runs" / "x" / "recipe.toml")
    monkeypatch.setattr("thawlab.api.prediction.load", lambda *_: pytest.fail("work has begun"))
    image = photos / "red" / "00.png"
    code, said = thawlab("predict", tmp_path / "runs" / "x", image, "--explain", image)
    assert code == 2 and "is a file; explanations need a folder" in said


@pytest.mark.parametrize(
    ("stop", "code", "words"),
    [
        (Interrupted("saved; run the same command to resume", 15), 143, "thawlab: saved; run the same command to resume\n"),
        (KeyboardInterrupt(), 130, ""),
        (ThawlabError("what is wrong"), 1, "thawlab: what is wrong\n"),
    ],
)
def test_exit_codes(stop: BaseException, code: int, words: str, thawlab: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise stop

    monkeypatch.setattr(api, "list_datasets", stopped)
    assert thawlab("datasets") == (code, words)


@pytest.mark.parametrize(
    "arguments", [("evaluate", "x", "--split", "val", "--data", "digits"), ("evaluate", "x", "--split", "vl")]
)
def test_a_split_that_means_nothing_is_refused(arguments: tuple[str, ...], thawlab: Verb, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    shutil.copy(Path(__file__).parents[2] / "recipes" / "cnn5.toml", tmp_path / "x" / "recipe.toml")
    code, said = thawlab(*arguments, "--runs", tmp_path)
    assert code == 2 and ("one of the run's own splits" in said or "there is no split 'vl' (did you mean 'val'?)" in said)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--force", "--out", "x"), "--force does not go with --ray"),
        (("--explain", "x"), "--explain does not go with --ray"),
        ((), "--ray needs --out FOLDER on this machine, for Parquet files"),
        (("--out", "x.csv"), "--ray needs --out FOLDER"),
        (("--out", "s3://bucket/x"), "--ray needs --out FOLDER"),
    ],
)
def test_what_a_cluster_does_not_do_is_refused(arguments: tuple[str, ...], words: str, thawlab: Verb, photos: Path) -> None:
    code, said = thawlab("predict", "x", photos, "--ray", "local", *arguments)
    assert code == 2 and words in said


def test_a_damaged_shard_is_told_after_the_counts(
    thawlab: Verb, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from thawlab.deploy.cluster.predict import Gathered

    done = Gathered(tmp_path / "out", 24, 1, 2, 1, ("a.tar: is damaged after 3 pictures",))
    monkeypatch.setattr(api, "predict_on_ray", lambda *_, **__: done)
    code, said = thawlab("predict", "x", photos, "--ray", "local", "--out", tmp_path / "out")
    assert (code, said) == (1, "thawlab: 1 shards are not as they should be, the first: a.tar: is damaged after 3 pictures\n")
    monkeypatch.setattr(api, "predict_on_ray", lambda *_, **__: done._replace(flaws=()))
    assert thawlab("predict", "x", photos, "--ray", "local", "--out", tmp_path / "out") == (0, "")
