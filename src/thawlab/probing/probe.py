"""A probe: heads on the cached features of several frozen backbones, fitted to few and to all images."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, final

import numpy as np
import torch

from thawlab import progress
from thawlab.comparison.paired import compare_predictions
from thawlab.data.content import hash_files
from thawlab.data.dataset import Dataset, decode_all
from thawlab.data.depth import with_grey_range
from thawlab.data.listing import Listing
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.selection import open_data
from thawlab.data.splits import Splits, absent_classes, make_splits
from thawlab.environment import deterministic
from thawlab.errors import ThawlabError, UsageError
from thawlab.evaluation.predictions import Logits, Predictions, predictions_of
from thawlab.files import cache_folder, read_json, write_json
from thawlab.inference.feature_cache import FrozenNetwork, Rows, cached_rows, frozen_backbone
from thawlab.models.catalog import BackboneSpec
from thawlab.models.classifier import build_backbone, check_size
from thawlab.probing.draws import draw, planned_shots
from thawlab.probing.heads import HEADS, Fitted, Samples, coordinates, standardiser
from thawlab.probing.result import Probe, ProbedBackbone, ProbedHead, Verdict, images_interval
from thawlab.randomness import derive
from thawlab.recipe import Data, System

# The splits are those of `thawlab train` with its default seed, so that both say something about the same test images.
_SEED = 0
# Of fewer images than this the seconds per image say little about the rest.
_TIMED = 32

Input = tuple[BackboneSpec, Preprocessing]


@final
class _OneFit(NamedTuple):
    """A head fitted to one draw, and its scores of the test images."""

    fitted: Fitted
    scores: Logits
    seconds: float


@final
class _Measured(NamedTuple):
    """A row of the result, and the predictions of its first draw on the test images."""

    row: ProbedHead
    first: Predictions


def probe(data: Data, inputs: Sequence[Input], system: System, shots: Sequence[int | None], draws: int) -> Probe:
    """Fit heads to the frozen features of backbones.

    Hyperparameters are chosen on val; the test images are scored once, with what was chosen.

    Args:
        data: the images.
        inputs: backbones, each with how it takes images.
        system: says where caches are.
        shots: images a class, without repetition; None for all.
        draws: how many subsets of the training images are drawn for each number of shots; of all images there is one.

    Raises:
        UsageError: if a backbone cannot take its size, or the images do not suffice.
        ThawlabError: if weights cannot be had, or too many images are bad.
    """
    listing = open_data(data, system)
    inputs = [(spec, with_grey_range(look, listing)) for spec, look in inputs]
    splits = make_splits(listing, _SEED, data.train_size, data.val, data.test)
    for split in ("val", "test"):
        if not len(getattr(splits, split)):
            raise UsageError(f"{listing.name}: no images are left for the {split} split; a probe needs a few in each class")
    planned_shots(listing.labels[splits.train], listing.classes, shots)
    for spec, preprocessing in inputs:
        check_size(build_backbone(spec, preprocessing.size), spec, preprocessing.size, "sizes")
    with deterministic(system.threads):
        datasets, unreadable = _decoded(listing, splits, inputs, system)
        labels = listing.labels[datasets[0].splits.train]
        kept, skipped = planned_shots(labels, listing.classes, shots)
        backbones, measured = [], list[_Measured]()
        for (spec, preprocessing), dataset in zip(inputs, datasets, strict=True):
            backbone, rows = _features(frozen_backbone(spec, preprocessing), spec, dataset, system)
            backbones.append(backbone)
            measured += _fit_all(backbone, rows, dataset, kept, draws)
    return Probe(
        name=listing.name,
        fingerprint=datasets[0].fingerprint,
        classes=listing.classes,
        n={split: len(datasets[0].indices(split)) for split in ("train", "val", "test")},
        backbones=tuple(backbones),
        heads=tuple(row for row, _ in measured),
        verdict=decide(measured),
        notes=(*skipped, *unreadable),
    )


def _decoded(listing: Listing, splits: Splits, inputs: Sequence[Input], system: System) -> tuple[list[Dataset], list[str]]:
    """Return the images as each backbone takes them, all with the same splits, and a note of those that are left out."""
    scan = hash_files(listing, system.workers)
    decoded = {look.geometry: decode_all(listing, look, system, splits, scan) for _, look in inputs}
    datasets = [decoded[look.geometry] for _, look in inputs]
    # An image that one size can decode and another cannot would be counted for one backbone only.
    bad = dict(pair for dataset in decoded.values() for pair in dataset.quarantined)
    gone = np.array([identifier in bad for identifier in listing.ids])
    common = Splits(*(part[~gone[part]] for part in splits))
    if missing := absent_classes(common.train, listing.labels, listing.classes):
        raise ThawlabError(f"{listing.name}: no training image of '{missing[0]}' can be decoded; add some or remove the class")
    notes = [f"{len(bad)} images cannot be decoded and are left out, the first is {next(iter(bad))}"] if bad else []
    return [replace(dataset, splits=common) for dataset in datasets], notes


def _features(network: FrozenNetwork, spec: BackboneSpec, dataset: Dataset, system: System) -> tuple[ProbedBackbone, Rows]:
    """Return the features of all images by index, and what is known of them; only those that the cache lacks are computed."""
    needed = np.sort(np.concatenate(dataset.splits))
    folder = cache_folder(system.cache_dir, "features")
    computed = len(network.store(dataset, "plain", folder).missing(needed))
    started = time.perf_counter()
    rows = cached_rows(network, dataset, needed, folder)
    taken = time.perf_counter() - started
    # What computing took is kept: a later probe that finds the features in the cache cannot measure it again.
    file = cache_folder(system.cache_dir, "probe") / f"{network.key(dataset, 'plain')}.json"
    if computed >= _TIMED:
        write_json(file, {"seconds_per_image": taken / computed})
    per_image: float | None = None
    with contextlib.suppress(ThawlabError, KeyError):  # of a cache that lost it, nobody knows
        per_image = read_json(file)["seconds_per_image"]
    backbone = ProbedBackbone(
        backbone=spec.name,
        size=network.preprocessing.size,
        parameters=sum(parameter.numel() for parameter in network.module.parameters()),
        width=int(np.prod(rows.shape[1:])),
        images=len(needed),
        computed=computed,
        seconds=None if per_image is None else per_image * len(needed),
    )
    return backbone, rows


def _fit_all(backbone: ProbedBackbone, rows: Rows, dataset: Dataset, shots: Sequence[int | None], draws: int) -> list[_Measured]:
    """Fit every head to every draw of every number of shots."""
    repeated = [(count, draws if count is not None else 1) for count in shots]
    measured: list[_Measured] = []
    with progress.task(backbone.label, sum(times for _, times in repeated) * len(HEADS), "heads") as advance:
        for count, times in repeated:
            fitted: dict[str, list[_OneFit]] = {head: [] for head in HEADS}
            for number in range(times):
                train, val, test = _standardised(rows, dataset, count, number)
                for head in HEADS:
                    fitted[head].append(_fit(head, train, val, test, len(dataset.classes), number))
                    advance(1)
            measured += [_row(backbone, dataset, head, count, len(train.labels), fits) for head, fits in fitted.items()]
    return measured


def _standardised(rows: Rows, dataset: Dataset, shots: int | None, number: int) -> tuple[Samples, Samples, torch.Tensor]:
    """Return the training samples of a draw, the val samples, and the features of the test images, by training's statistics."""
    chosen = dataset.splits.train[draw(dataset.labels[dataset.splits.train], shots, derive(_SEED, "probe", "draw", number))]
    train, val, test = (torch.from_numpy(rows.take(part, axis=0)) for part in (chosen, *dataset.splits[1:]))
    scaled = standardiser(train)
    train = scaled(train)
    placed, labels = coordinates(train), torch.from_numpy(dataset.labels)
    samples = Samples(placed(train), labels[chosen]), Samples(placed(scaled(val)), labels[dataset.splits.val])
    return *samples, placed(scaled(test))


