from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from thawlab.cli.main import app


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, path in enumerate(("seg_train/cat", "seg_train/dog", "seg_test/cat", "seg_test/dog", "seg_pred")):
        (tmp_path / "pets" / path).mkdir(parents=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "pets" / path / "1.png")
    (tmp_path / "pets" / "seg_train" / "cat" / "2.nef").write_bytes(b"raw")
    return tmp_path / "pets"


@pytest.mark.usefixtures("pets")
def test_a_look_says_how_the_source_was_understood_and_what_was_left_out() -> None:
    shown = invoke("data", "show", "pets").stdout
    assert "pets: 4 images, 2 classes" in shown
    assert "read as split/class; if that is wrong, say what each level of folders is, e.g. data.layout=" in shown
    assert "left out: 1 (lies beside the folders of the splits), the first is seg_pred/1.png" in shown
    assert "left out: 1 (is a camera's raw file; save it as PNG or JPEG), the first is seg_train/cat/2.nef" in shown


@pytest.mark.usefixtures("pets")
def test_the_owner_has_the_last_word() -> None:
    shown = invoke("data", "show", "pets", "data.layout=class").stdout
    assert "3 classes" in shown and "seg_pred" in shown


@pytest.mark.usefixtures("pets")
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("data.layot=class", "layot is not a key (did you mean 'layout'?)"),
        ("model.backbone=cnn5", "model.backbone: data show takes settings of the data only"),
        ("data.layout=clas", "must give the role of each level of folders"),
        ("data.path_column=x", "data.path_column: has no effect on folders of images; leave it out"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, words: str) -> None:
    done = invoke("data", "show", "pets", setting)
    assert done.exit_code == 2 and words in done.output
