from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from thawlab.files import read_json
from thawlab.models.classifier import Classifier
from thawlab.recipe import Recipe
from thawlab.results import read_rows
from thawlab.runner import range_test, train
from thawlab.training.lr_finder import _suggest

Make = Callable[..., Recipe]


def test_the_suggestion_lies_where_the_loss_falls_fastest() -> None:
    rates = np.geomspace(1e-6, 10, 100)
    losses = 2.0 - 1.5 / (1 + np.exp(-3 * np.log(rates / 1e-3))) + np.where(rates > 0.3, rates * 2, 0)
    assert 3e-4 < _suggest(rates, losses) < 3e-3


def test_it_suggests_less_where_the_loss_falls_right_up_to_the_bottom() -> None:
    rates = np.geomspace(1e-6, 10, 100)
    losses = np.where(rates < 0.1, 2.0 - rates * 10, 5.0)
    assert _suggest(rates, losses) <= 0.1 / 10 * 1.2


def test_the_range_test_finds_a_rate_that_learns_and_one_that_explodes(recipe: Make) -> None:
    found = range_test(recipe("data.source=shapes:400x16"))
    assert 1e-5 < found.suggestion < 1
    assert min(found.losses) < found.losses[0]
    assert list(found.rates) == sorted(found.rates)
    assert range_test(recipe("data.source=shapes:400x16")) == found


def test_the_range_test_outlasts_short_phases_and_sees_one_size_only(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sides: set[int] = set()
    original = Classifier.forward

    def forward(self: Classifier, x: torch.Tensor) -> torch.Tensor:
        sides.add(x.shape[-1])
        return original(self, x)

    monkeypatch.setattr(Classifier, "forward", forward)
    phase = {"epochs": 2, "batch_size": 128, "sizes": [8, 16], "optimizer": "sgd"}
    assert range_test(recipe("model.backbone=resnet20", phases=[phase])).suggestion > 0
    assert sides == {16}


def test_auto_uses_the_test_and_says_so_and_is_reproducible(recipe: Make, tmp_path: Path) -> None:
    auto = recipe("phases.0.lr=auto", "phases.1.lr=auto", "phases.1.epochs=1")
    one, two = train(auto, tmp_path / "a"), train(auto, tmp_path / "b")
    log = (one.path / "log.txt").read_text()
    assert log.count("was found by a range test") == 2
    assert (one.model / "model.safetensors").read_bytes() == (two.model / "model.safetensors").read_bytes()
    assert f"{read_rows(one.metrics)[0].lr:.3g}" in log


def test_looking_for_a_rate_changes_no_result(recipe: Make, tmp_path: Path) -> None:
    plain = recipe()
    before = train(plain, tmp_path / "a")
    found = range_test(plain)
    after = train(plain, tmp_path / "b")
    assert (before.model / "model.safetensors").read_bytes() == (after.model / "model.safetensors").read_bytes()
    # The test puts back all weights: a run at the found rate equals one whose recipe names the same number.
    auto = train(recipe("phases.0.lr=auto"), tmp_path / "c")
    named = train(recipe(f"phases.0.lr={found.suggestion!r}"), tmp_path / "d")
    assert read_json(auto.results)["test"] == read_json(named.results)["test"]


@pytest.mark.parametrize("value", ["0", "-1", "fast"])
def test_other_rates_are_refused(recipe: Make, value: str) -> None:
    from thawlab.errors import UsageError

    with pytest.raises(UsageError, match=r"phases\.0"):
        recipe(f"phases.0.lr={value}")