def _fit(head: str, train: Samples, val: Samples, test: torch.Tensor, classes: int, number: int) -> _OneFit:
    """Fit a head, and score the test images once with what val chose."""
    started = time.perf_counter()
    fitted = HEADS[head](train, val, classes, derive(_SEED, "probe", "fit", number))
    scores = fitted.score(test).numpy()
    return _OneFit(fitted, scores, time.perf_counter() - started)


def _row(
    backbone: ProbedBackbone, dataset: Dataset, head: str, shots: int | None, n_train: int, fits: Sequence[_OneFit]
) -> _Measured:
    """Compare the answers of a head's draws with the labels of the test images."""
    tables = [predictions_of(dataset, dataset.splits.test, one.scores) for one in fits]
    right = np.stack([table.predicted == table.labels for table in tables])
    row = ProbedHead(
        of=backbone,
        head=head,
        shots=shots,
        n_train=n_train,
        tests=tuple(right.mean(axis=1).tolist()),
        vals=tuple(one.fitted.val_accuracy for one in fits),
        chosen=tuple(one.fitted.chosen for one in fits),
        ci95_images=images_interval(right),
        seconds=sum(one.seconds for one in fits),
    )
    return _Measured(row, tables[0])


def decide(measured: Sequence[_Measured]) -> Verdict:
    """Return which backbone is best by val when fitted to most images, with the paired test against the next one.

    Of equal ones the smaller backbone is preferred. Another size of the best backbone counts as the next one only where no
    other backbone was probed.
    """
    most = measured[-1].row.shots
    ranked = sorted((one for one in measured if one.row.shots == most), key=lambda one: (-one.row.val, one.row.of.parameters))
    best = ranked[0]
    others = [one for one in ranked if one.row.of.backbone != best.row.of.backbone]
    others = others or [one for one in ranked if one.row.of != best.row.of]
    if not others:
        return Verdict(best.row)
    return Verdict(best.row, others[0].row, compare_predictions(best.first, others[0].first))
