"""How long the cells of a study take, estimated from finished ones or from a few timed steps."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from thawlab.data.selection import open_data
from thawlab.data.splits import make_splits
from thawlab.environment import on_threads
from thawlab.errors import ThawlabError
from thawlab.models.catalog import resolve_backbone
from thawlab.models.classifier import build_backbone
from thawlab.models.hooks import eval_mode
from thawlab.recipe import Recipe
from thawlab.results import read_results
from thawlab.studies.design import Cell
from thawlab.studies.folder import StudyFolder
from thawlab.training.phase_data import trains_on_features

_BATCH, _TRIALS = 16, 3
# Of a cell whose features are there already: data and judging, and a head's pass over one image (results/study-cost.json: 1.38 s
# and 7.74 s of 10,000 test images; 4.42 s for 15 epochs of 9,000 images).
_JUDGING_SECONDS, _HEAD_SECONDS = 9.1, 3.3e-5


class Cost(NamedTuple):
    """The seconds that a cell is expected to take, and whether finished cells of its variant tell it."""

    seconds: float
    measured: bool


class _Rates(NamedTuple):
    """Seconds per image: of a forward pass, and of a training step."""

    forward: float
    step: float


class _Sizes(NamedTuple):
    train: int
    val: int
    test: int


def costs(cells: Sequence[Cell], finished: Sequence[bool], folder: StudyFolder, threads: int) -> list[Cost]:
    """Return what each cell costs; nothing for one that has finished.

    Where a cell of the same variant has finished, its own time is the estimate. Otherwise a forward pass and a training step
    of the network are timed on a few images, with the number of threads that the cell will have; features that several cells
    share are counted once.
    """
    known = _known(cells, finished, folder)
    rates: dict[tuple[str, int | None], _Rates] = {}
    sizes: dict[str, _Sizes] = {}
    shared: set[tuple[str, int | None]] = set()
    result = []
    with on_threads(threads):
        for cell, done in zip(cells, finished, strict=True):
            if done:
                result.append(Cost(0.0, True))
            elif cell.variant in known:
                result.append(Cost(known[cell.variant], True))
            else:
                network = (cell.recipe.model.backbone, cell.recipe.data.image_size)
                rate = rates.get(network) or rates.setdefault(network, _timed(cell.recipe))
                data = cell.recipe.data.model_dump_json()
                size = sizes.get(data) or sizes.setdefault(data, _sizes(cell.recipe))
                result.append(Cost(_seconds(cell.recipe, rate, size, network in shared), False))
                shared.add(network)
    return result


def _known(cells: Sequence[Cell], finished: Sequence[bool], folder: StudyFolder) -> dict[str, float]:
    seconds: dict[str, list[float]] = {}
    for cell, done in zip(cells, finished, strict=True):
        if done:
            try:
                total = read_results(folder.path.joinpath(cell.run, "results.json")).seconds["total"]
            except ThawlabError:
                continue  # it will be repaired, and says then what is wrong
            seconds.setdefault(cell.variant, []).append(total)
    return {variant: float(np.median(values)) for variant, values in seconds.items()}


def _timed(recipe: Recipe) -> _Rates:
    assert recipe.data.image_size is not None, "a closed recipe has an image size"
    backbone = build_backbone(resolve_backbone(recipe.model.backbone), recipe.data.image_size)
    backbone.to(memory_format=torch.channels_last)
    size = recipe.data.image_size
    images = torch.rand(_BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)

    def forward() -> None:
        with torch.no_grad(), eval_mode(backbone):
            backbone(images)

    def step() -> None:
        backbone(images).square().mean().backward()

    return _Rates(_median(forward), _median(step))


def _median(work: Callable[[], None]) -> float:
    seconds = []
    for _ in range(_TRIALS + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:])) / _BATCH  # the first one allocates


def _sizes(recipe: Recipe) -> _Sizes:
    data = recipe.data
    splits = make_splits(open_data(data, recipe.system), recipe.seed, data.train_size, data.val, data.test, data.long_tail)
    return _Sizes(len(splits.train), len(splits.val), len(splits.test))


def _seconds(recipe: Recipe, rate: _Rates, size: _Sizes, features_shared: bool) -> float:
    total = _JUDGING_SECONDS
    last_cached = False
    for phase in recipe.phases:
        last_cached = trains_on_features(phase)
        if last_cached:
            features = 0.0 if features_shared else (size.train + size.val) * (phase.views or 1) * rate.forward
            total += features + phase.epochs * size.train * _HEAD_SECONDS
        else:
            total += phase.epochs * (size.train * rate.step + size.val * rate.forward)
    if not (last_cached and features_shared):
        total += (size.test if last_cached else size.test + size.train + size.val) * rate.forward
    return total
