"""Accuracy under corruptions: what goes through, what is said of it, and how far the numbers can be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import thawlab
from thawlab.data.dataset import load_dataset
from thawlab.data.originals import MOST_KEPT, by_name
from thawlab.data.preprocessing import Preprocessing
from thawlab.errors import ThawlabError
from thawlab.evaluation.corruptions import STRENGTHS, corrupted, corruptions
from thawlab.evaluation.shifted import largest_side, shifted, ways
from thawlab.files import read_json
from thawlab.judging.shift import Sample, drop_interval, shift_of
from thawlab.plan.resolve import resolve
from thawlab.recipe import Recipe, parse_recipe
from thawlab.report.page import write_report
from thawlab.results import read_results
from thawlab.robustness import Shift
from thawlab.run import RunFolder
from thawlab.runner import train

NAMES = [name for name, _ in corruptions.items()]
SAMPLE = Sample("test", "photos", 1000, "originals")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe: Callable[..., Recipe]) -> RunFolder:
    """A run that tells shapes by their form, and a report."""
    root = tmp_path_factory.mktemp("shift")
    folder = train(recipe("phases.1.epochs=4", f"system.cache_dir={root / 'cache'}"), root / "runs")
    write_report(folder)
    return folder


def rights(n: int, strengths: int, shares: dict[str, float], clean: float = 0.9, seed: int = 0) -> np.ndarray:
    """Draw which images are right: so many of the clean ones, and a share of these under each corruption."""
    rng = np.random.default_rng(seed)
    known = rng.random(n) < clean
    columns = [known]
    for name in NAMES:
        luck = rng.random(n)
        columns += [known & (luck < shares.get(name, 1.0) ** k) for k in range(1, strengths + 1)]
    return np.stack(columns, axis=1)


def test_each_image_goes_through_all_ways_from_its_file_and_through_the_same_preprocessing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(6):
            size = (40, 90, 3) if label == "a" else (300, 310, 3)
            Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(tmp_path / "photos" / label / f"{index}.png")
    table = {
        "data": {"source": str(tmp_path / "photos"), "image_size": 24, "val": 0.0, "test": 0.5},
        "model": {"backbone": "cnn5"},
        "phases": [{"epochs": 1}],
    }
    preprocessing = Preprocessing(size=24, mean=(0.5,) * 3, std=(0.5,) * 3)
    dataset = load_dataset(resolve(parse_recipe(table)).recipe, preprocessing)
    test = dataset.splits.test
    assert set(dataset.originals) == set(test.tolist())
    made = shifted(dataset, test, dataset.originals.__getitem__, preprocessing, (2, 5))
    assert len(made.ids) == len(set(made.ids)) == len(made.splits.test) == len(test) * (1 + 2 * 12)
    assert made.labels.tolist() == np.repeat(dataset.labels[test], 25).tolist()
    for place, index in enumerate(test.tolist()):
        photo = Image.open(tmp_path / "photos" / dataset.ids[index])
        if min(photo.size) > largest_side(preprocessing):
            photo = photo.resize((round(photo.width * 256 / 300), 256), Image.Resampling.BILINEAR)
        for number, way in enumerate(ways((2, 5))):
            expected = preprocessing.fit(Image.fromarray(corrupted(np.asarray(photo), *way, dataset.ids[index])))
            assert np.array_equal(made.images[place * 25 + number], expected), way
    assert np.array_equal(made.images[0], dataset.images[test[0]]), "the clean image is the one that is judged elsewhere"
    # Without the files, the decoded rows are corrupted and not preprocessed again.
    rows = shifted(dataset, test, None, preprocessing, (2,))
    assert np.array_equal(rows.images[0], dataset.images[test[0]]) and rows.fingerprint != made.fingerprint
    assert np.array_equal(rows.images[1], corrupted(dataset.images[test[0]], "blur", 2, dataset.ids[test[0]]))


def test_a_sample_depends_on_names_alone_and_a_smaller_one_is_a_part_of_it() -> None:
    ids = tuple(f"image {k}" for k in range(500))
    order = by_name(ids, np.arange(500))
    assert sorted(order.tolist()) == list(range(500)) and order.tolist() != list(range(500))
    fewer = by_name(ids, np.arange(0, 500, 2))
    assert fewer.tolist() == [k for k in order.tolist() if k % 2 == 0]
    back = by_name(ids[::-1], np.arange(500))
    assert [ids[::-1][k] for k in back] == [ids[k] for k in order]


def test_every_run_measures_the_middle_strength_in_a_few_images_and_says_how_many(run: RunFolder) -> None:
    results = read_results(run.results)
    shift = results.shift
    assert shift is not None and shift.strengths == (3,)
    assert [one.corruption for one in shift.corruptions] == NAMES and all(one.about for one in shift.corruptions)
    assert 8 <= shift.n <= min(MOST_KEPT, results.test.n) and shift.n_split == results.test.n
    assert shift.pictures == "originals" and f"{shift.n} of {shift.n_split} test images" in shift.words[0]
    page = " ".join(run.report.read_text(encoding="utf-8").split())
    assert "<h2>Corrupted images</h2>" in page and shift.words[0][1:] in page.replace("&#39;", "'")


def test_the_same_recipe_gives_the_same_numbers(run: RunFolder, recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    again = train(recipe("phases.1.epochs=4", f"system.cache_dir={tmp_path / 'cache'}"), tmp_path / "runs")
    assert read_results(again.results).shift == read_results(run.results).shift


def test_a_head_that_is_trained_on_cached_features_is_judged_alike(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    """The features of corrupted images come from the cache; the whole network must say the same of the pixels."""
    phases = [{"name": "head", "train": "head", "epochs": 5, "lr": 0.01, "batch_size": 32}]
    folder = train(recipe(f"system.cache_dir={tmp_path / 'cache'}", phases=phases), tmp_path / "runs")
    short = read_results(folder.results).shift
    assert short is not None
    whole = thawlab.evaluate(thawlab.open_run(folder.path), shift=short.n).shift
    assert whole is not None and whole.n == short.n and whole.clean_accuracy == short.clean_accuracy
    for one, other in zip(short.corruptions, whole.corruptions, strict=True):
        assert one.strengths[0] == other.strengths[2]


def test_evaluate_writes_the_whole_form_a_table_and_the_report(copy: RunFolder) -> None:
    before = copy.results.read_bytes()
    first = thawlab.evaluate(copy.path, shift=20)
    shift = first.shift
    assert shift is not None and shift.n == 20 and shift.strengths == STRENGTHS
    written = Shift.model_validate(read_json(copy.shift))
    assert written == shift and read_json(copy.shift)["schema"] == 1
    assert first.as_json()["shift"] == read_json(copy.shift)
    with np.load(copy.predictions("shift"), allow_pickle=False) as table:
        labels, predicted, names = table["labels"], table["predicted"], table["ways"]
        assert predicted.shape == (20, 61) and names.shape == (61,) and len(table["ids"]) == 20
    assert shift_of(predicted == labels[:, None], STRENGTHS, Sample("test", shift.source, shift.n_split, "originals")) == shift
    page = copy.report.read_text(encoding="utf-8")
    assert "10 points or more are lost under" in page and (copy.path / "figures" / "shift.svg").is_file()
    assert copy.results.read_bytes() == before
    assert thawlab.evaluate(copy.path, shift=20).shift == shift, "two times are not alike"


def test_other_splits_are_measured_and_leave_no_file(copy: RunFolder) -> None:
    assert thawlab.evaluate(copy.path, "val", shift=5).shift is not None
    other = thawlab.evaluate(copy.path, source="shapes:40x16", shift=True).shift
    assert other is not None and other.n == other.n_split == 40 and other.split == "all"
    assert not copy.shift.exists() and not copy.predictions("shift").exists()


def test_a_damaged_file_is_named_with_what_makes_it_again(copy: RunFolder) -> None:
    copy.shift.write_text('{"schema": 1}', encoding="utf-8")
    with pytest.raises(ThawlabError, match=r"shift\.json: is damaged; `thawlab evaluate RUN --shift` writes it again"):
        write_report(copy)
    copy.shift.write_text('{"schema": 9}', encoding="utf-8")
    with pytest.raises(ThawlabError, match=r"shift\.json: has schema 9, this thawlab reads 1"):
        write_report(copy)


def test_accuracies_and_drops_are_those_of_the_table() -> None:
    right = rights(400, 5, {"noise": 0.8, "blur": 0.95})
    shift = shift_of(right, STRENGTHS, SAMPLE)
    assert shift.clean_accuracy == right[:, 0].mean() and shift.accuracy == pytest.approx(right[:, 1:].mean())
    assert shift.drop == pytest.approx(shift.clean_accuracy - shift.accuracy)
    for number, one in enumerate(shift.corruptions):
        columns = right[:, 1 + 5 * number : 6 + 5 * number]
        assert [cell.accuracy for cell in one.strengths] == pytest.approx(columns.mean(axis=0).tolist())
        assert one.drop == pytest.approx(right[:, 0].mean() - columns.mean())
        for cell in one.strengths:
            assert cell.drop_ci95[0] <= cell.drop <= cell.drop_ci95[1]
    assert (shift.fastest, shift.fastest_shown) == ("noise", True)
    noise = next(one for one in shift.corruptions if one.corruption == "noise")
    assert noise.falls_at == 1 and noise.fall_shown
    assert "falls fastest under noise" in shift.words[1] and "do not tell" not in shift.words[1]
    assert shift.words[2].startswith("10 points or more are lost under noise from strength 1 on; blur from strength 3 on; at no")


def test_what_the_images_do_not_tell_apart_is_not_told_apart() -> None:
    shift = shift_of(rights(60, 5, {"noise": 0.8, "blur": 0.78}), STRENGTHS, SAMPLE)
    assert not shift.fastest_shown and "these images do not tell it from the next ones" in shift.words[1]
    calm = shift_of(rights(60, 5, {}), STRENGTHS, SAMPLE)
    assert calm.fastest is None and calm.drop == 0 and calm.drop_ci95[0] < 0 < calm.drop_ci95[1]
    assert calm.words[1:] == ("10 points or more are lost under no corruption",)


def test_of_equal_corruptions_one_is_rarely_said_to_be_the_fastest() -> None:
    alike = dict.fromkeys(NAMES, 0.9)
    said = sum(shift_of(rights(150, 1, alike, seed=seed), (3,), SAMPLE).fastest_shown for seed in range(100))
    assert said <= 5


@pytest.mark.parametrize("n", [10, 30, 200])
@pytest.mark.parametrize(("lost", "gained"), [(0.0, 0.0), (0.05, 0.02), (0.3, 0.05), (0.9, 0.0)])
def test_the_interval_of_a_drop_covers_it(n: int, lost: float, gained: float) -> None:
    rng = np.random.default_rng(n)
    values = rng.choice([1.0, -1.0, 0.0], (2000, n), p=[lost, gained, 1 - lost - gained])
    covered = [low <= lost - gained <= high for low, high in map(drop_interval, values)]
    assert np.mean(covered) >= 0.93


def test_the_schema_is_held(run: RunFolder) -> None:
    """Scripts read these keys; a change of them is a new schema."""
    document: dict[str, Any] = json.loads(run.results.read_text(encoding="utf-8"))["shift"]
    assert set(document) == {
        *("schema", "split", "source", "n", "n_split", "pictures", "clean_accuracy", "clean_accuracy_ci95", "accuracy"),
        *("accuracy_ci95", "drop", "drop_ci95", "fall", "fastest", "fastest_shown", "corruptions", "words"),
    }
    one = document["corruptions"][0]
    assert set(one) == {"corruption", "about", "accuracy", "drop", "drop_ci95", "falls_at", "fall_shown", "strengths"}
    assert set(one["strengths"][0]) == {"strength", "accuracy", "accuracy_ci95", "drop", "drop_ci95"}
