"""Tasks of `ordeal.py`: put hostile files wherever the program reads one, and use them as it does."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from hostile_tables import RECORDS
from hostile_weights import payloads
from picture_trials import tried
from source_trials import check_line, opened

from thawlab.data.rowstore import RowStore
from thawlab.data.shared_work import portions
from thawlab.deploy.predictor import Predictor
from thawlab.errors import ThawlabError
from thawlab.evaluation.predictions import load_predictions
from thawlab.models.catalog import resolve_backbone
from thawlab.models.classifier import build_backbone, load_weights
from thawlab.models.keras.imported import read_classifier
from thawlab.models.saved import load_model
from thawlab.report.page import write_report
from thawlab.results import read_results
from thawlab.run import RunFolder
from thawlab.runner import damaged
from thawlab.studies.folder import StudyFolder
from thawlab.training.state import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
[OLD] = (ROOT / "tests" / "fixtures").glob("made-by-0.1.0-*")
_CONFIG = {"architecture": "test_resnet", "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}}


def _run(folder: Path) -> RunFolder:
    shutil.copytree(OLD, folder / OLD.name)
    return RunFolder(folder / OLD.name)


def _local(folder: Path, content: bytes, name: str, config: dict[str, object]) -> None:
    (folder / name).write_bytes(content)
    (folder / "config.json").write_text(json.dumps(config))
    if name != "model.safetensors":
        shutil.copy(OLD / "model" / "model.safetensors", folder / "model.safetensors")
    spec = resolve_backbone(f"local-dir:{folder}")
    load_weights(build_backbone(spec, 32), spec, 32)


def local_weights(folder: Path, content: bytes) -> None:
    _local(folder, content, "model.safetensors", _CONFIG)


def named_checkpoint(folder: Path, content: bytes) -> None:
    """A folder whose description asks for a further file."""
    arguments = {"checkpoint_path": str(folder / "pytorch_model.bin")}
    _local(folder, content, "pytorch_model.bin", {**_CONFIG, "model_args": arguments})


def saved_weights(folder: Path, content: bytes) -> None:
    run = _run(folder)
    (run.path / "model" / "model.safetensors").write_bytes(content)
    load_model(run.path / "model")


def named_in_card(folder: Path, content: bytes) -> None:
    run = _run(folder)
    card = json.loads((run.path / "model" / "model.json").read_text())
    (run.path / "evil.pth").write_bytes(content)
    card.update(architecture="test_resnet", arguments={"checkpoint_path": str(run.path / "evil.pth")})
    (run.path / "model" / "model.json").write_text(json.dumps(card))
    load_model(run.path / "model")


def known_features(folder: Path, content: bytes) -> None:
    run = _run(folder)
    (run.path / "model" / "known.safetensors").write_bytes(content)
    list(Predictor(load_model(run.model)).predict_many([np.zeros((16, 16, 3), np.uint8)]))


def checkpoint(folder: Path, content: bytes) -> None:
    (folder / "last.pt").write_bytes(content)
    load_checkpoint(folder / "last.pt", torch.nn.Linear(2, 2))


def predictions(folder: Path, content: bytes) -> None:
    run = _run(folder)
    run.predictions("test").write_bytes(content)
    load_predictions(run.predictions("test"))
    write_report(run)


def pictures(folder: Path, content: bytes) -> None:
    run = _run(folder)
    run.images.write_bytes(content)
    write_report(run)


def claims(folder: Path, content: bytes) -> None:
    """What another process says that it is computing."""
    store = RowStore(folder / "store", 6, (2,), np.float32)
    claim = folder / "store" / "claim-other-1-2.npy"
    claim.write_bytes(content)
    with FileLock(claim.with_suffix(".lock")):
        for _, rows in portions(store, np.arange(6), 3):
            store.write(rows, np.zeros((len(rows), 2), np.float32))


def rows(folder: Path, content: bytes) -> None:
    store = RowStore(folder / "store", 6, (2,), np.float32)
    store.write(np.arange(6), np.zeros((6, 2), np.float32))
    store.commit(np.arange(6))
    for name in ("rows.bin", "marks.bin"):
        (folder / "store" / name).write_bytes(content)
        again = RowStore(folder / "store", 6, (2,), np.float32)
        assert again.array().shape == (6, 2) and len(again.missing(np.arange(6))) <= 6


def keras(folder: Path, content: bytes) -> None:
    (folder / "model.h5").write_bytes(content)
    read_classifier(folder / "model.h5")


def picture(_: Path, content: bytes) -> None:
    if tried(content) == "refused":
        raise ThawlabError("refused")


def source(folder: Path, content: bytes) -> None:
    for name in ("data.zip", "data.tar", "data.tar.gz", "data.parquet", "data.csv", "data.npz", "data.pkl"):
        (folder / name).write_bytes(content)
        outcome = opened(folder / name)
        (folder / name).unlink()
        assert outcome == "refused", name
    raise ThawlabError("refused")


def downloads(folder: Path, content: bytes) -> None:
    """What stands in for data sets that torchvision keeps as pickles and tensors."""
    from torchvision import datasets

    for place in ("FashionMNIST/processed/training.pt", "FashionMNIST/processed/test.pt", "cifar-10-batches-py/data_batch_1"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
    datasets.FashionMNIST.mirrors, datasets.CIFAR10.url = ["http://127.0.0.1:9/"], "http://127.0.0.1:9/"
    from thawlab.data.sources import open_source

    for name in ("fashion-mnist", "cifar10"):
        try:
            open_source(name, str(folder))
        except ThawlabError as error:
            check_line(str(error))
        else:
            raise AssertionError(f"{name} was read")
    raise ThawlabError("refused")


_PLACES = (local_weights, named_checkpoint, saved_weights, named_in_card, known_features, checkpoint, predictions, pictures)
_MORE = (claims, rows, keras, picture, source, downloads)
PLACES: dict[str, Callable[[Path, bytes], None]] = {place.__name__: place for place in (*_PLACES, *_MORE)}


def weights(place: str) -> Callable[[int], str]:
    """Return the task for one place, or for all where none is named: payload after payload; no canary may be there after one."""
    home = Path(tempfile.mkdtemp(dir=Path.cwd()))
    canary = home / "canary"
    files = list(payloads(canary).values())
    places = [PLACES[place]] if place else list(PLACES.values())

    def task(number: int) -> str:
        use, content = places[number // len(files)], files[number % len(files)]
        with tempfile.TemporaryDirectory(dir=home) as folder:
            try:
                use(Path(folder), content)
                outcome = "read"
            except ThawlabError as error:
                check_line(str(error))
                outcome = "refused"
        if canary.exists():
            raise AssertionError("it was executed")
        return outcome

    return task


RECORD_PLACES: dict[str, tuple[str, Callable[[RunFolder], object]]] = {
    "results": ("results.json", lambda run: read_results(run.results)),
    "results of a report": ("results.json", write_report),
    "data": ("data.json", write_report),
    "state": ("state.json", lambda run: (run.status, damaged(run))),
    "model card": ("model/model.json", lambda run: load_model(run.path / "model")),
    "rows": ("metrics.jsonl", write_report),
    "environment": ("environment.json", write_report),
    "recipe": ("recipe.toml", lambda run: run.recipe),
    "study": ("study.json", lambda run: StudyFolder(run.path).read()),
    "backbone": ("config.json", lambda run: resolve_backbone(f"local-dir:{run.path}")),
}


def records(place: str) -> Callable[[int], str]:
    """Return the task for one place of a record in JSON, or for all where none is named."""
    places = [RECORD_PLACES[place]] if place else list(RECORD_PLACES.values())
    files = list(RECORDS.values())

    def task(number: int) -> str:
        name, use = places[number // len(files)]
        with tempfile.TemporaryDirectory() as folder:
            run = _run(Path(folder))
            (run.path / name).write_bytes(files[number % len(files)]())
            try:
                use(run)
            except ThawlabError as error:
                check_line(str(error))
                return "refused"
        return "read"

    return task
