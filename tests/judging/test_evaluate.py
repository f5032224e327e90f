from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from thawlab.data.preprocessing import to_tensor
from thawlab.errors import ThawlabError, UsageError
from thawlab.evaluation.predictions import load_predictions
from thawlab.files import read_json
from thawlab.judging.evaluate import Evaluated, evaluate
from thawlab.models.saved import load_model
from thawlab.recipe import parse_recipe
from thawlab.results import read_results
from thawlab.run import RunFolder
from thawlab.runner import train

COLOURS = {"blue": (30, 30, 200), "green": (30, 170, 30), "red": (200, 30, 30)}


def _draw(root: Path, classes: list[str], count: int, seed: int = 0) -> Path:
    """Write noisy images of several sizes, a folder per class."""
    rng = np.random.default_rng(seed)
    for label in classes:
        (root / label).mkdir(parents=True)
        for index in range(count):
            height, width = rng.integers(20, 40, 2)
            pixels = np.clip(np.array(COLOURS.get(label, (90, 90, 90))) + rng.normal(0, 90, (height, width, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{index:02d}.png")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("evaluate")
    recipe = parse_recipe(
        {
            "data": {"source": str(_draw(root / "photos", list(COLOURS), 30)), "image_size": 16, "val": 0.2, "test": 0.3},
            "model": {"backbone": "speednet", "head": [16], "dropout": [0.2]},
            "phases": [{"train": "all", "epochs": 3, "batch_size": 16, "lr": 0.003}],
            "system": {"threads": 2, "cache_dir": str(root / "cache"), "device": "cpu"},
        }
    )
    return train(recipe, root / "runs")


@pytest.fixture
def copy(trained: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the run that a test may damage."""
    shutil.copytree(trained.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def _recorded(folder: RunFolder, split: str = "test") -> dict[str, Any]:
    recorded: dict[str, Any] = read_json(folder.results)[split]
    return recorded


def _measured(result: Evaluated) -> dict[str, Any]:
    return {key: value for key, value in result.as_json().items() if key not in {"split", "source"}}


def test_the_classifier_has_learned_so_that_the_tests_below_can_fail(trained: RunFolder) -> None:
    assert read_results(trained.results).test.accuracy > 0.8


def test_the_test_numbers_come_back_exactly(trained: RunFolder) -> None:
    result = evaluate(trained)
    assert (result.split, result.source) == ("test", trained.recipe.data.source)
    assert (result.as_json()["split"], result.as_json()["source"]) == (result.split, result.source)
    assert result.measured == read_results(trained.results).test
    assert _measured(result) == _recorded(trained)


def test_the_test_numbers_come_back_exactly_in_a_new_process_from_the_files_alone(copy: RunFolder) -> None:
    shutil.rmtree(copy.path / "checkpoints")
    shutil.rmtree(copy.path / "predictions")
    (copy.path / "metrics.jsonl").unlink()
    code = (
        "import json, sys; from pathlib import Path; from thawlab.run import RunFolder;"
        "from thawlab.judging.evaluate import evaluate; print(json.dumps(evaluate(RunFolder(Path(sys.argv[1]))).as_json()))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(copy.path)], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert (result.pop("split"), result.pop("source")) == ("test", copy.recipe.data.source)
    assert result == _recorded(copy)


def test_the_test_numbers_of_a_head_trained_on_cached_features_come_back_exactly(trained: RunFolder, tmp_path: Path) -> None:
    changes = {
        "model": {"backbone": "bundled"},
        "phases": [{"train": "head", "epochs": 3, "batch_size": 16, "lr": 0.01}],
        "system": {"threads": 2, "cache_dir": str(tmp_path / "cache"), "device": "cpu"},
        "data": trained.recipe.data.model_dump(mode="json", exclude_none=True),
    }
    run = train(parse_recipe(changes), tmp_path / "runs")
    assert _measured(evaluate(run)) == _recorded(run)


def test_the_val_numbers_come_back_exactly(trained: RunFolder) -> None:
    result, recorded = _measured(evaluate(trained, "val")), _recorded(trained, "val")
    assert {key: result[key] for key in recorded} == recorded
    assert result["n"] == len(load_predictions(trained.predictions("val")).labels) > 0


def test_the_saved_logits_are_those_of_the_saved_model(trained: RunFolder) -> None:
    table = load_predictions(trained.predictions("test"))
    saved = load_model(trained.model)
    source = Path(trained.recipe.data.source)
    rows = [saved.card.preprocessing.fit(Image.open(source / name).convert("RGB")) for name in table.ids]
    plain = saved.classifier(saved.card.preprocessing.normalize(to_tensor(np.stack(rows)))).detach().numpy()
    assert np.allclose(plain, table.logits, atol=1e-5)


def test_an_unknown_split_is_a_usage_error(trained: RunFolder) -> None:
    with pytest.raises(UsageError, match=r"there is no split 'tset' \(did you mean 'test'\?\)"):
        evaluate(trained, "tset")


def test_other_images_are_judged_on_all_of_them_where_they_have_no_test_split(trained: RunFolder, tmp_path: Path) -> None:
    source = _draw(tmp_path / "other", ["blue", "green", "red"], 7, seed=9)
    result = evaluate(trained, source=str(source))
    assert (result.measured.n, result.split, result.source) == (21, "all", str(source))
    assert [row.n for row in result.measured.per_class] == [7, 7, 7]


def test_other_images_are_judged_on_their_test_split_where_they_have_one(trained: RunFolder, tmp_path: Path) -> None:
    _draw(tmp_path / "other" / "train", ["blue", "green", "red"], 4)
    _draw(tmp_path / "other" / "test", ["blue", "green", "red"], 2)
    assert evaluate(trained, source=str(tmp_path / "other")).measured.n == 6


def test_classes_of_other_images_are_matched_by_name_whatever_their_order(trained: RunFolder, tmp_path: Path) -> None:
    folder = _draw(tmp_path / "other", list(COLOURS), 10, seed=4)
    names = ["red", "blue", "green"]
    files = sorted(folder.rglob("*.png"))
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    labels = [names.index(file.parent.name) for file in files]
    (tmp_path / "table").mkdir()
    pq.write_table(pa.table({"image": images, "label": labels}, schema=schema), tmp_path / "table" / "test.parquet")
    from_folder = evaluate(trained, source=str(folder)).measured
    from_table = evaluate(trained, source=str(tmp_path / "table")).measured
    assert from_table.accuracy == from_folder.accuracy > 0.8
    assert from_table.confusion == from_folder.confusion


def test_other_images_may_have_fewer_classes(trained: RunFolder, tmp_path: Path) -> None:
    result = evaluate(trained, source=str(_draw(tmp_path / "other", ["green", "red"], 10, seed=5))).measured
    assert [row.n for row in result.per_class] == [0, 10, 10]
    assert result.accuracy > 0.8
    assert result.macro_recall == pytest.approx(result.accuracy)


def test_a_class_that_the_classifier_does_not_know_is_a_usage_error(trained: RunFolder, tmp_path: Path) -> None:
    source = _draw(tmp_path / "other", ["blue", "greeen"], 3)
    with pytest.raises(UsageError, match=r"the classifier has no class 'greeen' \(did you mean 'green'\?\)"):
        evaluate(trained, source=str(source))


def test_changed_data_are_refused(copy: RunFolder, tmp_path: Path) -> None:
    source = shutil.copytree(copy.recipe.data.source, tmp_path / "photos")
    recipe = copy.recipe.model_copy(update={"data": copy.recipe.data.model_copy(update={"source": str(source)})})
    copy.recipe_file.write_text(recipe.to_toml(), encoding="utf-8")
    assert _measured(evaluate(copy)) == _recorded(copy)
    Image.new("RGB", (20, 20)).save(source / "red" / "00.png")
    with pytest.raises(
        ThawlabError, match=r"run: the data have changed since the training \(fingerprint \w{12} then, \w{12} now\)"
    ):
        evaluate(copy)


@pytest.mark.parametrize("missing", ["model/model.safetensors", "model/model.json", "data.json", "recipe.toml"])
def test_a_missing_file_is_named(copy: RunFolder, missing: str) -> None:
    (copy.path / missing).unlink()
    with pytest.raises(ThawlabError, match="is missing") as caught:
        evaluate(copy)
    assert str(copy.path / missing) in str(caught.value)


def test_an_empty_split_is_a_usage_error(copy: RunFolder) -> None:
    recipe = copy.recipe.model_copy(update={"data": copy.recipe.data.model_copy(update={"val": 0.0})})
    copy.recipe_file.write_text(recipe.to_toml(), encoding="utf-8")
    with pytest.raises(UsageError, match="its val split is empty"):
        evaluate(copy, "val")
