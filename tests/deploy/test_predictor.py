from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thawlab.deploy.predictor import Prediction, Predictor, image_files
from thawlab.errors import ThawlabError, UsageError
from thawlab.evaluation.metrics import calibration
from thawlab.evaluation.predictions import load_predictions
from thawlab.files import read_json
from thawlab.models.saved import load_model
from thawlab.recipe import parse_recipe
from thawlab.run import RunFolder
from thawlab.runner import train

COLOURS = {"blue": (30, 30, 200), "green": (30, 170, 30), "red": (200, 30, 30)}


def _image(label: str, rng: np.random.Generator) -> Image.Image:
    height, width = rng.integers(20, 60, 2)
    pixels = np.clip(np.array(COLOURS[label]) + rng.normal(0, 60, (height, width, 3)), 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root, rng = tmp_path_factory.mktemp("predictor"), np.random.default_rng(0)
    for label in COLOURS:
        (root / "photos" / label).mkdir(parents=True)
        for index in range(20):
            ending = ("png", "jpg", "webp")[index % 3]
            _image(label, rng).save(root / "photos" / label / f"{index:02d}.{ending}")
    recipe = parse_recipe(
        {
            "data": {"source": str(root / "photos"), "image_size": 16, "val": 0.2, "test": 0.4},
            "model": {"backbone": "resnet20"},
            "phases": [{"train": "all", "epochs": 3, "batch_size": 16, "lr": 0.003}],
            "system": {"threads": 2, "cache_dir": str(root / "cache"), "device": "cpu"},
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "_CHANCE", 0.0)  # so that a dozen validation images give a temperature
        return train(recipe, root / "runs")


@pytest.fixture(scope="module")
def predictor(trained: RunFolder) -> Predictor:
    return Predictor(load_model(trained.model))


@pytest.fixture(scope="module")
def files(trained: RunFolder) -> list[Path]:
    """The images of the run's test split, in its order."""
    source = Path(trained.recipe.data.source)
    return [source / name for name in load_predictions(trained.predictions("test")).ids]


def test_the_logits_are_those_of_the_runs_evaluation_bit_for_bit(
    trained: RunFolder, predictor: Predictor, files: list[Path]
) -> None:
    recorded = load_predictions(trained.predictions("test"))
    preprocessing = load_model(trained.model).card.preprocessing
    fitted = np.stack([preprocessing.fit(Image.open(file).convert("RGB")) for file in files])
    assert np.array_equal(predictor.logits(fitted), recorded.logits)
    assert np.array_equal(predictor.logits(fitted[3:4]), recorded.logits[3:4])


def test_the_probabilities_are_the_calibrated_ones_of_the_runs_evaluation(
    trained: RunFolder, predictor: Predictor, files: list[Path]
) -> None:
    temperature = read_json(trained.results)["test"]["temperature"]
    assert temperature != 1.0
    expected = load_predictions(trained.predictions("test")).probabilities(temperature)
    for prediction, row in zip(predictor.predict_many(files), expected, strict=True):
        assert prediction.error is None
        found = dict(zip(prediction.classes, prediction.probabilities, strict=True))
        assert [found[name] for name in predictor.classes] == pytest.approx(row, abs=1e-14)


def test_it_has_learnt_the_colours(predictor: Predictor) -> None:
    rng = np.random.default_rng(7)
    assert predictor.classes == ("blue", "green", "red")
    labels = list(COLOURS) * 5
    found = predictor.predict_many([_image(label, rng) for label in labels])
    assert sum(one.classes[0] == label for one, label in zip(found, labels, strict=True)) >= 12


def test_path_text_pillow_image_and_array_are_the_same_image(predictor: Predictor, files: list[Path]) -> None:
    for file in files[:3]:
        image = Image.open(file)
        ways = [file, str(file), image, image.convert("RGB"), np.asarray(image.convert("RGB"))]
        results = predictor.predict_many(ways)
        assert len({(result.classes, result.probabilities) for result in results}) == 1
        assert [result.source for result in results] == [str(file), str(file), "2", "3", "4"]
    assert predictor.predict(file).probabilities == results[0].probabilities


def test_a_cameras_orientation_is_applied_to_files_and_to_pillow_images(predictor: Predictor, tmp_path: Path) -> None:
    upright = np.zeros((40, 20, 3), np.uint8)
    upright[:16], upright[16:] = COLOURS["red"], COLOURS["blue"]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° to stand upright
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    turned.save(tmp_path / "turned.png", exif=exif)
    as_file, as_image = tmp_path / "turned.png", Image.open(tmp_path / "turned.png")
    results = [result.probabilities for result in predictor.predict_many([upright, as_file, as_image, turned])]
    assert results[0] == results[1] == results[2] != results[3]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_images_of_every_mode_are_taken(predictor: Predictor, tmp_path: Path, mode: str) -> None:
    image = _image("red", np.random.default_rng(1)).convert(mode)
    image.save(tmp_path / "image.tif")
    from_file, from_image = predictor.predict_many([tmp_path / "image.tif", image])
    assert sum(from_file.probabilities) == pytest.approx(1.0)
    assert from_file.probabilities == from_image.probabilities


@pytest.mark.parametrize(("top_k", "given"), [(1, 1), (2, 2), (5, 3)])
def test_the_best_classes_come_first(predictor: Predictor, files: list[Path], top_k: int, given: int) -> None:
    for prediction in predictor.predict_many(files[:8], top_k):
        assert len(prediction.classes) == len(prediction.probabilities) == given
        assert list(prediction.probabilities) == sorted(prediction.probabilities, reverse=True)


def test_a_file_that_cannot_be_read_gets_an_error_and_the_rest_go_on(
    predictor: Predictor, files: list[Path], tmp_path: Path
) -> None:
    text, empty, cut = tmp_path / "text.jpg", tmp_path / "empty.png", tmp_path / "cut.png"
    text.write_text("no image")
    empty.touch()
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
    cut.write_bytes(buffer.getvalue()[:2000])
    bad = [text, empty, cut, tmp_path / "absent.png", tmp_path]
    mixed = [bad[0], files[0], bad[1], bad[2], files[1], bad[3], bad[4]]
    results = predictor.predict_many(mixed)
    assert [result.source for result in results] == [str(path) for path in mixed]
    assert [result.error is None for result in results] == [path not in bad for path in mixed]
    assert all("\n" not in result.error and result.classes == () for result in results if result.error is not None)
    assert [results[1], results[4]] == predictor.predict_many(files[:2])
    assert {result.source: result.error for result in results}[str(empty)] == "empty file"


def test_one_file_that_cannot_be_read_is_an_error_that_names_it(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ThawlabError, match=r"absent\.png: cannot be read: No such file or directory"):
        predictor.predict(tmp_path / "absent.png")


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8)],
)
def test_an_array_of_another_kind_is_an_error_that_says_what_is_wanted(predictor: Predictor, pixels: np.ndarray) -> None:
    with pytest.raises(ThawlabError, match=r"must be .* or uint8 pixels \(height × width × 3\), not (uint8|float32), "):
        predictor.predict(pixels)


