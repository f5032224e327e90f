from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from thawlab.evaluation.views import VIEWS, View
from thawlab.files import read_json
from thawlab.recipe import Recipe
from thawlab.runner import train


def test_views_show_what_they_say() -> None:
    image = torch.arange(9.0).view(1, 1, 3, 3)
    assert View(True, (0, 0), 1.0).of(image)[0, 0].tolist() == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]
    moved = View(False, (1, 1), 1.0).of(image)[0, 0]
    assert moved[1:, 1:].tolist() == [[0, 1], [3, 4]]
    assert moved[0].tolist() == [4, 3, 4]  # what comes in from outside is mirrored
    assert View(False, (-1, -1), 1.0).of(image)[0, 0, :2, :2].tolist() == [[4, 5], [7, 8]]


@pytest.mark.parametrize("name", ["flip", "flip-shift"])
def test_weights_of_a_set_sum_to_one_and_mirror_evenly(name: str) -> None:
    views = VIEWS[name]
    assert sum(view.weight for view in views) == pytest.approx(1.0)
    assert sum(view.weight for view in views if view.mirrored) == pytest.approx(0.5)


def test_it_is_reported_apart_and_changes_nothing_else(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    plain = read_json(train(recipe(), tmp_path).results)
    averaged = read_json(train(recipe("evaluation.tta=flip-shift"), tmp_path).results)
    assert averaged["test"] == plain["test"]
    assert averaged["test_time_augmentation"]["n"] == 60
    assert averaged["test_time_augmentation"]["loss"] != averaged["test"]["loss"]
    assert "test_time_augmentation" not in plain
