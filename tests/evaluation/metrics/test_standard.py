from __future__ import annotations

import numpy as np
import pytest

from thawlab.evaluation.metrics import Scored, metrics
from thawlab.evaluation.metrics.measures import brief
from thawlab.evaluation.predictions import Predictions


def _value(name: str, table: Predictions) -> float | None:
    return metrics.get(name).value(Scored(table))


def test_ties_count_in_favour_of_lower_class_numbers() -> None:
    table = Predictions(np.array(list("abc")), np.array([0, 1, 2]), np.zeros((3, 4), np.float32))
    assert [_value(name, table) for name in ("accuracy", "top2", "top3")] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert brief(table).accuracy == pytest.approx(1 / 3)


def test_top_5_of_fewer_than_five_classes_is_certain() -> None:
    table = Predictions(np.array(["a"]), np.array([2]), np.array([[3.0, 2.0, 1.0]], np.float32))
    assert _value("top5", table) == 1.0


def test_every_metric_says_in_a_line_what_it_is() -> None:
    for name, metric in metrics.items():
        assert metric.about.endswith(".") and "\n" not in metric.about and len(metric.about) > 20, name


def test_a_mean_over_images_and_a_function_of_counts_are_what_they_resample() -> None:
    rng = np.random.default_rng(0)
    table = Predictions(np.arange(40).astype(np.str_), rng.integers(0, 3, 40), rng.normal(size=(40, 3)).astype(np.float32))
    scored = Scored(table, temperature=1.7)
    for name, metric in metrics.items():
        assert not (metric.per_image and metric.of_counts), name
        if metric.per_image:
            assert metric.per_image(scored).shape == (40,)
            assert metric.value(scored) == pytest.approx(metric.per_image(scored).mean()), name
