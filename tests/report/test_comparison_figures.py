from __future__ import annotations

import math
import re
import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from thawlab.comparison.effects import Effect
from thawlab.comparison.learning_curve import learning_curve
from thawlab.comparison.statistics import Errors, Estimate
from thawlab.report import comparison_figures as figures
from thawlab.report.study_figures import learning_curve_figure
from thawlab.report.style import BLUE, FOREGROUND, MUTED, ORANGE, for_file, for_page
from thawlab.results import EpochRow

NASTY = [
    "<img src=x onerror=alert(1)>",
    "a \"quoted\" & 'single'",
    "cost $5 or $6",
    "\x1b[31mred",
    r"\frac{1}{2} $x^2$",
    "x" * 300,
]
QUESTIONS = ["other seeds and other images", "other seeds, these images", "these runs, other images"]


def _texts(svg: str) -> list[str]:
    """Return the texts of a figure, after checking that both finished forms are XML."""
    for finished in (for_page(svg), for_file(svg)):
        ET.fromstring(finished)
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def _effect(name: str, difference: float = 0.02, repeated: bool = True, crossed: bool = True, p_holm: float = 0.5) -> Effect:
    def estimate(half: float) -> Estimate:
        return Estimate(difference - half, difference + half, 0.2, Errors(half / 2, 2, 0.0))

    return Effect(
        kind="pair",
        name=name,
        keys=("a",),
        between=("one", "two"),
        seeds=(0, 1, 2),
        n_images=100,
        difference=difference,
        by_seed=(difference,) * 3,
        over_seeds=estimate(0.01) if repeated and crossed else None,
        over_images=estimate(0.02),
        over_both=estimate(0.03) if repeated else None,
        sign_flip=0.25 if repeated else None,
        p_holm=p_holm,
    )


def _rows(*accuracies: float | None) -> list[EpochRow]:
    return [
        EpochRow(phase="p", epoch=k, step=k, seconds=1, train_loss=1, val_loss=1, val_accuracy=value, lr=0.1)
        for k, value in enumerate(accuracies, 1)
    ]


@pytest.mark.parametrize(
    ("repeated", "crossed", "asked"), [(True, True, QUESTIONS), (True, False, QUESTIONS[::2]), (False, False, QUESTIONS[2:])]
)
def test_an_effect_shows_the_interval_of_every_question_that_can_be_answered(
    repeated: bool, crossed: bool, asked: list[str]
) -> None:
    svg = figures.effect_plot([_effect("lr 0.1 → 0.2", repeated=repeated, crossed=crossed), _effect("other", repeated=False)])
    texts = _texts(svg)
    assert [text for text in texts if text in QUESTIONS] == asked
    assert "lr 0.1 → 0.2" in texts and "other" in texts
    colours = dict(zip(QUESTIONS, (FOREGROUND, BLUE, ORANGE), strict=True))
    lines = re.findall(r"<path d=\"M [^\"]*\" [^>]*style=\"fill: none; (?:stroke-dasharray[^;]*; [^;]*; )?stroke: (#0\w{5})", svg)
    for question in QUESTIONS[1:]:  # the axes are drawn in the colour of the first
        assert (colours[question] in lines) == (question in asked)


def test_a_marker_is_filled_where_the_difference_is_shown() -> None:
    def filled(p_holm: float) -> int:
        svg = figures.effect_plot([_effect("one", repeated=False, p_holm=p_holm)])
        return len(re.findall(rf"fill: {ORANGE}", svg))

    assert filled(0.01) > filled(0.5)


def test_long_names_of_effects_take_two_lines_and_begin_and_end_as_they_do() -> None:
    name = "learning_rate 0.1 → 0.2 × dropout [0.0, 0.1] → [0.3, 0.4] × backbone resnet20 → resnet56"
    texts = [text for text in _texts(figures.effect_plot([_effect(name)])) if text not in QUESTIONS]
    assert any(text.startswith("learning_rate 0.1") for text in texts) and any(text.endswith("resnet56") for text in texts)
    assert max(map(len, texts)) <= len("difference in test accuracy in points, with 95 % intervals")


