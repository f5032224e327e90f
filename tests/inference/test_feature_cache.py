"""Equal keys of the feature cache must mean equal numbers, also where machines share its folder."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from thawlab import environment
from thawlab.inference import feature_cache
from thawlab.inference.feature_cache import FrozenNetwork
from thawlab.plan.resolve import resolve
from thawlab.recipe import Recipe
from thawlab.run import RunFolder
from thawlab.training.context import prepare
from thawlab.training.interruption import Interruption


def test_another_processor_has_features_of_its_own(recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    """B30: two processors may round otherwise."""
    closed, spec = resolve(recipe())
    context = prepare(closed, spec, torch.device("cpu"), RunFolder(Path()), Interruption())
    network = FrozenNetwork(context.classifier.backbone, spec.identity, context.preprocessing, context.device)
    key = network.key(context.dataset, "plain")
    assert network.key(context.dataset, "plain") == key != network.key(context.dataset, "mirrored")
    monkeypatch.setattr(environment, "processor_name", lambda: "another processor")
    assert network.key(context.dataset, "plain") != key
    monkeypatch.undo()
    monkeypatch.setattr(feature_cache, "version", lambda package: "another version" if package == "timm" else version(package))
    assert network.key(context.dataset, "plain") != key
