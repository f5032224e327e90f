from __future__ import annotations

from thawlab.comparison.curves import in_words
from thawlab.comparison.learning_curve import learning_curve

SIZES = [100, 200, 400, 800, 1600]


def test_a_curve_is_said_with_what_twice_the_images_would_bring() -> None:
    errors = [[0.1 + 2.0 * n**-0.5 + shift for shift in (-0.002, 0.0, 0.002)] for n in SIZES]
    text = in_words("size 32", learning_curve(SIZES, errors, 10_000))
    assert (
        text.startswith(("learning curve of size 32: 14.9", "learning curve of size 32: 15.0"))
        and "with 1,600 training images" in text
    )
    assert "twice as many would take 1." in text


def test_a_curve_that_is_refused_is_said_with_the_reason() -> None:
    text = in_words("", learning_curve(SIZES[:4], [[0.3, 0.31], [0.2, 0.21], [0.15, 0.16], [0.1, 0.11]], 1000))
    assert text == "learning curve: 4 sizes are too few to tell forms apart; measure at least 5"
