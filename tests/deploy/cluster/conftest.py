"""A run that predicts."""

from __future__ import annotations

import pytest

from thawlab.recipe import parse_recipe
from thawlab.run import RunFolder
from thawlab.runner import train


@pytest.fixture(scope="session")
def shapes_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    phases = [{"train": "all", "epochs": 1, "batch_size": 32, "lr": 0.01}]
    data, system = {"source": "shapes:200x16", "image_size": 16}, {"threads": 1, "device": "cpu"}
    recipe = parse_recipe({"data": data, "model": {"backbone": "cnn5"}, "phases": phases, "system": system})
    return train(recipe, tmp_path_factory.mktemp("runs"))
