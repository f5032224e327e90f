from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from thawlab.comparison.learning_curve import LearningCurve, learning_curve
from thawlab.report.study_figures import learning_curve_figure
from thawlab.report.style import for_file, for_page

SIZES = [100 * 2**k for k in range(6)]


def curve(scale: float = 1.0) -> LearningCurve:
    rng = np.random.default_rng(0)
    errors = [scale * (0.05 + 2 * n**-0.5) + rng.normal(0, 0.003, 3) for n in SIZES]
    return learning_curve(SIZES, errors, 5000, replicates=200)


def texts(svg: str) -> list[str]:
    for finished in (for_page(svg), for_file(svg)):
        ET.fromstring(finished)
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_sizes_and_names_are_written_and_the_part_beyond_is_dashed() -> None:
    svg = learning_curve_figure({"fine-tuned": curve(), "linear <head> & $": curve(1.4)})
    assert {"100", "3,200", "fine-tuned", "linear <head> & $", "training images", "test error in %"} <= set(texts(svg))
    assert svg.count("stroke-dasharray") == 2


def test_a_refused_curve_shows_its_points_and_says_so() -> None:
    flat = learning_curve(SIZES, [[0.0, 0.1]] * 6, 100)
    svg = learning_curve_figure({"flat": flat})
    assert flat.refusal and "flat (no curve)" in texts(svg)
    assert "stroke-dasharray" not in svg


@pytest.mark.parametrize("curves", [{}, {"solved": learning_curve(SIZES, [[0.0]] * 6, 100)}])
def test_nothing_to_draw_is_drawn_as_axes(curves: dict[str, LearningCurve]) -> None:
    assert "training images" in texts(learning_curve_figure(curves))


def test_the_same_curve_is_the_same_figure() -> None:
    assert learning_curve_figure({"a": curve()}) == learning_curve_figure({"a": curve()})