def test_many_images_are_predicted_in_portions_as_each_alone(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    images = [np.asarray(_image("green", rng)) for _ in range(10)]
    at_once = predictor.predict_many(images)
    monkeypatch.setattr("thawlab.deploy.predictor._PORTION", 4)
    results = predictor.predict_many(images)
    assert [result.source for result in results] == [str(number) for number in range(10)]
    assert results == at_once
    assert predictor.predict(images[9]).probabilities == results[9].probabilities


def test_nothing_to_predict_gives_nothing(predictor: Predictor) -> None:
    assert predictor.predict_many([]) == []


def test_an_image_unlike_those_of_training_is_said_to_be(trained: RunFolder, predictor: Predictor, files: list[Path]) -> None:
    checker = (np.indices((40, 40)).sum(axis=0) // 5 % 2 * 255).astype(np.uint8)
    results = predictor.predict_many([*files, np.stack([checker, checker, 255 - checker], axis=2)])
    assert results[-1].novel
    limit, reference = predictor._model.card.novelty_limit, predictor._model.reference
    assert reference is not None and len(reference.features) == read_json(trained.results)["dataset"]["n_train"]
    recorded = read_json(trained.results)["novelty"]
    assert recorded["limit"] == limit == reference.limit
    share = np.mean([result.novel for result in results[:-1]])
    assert share == pytest.approx(recorded["test_beyond_limit"])


def test_unsure_means_that_more_than_one_class_is_in_the_set(predictor: Predictor, files: list[Path]) -> None:
    threshold = predictor._model.card.set_threshold
    assert threshold is not None
    for result in predictor.predict_many(files, top_k=3):
        assert result.unsure == (sum(p >= threshold for p in result.probabilities) > 1)


def test_explanations_are_written_beside_each_other_and_never_over_one(
    predictor: Predictor, files: list[Path], tmp_path: Path
) -> None:
    written = predictor.write_explanations(predictor.predict_many([files[0], files[0]]), tmp_path / "maps")
    assert [path.name for path in written] == [f"{files[0].stem}.png", f"{files[0].stem}-2.png"]
    with Image.open(written[0]) as image:
        assert image.size == (32, 16)
        left = np.asarray(image)[:, :16]
    with Image.open(files[0]) as original:
        assert np.array_equal(left, predictor._model.card.preprocessing.fit(original.convert("RGB")))
    with pytest.raises(ThawlabError, match=r"gone\.png: cannot be read"):
        predictor.explain(tmp_path / "gone.png")


def test_predictions_as_json() -> None:
    assert Prediction("a.png", ("x", "y"), (0.75, 0.25)).as_json() == {
        "source": "a.png",
        "predictions": [{"class": "x", "probability": 0.75}, {"class": "y", "probability": 0.25}],
        "unsure": None,
        "novel": None,
    }
    held = Prediction("c.png", ("x",), (0.9,), unsure=True, prediction_set=("x", "y"))
    assert held.as_json()["prediction_set"] == ["x", "y"]
    assert Prediction("b.png", error="empty file").as_json() == {"source": "b.png", "error": "empty file"}


def test_what_is_no_image_is_named_in_one_line(predictor: Predictor, files: list[Path]) -> None:
    for wrong, kind in (([files[0]], "list"), ([], "list"), (None, "NoneType"), (3, "int")):
        with pytest.raises(ThawlabError, match=f"0: must be a file, a Pillow image or uint8 pixels .*, not {kind}$"):
            predictor.predict(wrong)  # type: ignore[arg-type]
    [good, bad] = predictor.predict_many([files[0], [[1, 2], [3, 4]]])  # type: ignore[list-item]
    assert good.error is None and bad.error is not None


@pytest.mark.parametrize("single", ["photo.png", Path("photo.png"), Image.new("RGB", (8, 8)), np.zeros((8, 8, 3), np.uint8)])
def test_a_single_image_is_not_taken_for_many(predictor: Predictor, single: object) -> None:
    with pytest.raises(UsageError, match="predict_many takes a list of images; predict takes a single one"):
        predictor.predict_many(single)  # type: ignore[arg-type]


def test_many_images_may_be_an_array_or_a_generator(predictor: Predictor, files: list[Path]) -> None:
    fitted = np.stack([predictor._model.card.preprocessing.fit(Image.open(file).convert("RGB")) for file in files[:3]])
    assert len(predictor.predict_many(fitted)) == len(predictor.predict_many(image for image in fitted)) == 3


def test_classes_numbers_and_shapes_that_there_are_not_are_refused(predictor: Predictor, files: list[Path]) -> None:
    with pytest.raises(UsageError, match=r"there is no class 'bleu' \(did you mean 'blue'\?\)"):
        predictor.explain(files[0], "bleu")
    for top_k in (0, -1):
        with pytest.raises(UsageError, match="top_k = "):
            predictor.predict(files[0], top_k)
    for wrong in (np.zeros((16, 16, 3), np.uint8), np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 16, 16, 3)), [1, 2]):
        with pytest.raises(UsageError, match="logits takes uint8 pixels, n × 16 × 16 × 3, not "):
            predictor.logits(wrong)  # type: ignore[arg-type]


