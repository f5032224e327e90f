from __future__ import annotations

import numpy as np
import pytest

from thawlab.data.shapes import SHAPES, draw_shapes


def test_images_have_the_size_that_is_asked_for() -> None:
    images, labels = draw_shapes(13, 24, 0)
    assert images.shape == (13, 24, 24, 3) and images.dtype == np.uint8
    assert labels.dtype == np.int64 and labels.tolist() == [*range(10), 0, 1, 2]


def test_equal_seeds_give_equal_images_and_other_seeds_others() -> None:
    first = draw_shapes(10, 16, 3)[0]
    assert np.array_equal(first, draw_shapes(10, 16, 3)[0])
    assert not any(np.array_equal(a, b) for a, b in zip(first, draw_shapes(10, 16, 4)[0], strict=True))


def test_a_larger_count_begins_with_the_smaller_one() -> None:
    assert np.array_equal(draw_shapes(25, 16, 0)[0][:12], draw_shapes(12, 16, 0)[0])


def test_no_two_images_are_the_same() -> None:
    images = draw_shapes(60, 16, 0)[0]
    assert len(np.unique(images.reshape(60, -1), axis=0)) == 60


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_stands_out_from_its_ground(shape: str) -> None:
    images, _ = draw_shapes(10, 64, 0)
    image = images[SHAPES.index(shape)].astype(float)
    corners = image[[0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=0)
    far = np.abs(image - corners).sum(axis=-1) > 100
    assert 0.02 < far.mean() < 0.75