def test_nasty_names_are_drawn_as_text() -> None:
    values = [[0.5, 0.6]] * len(NASTY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = [
            figures.effect_plot([_effect(name) for name in NASTY]),
            figures.accuracy_dots(NASTY, values, values),
            figures.validation_curves(NASTY, [[_rows(0.1, 0.2)] for _ in NASTY]),
        ]
    for svg in drawn:
        assert "<img" not in svg
        texts = _texts(svg)
        for name in NASTY[:3]:
            assert name in texts
        assert "\ufffd[31mred" in texts


def test_every_run_of_a_variant_is_a_ring_and_the_axis_ends_where_accuracy_does() -> None:
    few = figures.accuracy_dots(["a"], [[0.9, 0.95]], [[0.6, 1.3]])
    more = figures.accuracy_dots(["a"], [[0.9, 0.95, 0.97]], [[0.6, 1.3]])
    assert more.count("<use") == few.count("<use") + 1
    ticks = [float(text) for text in _texts(few) if re.fullmatch(r"[\d.]+", text)]
    assert ticks and max(ticks) == 100


def test_curves_are_means_that_end_with_the_shortest_run() -> None:
    texts = _texts(figures.validation_curves(["a", "b"], [[_rows(*[0.5] * 40), _rows(*[0.7] * 3)], [_rows(0.1, 0.2)]]))
    assert {"a", "b"} <= set(texts)
    ticks = texts[: texts.index("epoch, counted through all phases")]
    assert "3" in ticks and max(map(float, set(ticks) - {"a", "b"})) == 3


def test_of_many_variants_eight_are_told_apart() -> None:
    names = [f"variant-{number}" for number in range(12)]
    svg = figures.validation_curves(names, [[_rows(0.1, number / 20)] for number in range(12)])
    texts = _texts(svg)
    assert [name for name in names if name in texts] == names[4:]
    assert texts[-1] == "the other 4"
    assert len(re.findall(rf"stroke: {MUTED}; stroke-opacity: 0.7", svg)) == 5, "four curves and their place in the legend"
    exactly = _texts(figures.validation_curves(names[:8], [[_rows(0.1, 0.2)]] * 8))
    assert not [text for text in exactly if "other" in text]


def test_variants_that_were_not_validated_have_no_curve() -> None:
    texts = _texts(figures.validation_curves(["a", "b"], [[_rows(None, None)], [_rows(0.1, 0.2)]]))
    assert "b" in texts and "a" not in texts
    assert "epoch, counted through all phases" in _texts(figures.validation_curves(["a"], [[_rows(None)]]))


@pytest.mark.parametrize(
    ("costs", "accuracies", "front"),
    [
        ([1, 2, 3], [0.5, 0.6, 0.7], [0, 1, 2]),
        ([3, 2, 1], [0.5, 0.6, 0.7], [2]),
        ([1, 1, 2], [0.5, 0.6, 0.6], [1]),
        ([5, 1, 3, 2], [0.9, 0.4, 0.7, 0.7], [1, 3, 0]),
        ([1], [0.1], [0]),
    ],
)
def test_the_front_holds_those_that_nothing_beats(costs: list[float], accuracies: list[float], front: list[int]) -> None:
    assert figures.pareto_front(costs, accuracies) == front


def test_the_front_is_that_of_a_search_through_all_pairs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs, accuracies = rng.integers(1, 9, 12).tolist(), (rng.integers(1, 9, 12) / 10).tolist()
        points = list(zip(costs, accuracies, strict=True))
        unbeaten = {(c, a) for c, a in points if not any((x <= c and y > a) or (x < c and y >= a) for x, y in points)}
        assert {points[place] for place in figures.pareto_front(costs, accuracies)} == unbeaten


@pytest.mark.parametrize("costs", [[1.0, 1.1, 1.2], [10, 1e4, 3e7], [2_000_000, 2_100_000, 2_050_000], [0.01, 0.02, 90.0]])
def test_costs_of_any_range_have_a_few_ticks_that_can_be_read(costs: list[float]) -> None:
    texts = _texts(figures.trade_offs({"parameters": costs}, [0.5, 0.6, 0.7]))
    axis = texts[: texts.index("parameters")]
    assert 1 <= len(axis) <= 12 and not [text for text in texts if "e+" in text or "times" in text]
    assert {"1", "2", "3"} <= set(texts)


def test_a_learning_curve_without_a_name_needs_no_legend() -> None:
    sizes = [50, 100, 200, 400, 800, 1600]
    errors = [[0.05 + 2 / math.sqrt(n) + shift for shift in (-0.004, 0.0, 0.005)] for n in sizes]
    curve = learning_curve(sizes, errors, 1000, replicates=100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        texts = _texts(learning_curve_figure({"": curve}))
        assert "training images" in texts and "1,600" in texts
        assert "wide $" in _texts(learning_curve_figure({"wide $": curve, "narrow": curve}))
        assert "(no curve)" in _texts(learning_curve_figure({"": learning_curve(sizes[:2], errors[:2], 1000)}))


def test_text_is_not_too_small_to_read() -> None:
    drawn = [
        figures.effect_plot([_effect("one")]),
        figures.accuracy_dots(["a"], [[0.5]], [[0.4, 0.6]]),
        figures.validation_curves(["a"], [[_rows(0.1)]]),
        figures.trade_offs({"seconds": [1, 2]}, [0.1, 0.2]),
    ]
    for svg in drawn:
        sizes = [float(size) for size in re.findall(r"font(?:-size)?: (?:\w+ )*([\d.]+)px", svg)]
        assert min(sizes) >= 8
