from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thawlab.data.dataset import Dataset, decode_all
from thawlab.data.sources import open_source
from thawlab.data.splits import Splits
from thawlab.errors import Interrupted, ThawlabError
from thawlab.judging import cross_validation
from thawlab.judging.cross_validation import cross_validated
from thawlab.plan.resolve import pretrained_input
from thawlab.quality.folds import folds_of
from thawlab.recipe import Data, System


@pytest.fixture(autouse=True)
def _fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_validation, "_STEPS", 16)


def _judged(tmp_path: Path, source: str = "shapes:240x16") -> tuple[Dataset, np.ndarray, np.ndarray]:
    system = System(threads=1, cache_dir=str(tmp_path))
    spec, preprocessing = pretrained_input("bundled", Data(source=source, image_size=16))
    dataset = decode_all(open_source(source, None), preprocessing, system)
    folds = folds_of(dataset.labels, None, [], 2)
    return dataset, folds, cross_validated(spec, system, dataset, preprocessing, folds)


def test_networks_judge_images_that_they_did_not_see(tmp_path: Path) -> None:
    dataset, _, probabilities = _judged(tmp_path)
    assert probabilities.shape == (240, len(dataset.classes)) and np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == dataset.labels).mean() > 0.6
    again = _judged(tmp_path)[2]
    assert np.array_equal(again, probabilities)


def test_an_interrupted_fold_ends_in_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _judged(tmp_path / "whole")[2]
    fit, calls = cross_validation.fit, 0

    def interrupted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        result = fit(*arguments)  # type: ignore[arg-type]
        if calls == 2:
            raise Interrupted("stopped", 2)
        return result

    monkeypatch.setattr(cross_validation, "fit", interrupted)
    with pytest.raises(Interrupted):
        _judged(tmp_path / "parts")
    assert len([*(tmp_path / "parts" / "judges").rglob("predictions/test.npz")]) == 1
    assert np.array_equal(_judged(tmp_path / "parts")[2], whole)
    assert calls == 3  # the first fold is not trained again


def test_a_label_that_was_changed_is_another_judgement(tmp_path: Path) -> None:
    """The probabilities that are kept belong to their labels."""
    system = System(threads=1, cache_dir=str(tmp_path))
    spec, preprocessing = pretrained_input("bundled", Data(source="shapes:120x16", image_size=16))
    dataset = decode_all(open_source("shapes:120x16", None), preprocessing, system)
    folds = folds_of(dataset.labels, None, [], 2)
    first = cross_validated(spec, system, dataset, preprocessing, folds)
    dataset.labels[:20] = (dataset.labels[:20] + 1) % len(dataset.classes)
    assert not np.array_equal(cross_validated(spec, system, dataset, preprocessing, folds), first)


def test_a_class_without_a_readable_image_has_no_column(tmp_path: Path) -> None:
    """The other judges give none either, so that all can be pooled."""
    system = System(threads=1, cache_dir=str(tmp_path))
    spec, preprocessing = pretrained_input("bundled", Data(source="shapes:120x16", image_size=16))
    dataset = decode_all(open_source("shapes:120x16", None), preprocessing, system)
    last = len(dataset.classes) - 1
    kept = dataset.splits.train[dataset.labels[dataset.splits.train] != last]
    dataset = replace(dataset, splits=Splits(train=kept))
    folds = folds_of(dataset.labels[kept], None, [], 2)
    assert cross_validated(spec, system, dataset, preprocessing, folds).shape == (len(kept), last)


def test_damaged_predictions_are_named_and_nothing_is_lost(tmp_path: Path) -> None:
    _judged(tmp_path, "shapes:60x16")
    kept = sorted((tmp_path / "judges").rglob("test.npz"))
    kept[0].write_bytes(b"not an archive")
    kept[1].write_bytes(b"not an archive")
    with pytest.raises(ThawlabError, match=r"predictions/test\.npz: cannot be read"):
        _judged(tmp_path, "shapes:60x16")
    assert kept[0].read_bytes() == b"not an archive"