def test_a_path_below_the_home_folder_is_found(
    predictor: Predictor, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "$HOME.png").write_bytes(files[0].read_bytes())
    assert image_files(["~/"]) == [tmp_path / "$HOME.png"]
    assert predictor.predict(tmp_path / "$HOME.png").error is None
    (tmp_path / "a.png").write_bytes(files[0].read_bytes())
    assert predictor.predict("~/a.png").error is None


def test_a_prediction_shows_the_image_and_a_bar_per_class(
    predictor: Predictor, files: list[Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pixels = np.asarray(Image.open(files[0]).convert("RGB"))
    for image in (files[0], Image.open(files[0]), pixels):
        prediction = predictor.predict(image)
        shown = prediction._repr_html_()
        assert shown.count("<tr>") == 3 and "<img" in shown and "base64" in shown and "image=" not in repr(prediction)
        prediction.show()
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[1:]] == list(prediction.classes)
        assert lines[1].endswith(f"{100 * prediction.probabilities[0]:.1f} %")
    [failed] = predictor.predict_many([tmp_path / "<gone>.png"])
    assert "&lt;gone&gt;.png: cannot be read" in failed._repr_html_()
    assert "<img" not in Prediction("x", ("<a>",), (1.0,), image=tmp_path / "gone.png")._repr_html_()
    assert "&lt;a&gt;" in Prediction("x", ("<a>",), (1.0,))._repr_html_()


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ThawlabError, match=r"model\.json: is missing"):
        Predictor(load_model(tmp_path))


def test_a_folder_is_listed_sorted_with_its_subfolders_and_without_litter(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deep/er/c.webp", "notes.txt", ".hidden.png", "__MACOSX/d.png", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [file.relative_to(tmp_path).as_posix() for file in image_files([str(tmp_path)])]
    assert found == ["a.JPG", "b.png", "deep/er/c.webp"]


def test_a_folder_inside_a_hidden_one_is_listed_when_it_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / ".hidden" / "images"
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    assert image_files([str(folder)]) == [folder / "a.png"]


def test_a_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "photo").touch()
    (tmp_path / "a.png").touch()
    assert image_files([str(tmp_path / "photo"), str(tmp_path / "a.png")]) == [tmp_path / "photo", tmp_path / "a.png"]


def test_a_wrong_path_is_a_usage_error_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").touch()
    with pytest.raises(UsageError, match=r"there is no such file or folder \(did you mean 'holiday.png'\?\)"):
        image_files([str(tmp_path / "holidya.png")])


def test_a_folder_without_images_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this folder holds no images"):
        image_files([str(tmp_path)])
