"""Compared runs and variants in memory: a recipe, and which test images the run gets right."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from thawlab.comparison.runs import Answers, ComparedRun, Variant, variants_of
from thawlab.comparison.settings import settings
from thawlab.recipe import Recipe

KNOWN = {"data.fingerprint": "f1", "model.weights": "w1", "thawlab": "1.0"}


@pytest.fixture
def made(recipe: Callable[..., Recipe]) -> Callable[..., ComparedRun]:
    """Make a run of a small recipe with overrides; `known` is what its recipe does not say."""

    def make(
        overrides: Sequence[str] = (),
        right: Sequence[bool] | np.ndarray = (True, False, True, True),
        *,
        images: str = "images",
        val: Sequence[bool] | np.ndarray | None = None,
        val_images: str = "val",
        known: Mapping[str, Any] | None = None,
        phases: Sequence[Mapping[str, Any]] | None = None,
    ) -> ComparedRun:
        own = recipe(*overrides, **({"phases": list(phases)} if phases else {}))
        answers = Answers(np.asarray(right, dtype=bool), images)
        chosen = answers if val is None else Answers(np.asarray(val, dtype=bool), val_images)
        results = SimpleNamespace(test=SimpleNamespace(accuracy=float(answers.right.mean())))
        folder = SimpleNamespace(name=f"{own.name}-{own.digest[:8]}", path=Path(own.digest))
        everything = {**settings(own), **KNOWN, **(known or {})}
        return ComparedRun(folder, own, results, everything, chosen, answers)  # type: ignore[arg-type]

    return make


@pytest.fixture
def grid_of(made: Callable[..., ComparedRun]) -> Callable[..., list[Variant]]:
    """Make the variants of a grid: table is levels × … × seeds × images, changes the overrides of each level of each factor."""

    def make(table: np.ndarray, changes: Sequence[Sequence[Sequence[str]]]) -> list[Variant]:
        runs = []
        for cell in itertools.product(*(range(len(levels)) for levels in changes)):
            overrides = [text for place, level in enumerate(cell) for text in changes[place][level]]
            runs += [made([*overrides, f"seed={seed}"], row) for seed, row in enumerate(table[cell])]
        return variants_of(runs)

    return make
