from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import thawlab
from thawlab.api import predict_into
from thawlab.deploy.export import export as exporting
from thawlab.deploy.export import standalone
from thawlab.deploy.export.export import export
from thawlab.deploy.export.formats import Exporter, Material, exporters
from thawlab.deploy.predictor import Predictor
from thawlab.environment import has_fast_bfloat16
from thawlab.errors import ThawlabError, UsageError
from thawlab.files import read_json, sha256_of
from thawlab.models.saved import load_model
from thawlab.recipe import parse_recipe
from thawlab.run import RunFolder
from thawlab.runner import train

_VERSION = tuple(int(part) for part in torch.__version__.split(".")[:2])
pytestmark = pytest.mark.skipif(_VERSION < (2, 7), reason="torch 2.6 cannot export these networks; the message says so")


def trained(root: Path, **changes: object) -> RunFolder:
    recipe = parse_recipe(
        {
            "data": {"source": "shapes:400x24", "image_size": 24, **changes.pop("data", {})},  # type: ignore[dict-item]
            "model": {"backbone": "cnn5", **changes},
            "phases": [{"train": "all", "epochs": 2, "batch_size": 16, "lr": 0.003}],
            "system": {"threads": 1, "cache_dir": str(root / "cache"), "device": "cpu"},
        }
    )
    return train(recipe, root / "runs")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def exported(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("exports")
    names = ["onnx", "onnx-int8", "torch"]
    return {name: export(run, name, place / name, run.recipe.system, 0.2).folder for name in names}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("picture") / "tall.jpg"
    drawn = np.random.default_rng(3).integers(0, 256, (9, 5, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(drawn).resize((310, 440)).save(file, exif=exif)
    return file


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_the_script_beside_an_export_says_what_predict_says_without_this_project(
    name: str, exported: dict[str, Path], run: RunFolder, picture: Path
) -> None:
    program = f"import sys; sys.modules['thawlab'] = None; sys.argv = ['', {str(picture)!r}]; import runpy; "
    program += f"runpy.run_path({str(exported[name] / 'predict.py')!r}, run_name='__main__')"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    prediction = Predictor(load_model(run.model)).predict(picture)
    assert said.startswith(f"{picture}: {prediction.classes[0]} {prediction.probabilities[0]:.1%}")
    damaged = picture.with_name("damaged.jpg")
    damaged.write_bytes(picture.read_bytes()[:400])
    failed = subprocess.run(
        [sys.executable, "-c", program.replace(str(picture), str(damaged))], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1 and failed.stderr.startswith(f"{damaged}: cannot be read: ") and failed.stderr.count("\n") == 1
    assert ("unsure" in said or "not like" in said) == bool(prediction.unsure or prediction.novel)


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_a_graph_agrees_alone_and_in_batches(name: str, exported: dict[str, Path], run: RunFolder) -> None:
    predictor = Predictor(load_model(run.model))
    answer, card = standalone.load(exported[name])
    images = np.random.default_rng(0).integers(0, 256, (32, 40, 57, 3), dtype=np.uint8)
    expected = predictor.predict_many(list(images), len(card["classes"]))
    for count in (1, 7, 32):
        outputs = answer(images[:count])
        assert len(outputs["features"]) == len(outputs["probabilities"]) == count
        for row, one, unsure, novel in zip(outputs["probabilities"], expected, outputs["unsure"], outputs["novel"], strict=False):
            assert [card["classes"][k] for k in np.argsort(-row)[:1]] == list(one.classes[:1])
            assert np.abs(np.sort(row)[::-1] - one.probabilities).max() < 1e-4
            assert (bool(unsure), bool(novel)) == (one.unsure, one.novel)


@pytest.fixture(scope="module")
def cropped(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose images lose their edges, with its exports in its folder."""
    place, network = tmp_path_factory.mktemp("cropped"), {"backbone": "timm/mobilenetv2_035", "pretrained": False}
    folder = trained(place, data={"resize": "crop"}, **network)
    for name in ("onnx", "onnx-int8", "torch"):
        export(folder, name, folder.path / "exports" / name, folder.recipe.system, 0.2)
    return folder


@pytest.mark.parametrize(("name", "near"), [("onnx", 1e-4), ("onnx-int8", 0.5)])
def test_predict_computes_with_an_export(name: str, near: float, cropped: RunFolder, picture: Path) -> None:
    rng = np.random.default_rng(5)
    images = [picture, *(rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in rng.integers(3, 90, (36, 2)).tolist())]
    ours = thawlab.load(cropped.path).predict_many(images, 10)
    theirs = thawlab.load(cropped.path, engine=name).predict_many(images, 10)
    scores = [[dict(zip(one.classes, one.probabilities, strict=True)) for one in many] for many in (ours, theirs)]
    assert max(abs(a[key] - b[key]) for a, b in zip(*scores, strict=True) for key in a) < near
    assert scores[0] != scores[1]  # it is the export that computed
    if name == "onnx":
        assert [(one.unsure, one.novel) for one in ours] == [(one.unsure, one.novel) for one in theirs]


@pytest.mark.skipif(not has_fast_bfloat16(torch.device("cpu")), reason="this processor has no products of bfloat16")
def test_predict_rounds_to_bfloat16_once_its_accuracy_was_compared(cropped: RunFolder, picture: Path) -> None:
    place = cropped.path / "exports" / "bfloat16"
    parity = export(cropped, "bfloat16", place, cropped.recipe.system, 0.05).parity
    accuracy = parity["accuracy"]
    assert accuracy["loss"] <= 0.05 and accuracy["n"] > 10 and accuracy["split"] == "val"
    assert (place / "model.safetensors").read_bytes() == (cropped.model / "model.safetensors").read_bytes()
    images = [picture, *np.random.default_rng(6).integers(0, 256, (36, 30, 40, 3), dtype=np.uint8)]
    exact, rough = thawlab.load(cropped.path), thawlab.load(cropped.path, engine="bfloat16")
    ours, theirs = exact.predict_many(images, 10), rough.predict_many(images, 10)
    scores = [[dict(zip(one.classes, one.probabilities, strict=True)) for one in many] for many in (ours, theirs)]
    assert 0 < max(abs(a[key] - b[key]) for a, b in zip(*scores, strict=True) for key in a) < 0.05
    assert all(one.novel is not None and one.unsure is not None for one in theirs)
    assert rough.predict(picture, 10) == theirs[0]
    rough.hurry()
    assert rough.predict(picture, 10) == theirs[0]
    assert rough.explain(picture).shape == exact.explain(picture).shape


def test_bfloat16_that_would_be_imitated_is_refused(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thawlab.deploy.export.export.has_fast_bfloat16", lambda _: False)
    with pytest.raises(UsageError, match="--format bfloat16: this processor has no products of bfloat16, and would imitate"):
        export(run, "bfloat16", tmp_path / "a", run.recipe.system)
    assert not list(tmp_path.iterdir())


def test_an_engine_must_be_an_export_of_these_weights(cropped: RunFolder, run: RunFolder) -> None:
    with pytest.raises(UsageError, match=r"no such export; make it first: thawlab export .* --format onnx$"):
        thawlab.load(run.path, engine="onnx")
    with pytest.raises(UsageError, match=r"not computed with this format; take bfloat16, onnx, onnx-float16, onnx-int8"):
        thawlab.load(cropped.path, engine="torch")
    with pytest.raises(UsageError, match=r"there is no export format named 'onx' \(did you mean 'onnx'"):
        thawlab.load(cropped.path, engine="onx")
    with pytest.raises(UsageError, match="computes on the CPU; leave out --device cuda"):
        thawlab.load(cropped.path, engine="onnx", device="cuda")
    place = cropped.path / "exports" / "onnx"
    content = (place / "model.onnx").read_bytes()
    try:
        (place / "model.onnx").write_bytes(content[:1000])
        with pytest.raises(ThawlabError, match=r"exports/onnx: cannot be read: .*; export it again with --force") as caught:
            thawlab.load(cropped.path, engine="onnx")
        assert "\n" not in str(caught.value)
    finally:
        (place / "model.onnx").write_bytes(content)
    parity = read_json(place / "parity.json")
    try:
        (place / "parity.json").write_text(json.dumps({**parity, "weights_sha256": "0"}))
        with pytest.raises(UsageError, match=r"exports/onnx: was exported from other weights; export it again with --force"):
            thawlab.load(cropped.path, engine="onnx")
        (place / "parity.json").write_text("{")
        with pytest.raises(ThawlabError, match=r"exports/onnx/parity\.json: is damaged; add --force to export again$"):
            thawlab.load(cropped.path, engine="onnx")
    finally:
        (place / "parity.json").write_text(json.dumps(parity))


def test_a_table_begun_by_one_engine_is_not_continued_by_another(cropped: RunFolder, picture: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    predict_into(cropped.path, [picture], table, engine="onnx")
    [row] = list(csv.DictReader(table.open()))
    assert row["source"] == str(picture)
    weights = sha256_of(cropped.model / "model.safetensors")
    for begun, engine in ((weights, "onnx"), (f"{weights} onnx", None)):
        partial = tmp_path / "other.csv.partial"
        partial.write_text(json.dumps({"model": begun, "top_k": 3}) + "\n")
        with pytest.raises(UsageError, match="or with another --top-k or --engine"):
            predict_into(cropped.path, [picture], tmp_path / "other.csv", engine=engine)


def test_what_travels_along(exported: dict[str, Path], run: RunFolder) -> None:
    import onnx

    model = onnx.load(exported["onnx"] / "model.onnx")
    inside = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    card = load_model(run.model).card
    assert tuple(inside["classes"]) == card.classes and inside["thawlab"]["temperature"] == card.temperature
    assert inside["thawlab"] == read_json(exported["onnx"] / "thawlab.json")
    assert [output.name for output in model.graph.output] == ["probabilities", "features", "unsure", "distance", "novel"]
    assert str(Path.home()).encode() not in (exported["onnx"] / "model.onnx").read_bytes()
    text = (exported["onnx"] / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: onnx\npipeline_tag: image-classification\n") and "from scratch" in text


def test_8_bits_are_fewer_and_judged_by_their_accuracy(exported: dict[str, Path], run: RunFolder) -> None:
    import onnx

    small, whole = exported["onnx-int8"] / "model.onnx", exported["onnx"] / "model.onnx"
    assert small.stat().st_size < 0.5 * whole.stat().st_size
    kinds = [node.op_type for node in onnx.load(small).graph.node]
    assert kinds.count("QuantizeLinear") > 0 and kinds.count("DequantizeLinear") >= kinds.count("Conv") > 0
    accuracy = read_json(exported["onnx-int8"] / "parity.json")["accuracy"]
    assert accuracy["n"] == read_json(run.path / "data.json")["n"]["val"]
    assert accuracy["original"] - accuracy["exported"] == pytest.approx(accuracy["loss"]) and accuracy["loss"] <= 0.2


@pytest.mark.slow
def test_half_precision_is_half_the_size_and_keeps_the_classes(exported: dict[str, Path], run: RunFolder, tmp_path: Path) -> None:
    half = export(run, "onnx-float16", tmp_path / "half", run.recipe.system)
    assert half.size < 0.65 * (exported["onnx"] / "model.onnx").stat().st_size
    assert half.parity["n"] == 1000 and half.parity["agreement"] >= 0.999


def test_again_it_is_returned_and_other_things_are_not_replaced(
    exported: dict[str, Path], run: RunFolder, tmp_path: Path
) -> None:
    folder, system = exported["torch"], run.recipe.system
    before = (folder / "model.pt2").stat().st_mtime_ns
    again = export(run, "torch", folder, system)
    assert again.parity["agreement"] == 1.0 and (folder / "model.pt2").stat().st_mtime_ns == before
    kept = (folder / "parity.json").read_text()
    (folder / "parity.json").write_text(kept[:20])
    with pytest.raises(ThawlabError, match=r"parity\.json: is damaged; add --force to export again"):
        export(run, "torch", folder, system)
    (folder / "parity.json").write_text(kept)
    with pytest.raises(UsageError, match="holds an export of other weights or another format"):
        export(run, "onnx", folder, system)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already and is no export"):
        export(run, "torch", tmp_path, system, force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def _empty(_material: Material, folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"x" * 10)


def test_nothing_stays_of_an_export_that_disagrees(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(load_model(run.model).card.classes)
    wrong = Exporter(_empty, lambda _: lambda images: {"probabilities": np.full((len(images), count), 1 / count)})
    monkeypatch.setitem(exporters._entries, "wrong", wrong)
    with pytest.raises(ThawlabError, match="disagrees with the predictor: the same class for"):
        export(run, "wrong", tmp_path / "out" / "wrong", run.recipe.system)
    assert list((tmp_path / "out").iterdir()) == []


def test_faults_are_one_line_and_leave_nothing(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = run.recipe.system
    with pytest.raises(UsageError, match=r"--format: .*'onxn'.* \(did you mean 'onnx'\?\)"):
        export(run, "onxn", tmp_path / "x", system)
    with pytest.raises(UsageError, match="timm has no 'cnn5'; take onnx or torch"):
        export(run, "timm", tmp_path / "x", system)

    def full(_material: Material, folder: Path) -> None:
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setitem(exporters._entries, "full", Exporter(full, lambda _: lambda _images: {}))
    with pytest.raises(ThawlabError, match="cannot be written: No space left on device"):
        export(run, "full", tmp_path / "x", system)
    assert list(tmp_path.iterdir()) == []
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(ThawlabError, match="cannot be written: Permission denied"):
            export(run, "torch", tmp_path / "locked" / "x", system)

    with pytest.raises(ThawlabError, match=r"model\.json: is missing; finish the training"):
        export(RunFolder(tmp_path.parent / "unfinished"), "torch", tmp_path / "x", system)

    def unable(_material: Material, _folder: Path) -> None:
        raise RuntimeError("unsupported operator")

    monkeypatch.setitem(exporters._entries, "unable", Exporter(unable, lambda _: lambda _images: {}))
    with pytest.raises(
        ThawlabError, match=r"torch .* cannot export 'cnn5': unsupported operator; take another format, or a newer"
    ):
        export(run, "unable", tmp_path / "x", system)
    monkeypatch.setattr(exporting, "held_out", lambda *_: None)
    with pytest.raises(UsageError, match="holds no images out, so that no export can be checked"):
        export(run, "torch", tmp_path / "x", system)


def test_8_bits_need_validation_images(tmp_path: Path) -> None:
    run = trained(tmp_path, backbone="cnn5", data={"val": 0.0})
    with pytest.raises(UsageError, match="has no validation images, on which 8 bits are fitted"):
        export(run, "onnx-int8", tmp_path / "x", run.recipe.system)


def test_timm_takes_the_folder_and_its_softmax_is_calibrated(tmp_path: Path) -> None:
    run = trained(tmp_path, backbone="timm/mobilenetv2_035", pretrained=False, data={"image_size": 32})
    done = export(run, "timm", tmp_path / "hub", run.recipe.system)
    network = timm.create_model(f"local-dir:{done.folder}", pretrained=True).eval()
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    saved = load_model(run.model)
    with torch.inference_mode():
        given = network(saved.card.preprocessing.inputs(torch.from_numpy(images))).softmax(dim=1).numpy()
    expected = Predictor(saved).predict_many(list(images), len(saved.card.classes))
    assert np.abs(np.sort(given, axis=1)[:, ::-1] - [one.probabilities for one in expected]).max() < 1e-5
    assert network.num_classes == len(saved.card.classes)
    assert read_json(done.folder / "config.json")["label_names"] == list(saved.card.classes)


@pytest.mark.parametrize("name", ["onnx", "onnx-int8"])
def test_openvino_reads_the_same_file(name: str, exported: dict[str, Path]) -> None:
    openvino = pytest.importorskip("openvino", reason="an extra: pip install 'thawlab[openvino]'")
    answer, card = standalone.load(exported[name])
    compiled = openvino.Core().compile_model(exported[name] / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in [(1, 24, 24, 3), (1, 300, 200, 3), (7, 64, 48, 3), (2, 40, 57, 3)]:
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        expected, found = answer(images), compiled(images)
        given = {key: found[place] for place, key in enumerate(card["outputs"])}
        assert np.abs(given["probabilities"] - expected["probabilities"]).max() < (1e-4 if name == "onnx" else 0.02)
        assert np.array_equal(given["novel"], expected["novel"]) and np.array_equal(given["unsure"], expected["unsure"])
