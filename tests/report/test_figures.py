from __future__ import annotations

import re
import warnings
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest

from thawlab.evaluation.predictions import Predictions
from thawlab.report import figures
from thawlab.report.style import for_file, for_page
from thawlab.results import EpochRow, PhaseResult

NASTY = ["<img src=x onerror=alert(1)>", "a \"quoted\" & 'single'", "🧀 emoji", "עברית \u202eright", "cost $5 or $6", "x" * 200]


def _texts(svg: str) -> list[str]:
    """Return the texts of a figure, after checking that both finished forms are XML."""
    for finished in (for_page(svg), for_file(svg)):
        ET.fromstring(finished)
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def _data(classes: list[str]) -> dict[str, Any]:
    counts = {"train": [5] * len(classes), "val": [0] * len(classes), "test": [1] * len(classes)}
    return {"classes": classes, "per_class": counts}


def _rows(epochs: int, has_val: bool = True) -> list[EpochRow]:
    val = {"val_loss": 1.0, "val_accuracy": 0.5} if has_val else {"val_loss": None, "val_accuracy": None}
    return [EpochRow(phase="p", epoch=k + 1, step=k, seconds=1.0, train_loss=1 / (k + 1), lr=0.1, **val) for k in range(epochs)]


def _phases(*epochs: int) -> list[PhaseResult]:
    ended = {"trainable_parameters": 1, "best_val_accuracy": 0.5, "seconds": 1.0, "stopped": "epochs"}
    return [PhaseResult(name=f"phase-{k}", epochs_run=count, best_epoch=count, **ended) for k, count in enumerate(epochs)]


def test_short_names_stay_and_long_ones_are_cut() -> None:
    assert figures.short("cat") == "cat"
    assert figures.short("x" * 18) == "x" * 18
    assert figures.short("0123456789abcdefgh!") == "012345678…bcdefgh!"
    assert len({figures.short(f"a very long class name {number}") for number in range(20)}) == 20


def test_nasty_class_names_are_drawn_as_they_are_written() -> None:
    matrix = np.eye(len(NASTY), dtype=int).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a font here that lacks a script must not make noise
        drawn = [figures.class_distribution(**_data(NASTY)), figures.confusion_matrix(matrix, NASTY)]
    for svg in drawn:
        assert "<img" not in svg
        texts = _texts(svg)
        for name in NASTY:
            assert (name if len(name) <= 18 else f"{name[:9]}…{name[-8:]}") in texts


@pytest.mark.parametrize("name", ["$", "$$", r"a\$b", "$x^2$", r"\frac{1}{2}", "$\\bad$"])
def test_dollar_signs_make_no_formulas(name: str) -> None:
    assert name in _texts(figures.class_distribution(**_data([name, "other"])))


@pytest.mark.parametrize("name", ["tab\there", "line\nbreak", "bell\x07", "\x1b[31mred"])
def test_control_characters_leave_the_figure_valid(name: str) -> None:
    texts = _texts(figures.class_distribution(**_data([name, "other"])))
    assert "".join("\ufffd" if ord(letter) < 32 else letter for letter in name) in texts


def test_the_distribution_counts_every_split() -> None:
    data = {"classes": ["a", "b"], "per_class": {"train": [1000, 234], "val": [7, 8], "test": [0, 3]}}
    texts = _texts(figures.class_distribution(**data))
    assert {"train (1,234)", "val (15)", "test (3)", "a", "b"} <= set(texts)


def test_a_hundred_classes_are_counted_instead_of_named() -> None:
    classes = [f"class-{number}" for number in range(100)]
    assert "100 classes" in _texts(figures.class_distribution(**_data(classes)))
    texts = _texts(figures.confusion_matrix(np.eye(100, dtype=int).tolist(), classes))
    assert {"predicted", "truth"} <= set(texts)
    assert not set(classes) & set(texts)


def test_the_confusion_matrix_writes_its_counts_where_they_are_not_zero() -> None:
    texts = _texts(figures.confusion_matrix([[11, 2], [0, 37]], ["a", "b"]))
    assert [text for text in texts if text.isdigit()] == ["11", "2", "37"]


def test_a_class_without_images_has_an_empty_row() -> None:
    assert [text for text in _texts(figures.confusion_matrix([[3, 0], [0, 0]], ["a", "b"])) if text.isdigit()] == ["3"]


def test_curves_name_their_phases_and_mark_each_best_epoch() -> None:
    texts = _texts(figures.learning_curves(_rows(7), _phases(3, 4)))
    assert texts.count("phase-0") == texts.count("phase-1") == 2
    assert {"Loss", "Validation accuracy", "training", "validation"} <= set(texts)


@pytest.mark.parametrize("epochs", [(1,), (1, 1), (40, 60)])
def test_curves_of_any_length_can_be_drawn(epochs: tuple[int, ...]) -> None:
    texts = _texts(figures.learning_curves(_rows(sum(epochs)), _phases(*epochs)))
    assert texts.count("epoch") == 2
    assert {f"phase-{k}" for k in range(len(epochs))} <= set(texts)


def test_without_a_validation_split_only_the_training_loss_is_drawn() -> None:
    texts = _texts(figures.learning_curves(_rows(4, has_val=False), _phases(4)))
    assert "Validation accuracy" not in texts
    assert "validation" not in texts
    assert "Loss" in texts


@pytest.mark.parametrize("n", [0, 1, 500])
def test_the_reliability_of_any_number_of_images_can_be_drawn(n: int) -> None:
    rng = np.random.default_rng(0)
    table = Predictions(
        np.array([str(k) for k in range(n)], np.str_), rng.integers(0, 3, n), rng.normal(size=(n, 3)).astype(np.float32)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        texts = _texts(figures.reliability_diagram(table, 1.53, 15))
    assert {"as trained", "calibrated, temperature 1.53", "confidence", "accuracy"} <= set(texts)


def test_text_is_not_too_small_to_read() -> None:
    drawn = [
        figures.class_distribution(**_data(list("abc"))),
        figures.confusion_matrix(np.eye(12, dtype=int).tolist(), list("abcdefghijkl")),
        figures.learning_curves(_rows(3), _phases(3)),
    ]
    for svg in drawn:
        sizes = [float(size) for size in re.findall(r"font(?:-size)?: (?:\w+ )*([\d.]+)px", svg)]
        assert min(sizes) >= 8
