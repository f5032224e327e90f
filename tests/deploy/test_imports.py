"""Classifiers of Keras as runs, through the command line's verbs and the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import thawlab
from thawlab.cli.main import app
from thawlab.errors import ThawlabError, UsageError

pytest.importorskip("h5py")
OLD = Path(__file__).parents[1] / "fixtures" / "keras2"


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(OLD / "expected.npz") as held:
        return dict(held)


@pytest.fixture
def photos(tmp_path: Path, expected: dict[str, np.ndarray]) -> Path:
    """Pictures in a folder per class."""
    for number, image in enumerate(expected["images"].astype(np.uint8)):
        folder = tmp_path / "photos" / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    return tmp_path / "photos"


def test_an_imported_classifier_predicts_what_keras_predicted(
    tmp_path: Path, photos: Path, expected: dict[str, np.ndarray]
) -> None:
    run = thawlab.import_model(OLD / "nested.h5", classes=["a", "b", "c"], runs=tmp_path / "runs")
    predictor = thawlab.load(run)
    found = [predictor.predict(image) for image in expected["images"].astype(np.uint8)]
    table = np.array([[dict(zip(p.classes, p.probabilities, strict=True))[name] for name in "abc"] for p in found])
    np.testing.assert_allclose(table, expected["nested"], atol=1e-5)
    assert thawlab.evaluate(run, source=photos).measured.n == 4
    assert repr(run).endswith("imported)")
    assert run.imported["scaling"] == "raw"


def test_the_same_file_is_the_same_run_and_other_names_are_another(tmp_path: Path) -> None:
    first, second = (thawlab.import_model(OLD / "nested.h5", runs=tmp_path) for _ in range(2))
    other = thawlab.import_model(OLD / "nested.h5", classes=["x", "y", "z"], runs=tmp_path)
    assert first.path == second.path != other.path
    assert thawlab.load(first).classes == ("0", "1", "2")


def test_one_sigmoid_unit_is_two_classes(tmp_path: Path, expected: dict[str, np.ndarray]) -> None:
    run = thawlab.import_model(OLD / "chain.h5", classes=["no", "yes"], name="binary", runs=tmp_path)
    assert run.path.name.startswith("binary-")
    answer = thawlab.load(run).predict(expected["images"][0].astype(np.uint8))
    assert dict(zip(answer.classes, answer.probabilities, strict=True))["yes"] == pytest.approx(expected["chain"][0, 0], abs=1e-5)


def test_what_needs_a_training_is_refused(tmp_path: Path) -> None:
    run = thawlab.import_model(OLD / "nested.h5", runs=tmp_path)
    for ask in (run.report, lambda: run.results, lambda: run.recipe, lambda: thawlab.evaluate(run), lambda: thawlab.export(run)):
        with pytest.raises(ThawlabError, match="was imported"):
            ask()


def test_an_imported_classifier_is_exported_when_pictures_are_given(tmp_path: Path, photos: Path) -> None:
    run = thawlab.import_model(OLD / "nested.h5", classes=["a", "b", "c"], runs=tmp_path / "runs")
    [exported] = thawlab.export(run, ["keras"], source=photos)
    assert exported.parity["agreement"] == 1.0
    card = (exported.folder / "README.md").read_text(encoding="utf-8")
    assert "Imported from nested.h5" in card
    assert "Not measured here" in card
    again = thawlab.import_model(exported.folder / "model.keras", classes=["a", "b", "c"], runs=tmp_path / "runs")
    image = photos / "a" / "0.png"
    one, two = (thawlab.load(each).predict(image) for each in (run, again))
    np.testing.assert_allclose(one.probabilities, two.probabilities, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["lambda.h5"], 2, "of the class Lambda"),
        (["absent.h5"], 2, "no such file"),
        (["nested.h5", "--classes", "a,b"], 2, "has 3 classes, and 2 names were given"),
        (["nested.h5", "--classes", "a,b,b"], 2, "has 3 classes, and 2 names were given"),
        (["nested.h5", "--scaling", "loud"], 2, "--scaling loud: is none of raw"),
        (["expected.npz"], 2, "no model of Keras"),
        (["nested.h5", "--name", "../elsewhere"], 2, "--name ../elsewhere: takes letters"),
    ],
)
def test_wrong_usage_is_one_line_and_leaves_nothing(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    file, *rest = arguments
    result = CliRunner().invoke(app, ["import", str(OLD / file), *rest, "--runs", str(tmp_path / "runs")])
    assert result.exit_code == code
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_names_come_from_a_list_a_file_or_a_folder(tmp_path: Path, photos: Path) -> None:
    listed = tmp_path / "names.txt"
    listed.write_text("a\nb\n\nc\n", encoding="utf-8")
    folders = set()
    for names in ("a,b,c", str(listed), str(photos)):
        result = CliRunner().invoke(
            app, ["import", str(OLD / "nested.h5"), "--classes", names, "--runs", str(tmp_path / "runs"), "--json"]
        )
        assert result.exit_code == 0, result.output
        folders |= {entry.name for entry in (tmp_path / "runs").iterdir()}
    assert len(folders) == 1


def test_a_backbone_of_keras_is_trained_on(tmp_path: Path) -> None:
    run: Any = thawlab.train(
        "shapes:200x16",
        runs=tmp_path,
        backbone=f"keras:{OLD / 'nested.h5'}",
        size=16,
        **{"phases.0.epochs": 1, "phases.1.epochs": 1, "phases.1.train": "stages:1"},
    )
    assert run.results.test.n == 40
    assert run.path.name.startswith("shapes-nested-")
    assert thawlab.load(run).predict(np.zeros((16, 16, 3), np.uint8)).classes
    with pytest.raises(UsageError, match=r"model.backbone: .*no such file"):
        thawlab.train("shapes:200x16", runs=tmp_path, backbone="keras:absent.h5")


def test_a_damaged_record_is_named_and_restored_by_importing_again(tmp_path: Path) -> None:
    run = thawlab.import_model(OLD / "nested.h5", runs=tmp_path)
    held = run.folder.imported.read_bytes()
    run.folder.imported.write_text("{", encoding="utf-8")
    with pytest.raises(ThawlabError, match=r"imported.json: is damaged; import the file again"):
        _ = run.imported
    assert thawlab.import_model(OLD / "nested.h5", runs=tmp_path).folder.imported.read_bytes() == held


def test_8_bits_are_not_judged_on_classes_that_the_classifier_lacks(tmp_path: Path, photos: Path) -> None:
    pytest.importorskip("onnxruntime")
    run = thawlab.import_model(OLD / "nested.h5", classes=["a", "b", "x"], runs=tmp_path / "runs")
    with pytest.raises(UsageError, match=r"holds classes that the classifier lacks"):
        thawlab.export(run, ["onnx-int8"], source=photos)
