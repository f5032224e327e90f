"""Whatever a finished run loses comes back from its checkpoint or its model, the same bit for bit; nothing is trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from thawlab.errors import ThawlabError
from thawlab.evaluation.predictions import load_predictions
from thawlab.recipe import Recipe
from thawlab.report.page import write_report
from thawlab.results import read_results, read_rows
from thawlab.run import RunFolder
from thawlab.runner import damaged, repair, train
from thawlab.training import fit

Make = Callable[..., Recipe]
FILES = [
    "results.json",
    "state.json",
    "data.json",
    "environment.json",
    "metrics.jsonl",
    "predictions/pictures.npz",
    "predictions/test.npz",
    "predictions/val.npz",
    "model/model.json",
    "model/model.safetensors",
    "model/known.safetensors",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    from thawlab.recipe import parse_recipe

    table = {
        "name": "small",
        "data": {"source": "shapes:200x16", "image_size": 16},
        "model": {"backbone": "bundled"},
        "system": {"threads": 1, "cache_dir": str(tmp_path_factory.mktemp("cache"))},
        "phases": [
            {"name": "head", "train": "head", "epochs": 2, "lr": 0.01, "batch_size": 32},
            {"name": "all", "train": "all", "epochs": 1, "lr": 1e-3, "batch_size": 32},
        ],
    }
    return train(parse_recipe(table), tmp_path_factory.mktemp("runs"))


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make sure that nothing is trained."""

    def refuse(*_arguments: object) -> None:
        raise AssertionError("a repair must not train")

    monkeypatch.setattr(fit, "train_phase", refuse)


def _copy(folder: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(folder.path, tmp_path / folder.path.name)
    return RunFolder(tmp_path / folder.path.name)


def _same(one: RunFolder, two: RunFolder) -> None:
    first, second = read_results(one.results), read_results(two.results)
    assert first.model_copy(update={"seconds": {}}) == second.model_copy(update={"seconds": {}})
    assert read_rows(one.metrics) == read_rows(two.metrics)
    for split in ("val", "test"):
        assert np.array_equal(load_predictions(one.predictions(split)).logits, load_predictions(two.predictions(split)).logits)
    assert (one.model / "model.safetensors").read_bytes() == (two.model / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("file", "harm"),
    [
        *((file, "damaged") for file in FILES),
        *((file, "lost") for file in FILES if file.split("/")[0] in {"state.json", "model"}),
    ],
)
def test_a_file_that_is_lost_or_damaged_comes_back(finished: RunFolder, tmp_path: Path, file: str, harm: str) -> None:
    folder = _copy(finished, tmp_path)
    if harm == "lost":
        (folder.path / file).unlink()
    else:
        (folder.path / file).write_bytes(b'{"half": ')
    repair(folder)
    assert damaged(folder) == "" and folder.status == "finished"
    _same(finished, folder)
    write_report(folder)


@pytest.mark.usefixtures("untrained")
def test_without_its_checkpoint_a_run_is_judged_from_its_model(finished: RunFolder, tmp_path: Path) -> None:
    folder = _copy(finished, tmp_path)
    folder.checkpoint.unlink()
    folder.predictions("test").unlink()
    repair(folder)
    _same(finished, folder)
    folder.checkpoint.write_bytes(b"not a checkpoint")
    folder.images.unlink()
    repair(folder)
    _same(finished, folder)


@pytest.mark.usefixtures("untrained")
def test_epochs_that_the_metric_rows_lack_come_back(finished: RunFolder, tmp_path: Path) -> None:
    folder = _copy(finished, tmp_path)
    folder.metrics.write_text("".join(folder.metrics.read_text().splitlines(keepends=True)[:-1]))
    assert "holds 2 of 3 epochs" in damaged(folder)
    repair(folder)
    _same(finished, folder)


@pytest.mark.usefixtures("untrained")
def test_training_a_damaged_run_again_repairs_it(finished: RunFolder, tmp_path: Path) -> None:
    folder = _copy(finished, tmp_path)
    folder.results.write_text("{")
    again = train(folder.recipe, tmp_path)
    assert again.path == folder.path
    _same(finished, folder)


@pytest.mark.usefixtures("untrained")
def test_what_cannot_be_repaired_is_said_and_left_as_it_is(finished: RunFolder, tmp_path: Path) -> None:
    folder = _copy(finished, tmp_path)
    folder.checkpoint.unlink()
    folder.results.write_text("{")
    with pytest.raises(ThawlabError, match=r"results\.json"):
        repair(folder)
    assert folder.results.read_text() == "{" and folder.status == "finished"
    shutil.rmtree(folder.model)
    with pytest.raises(ThawlabError, match="neither a checkpoint nor a model"):
        repair(folder)


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("file", ["results.json", "model/model.json"])
def test_what_another_version_wrote_is_not_written_over(finished: RunFolder, tmp_path: Path, file: str) -> None:
    folder = _copy(finished, tmp_path)
    newer = (folder.path / file).read_text().replace('"schema": 1', '"schema": 9')
    (folder.path / file).write_text(newer)
    for attempt in (lambda: repair(folder), lambda: train(folder.recipe, tmp_path)):
        with pytest.raises(ThawlabError, match="has schema 9"):
            attempt()
    assert (folder.path / file).read_text() == newer


def test_an_unfinished_run_is_resumed_and_not_repaired(finished: RunFolder, tmp_path: Path) -> None:
    folder = _copy(finished, tmp_path)
    folder.set_status("interrupted")
    with pytest.raises(ThawlabError, match="not finished"):
        repair(folder)
