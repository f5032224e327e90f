"""The end of a run: the test split is read once, and everything measured goes into the folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import numpy as np
import torch

from thawlab.data.dataset import Dataset, foreign_datasets
from thawlab.data.preprocessing import to_tensor
from thawlab.errors import ThawlabError
from thawlab.evaluation.abstention import abstention
from thawlab.evaluation.diagnosis.curves import from_curves
from thawlab.evaluation.diagnosis.findings import after_training, ordered
from thawlab.evaluation.metrics.calibration import fit_temperature
from thawlab.evaluation.metrics.measures import accuracy_interval, brief, full
from thawlab.evaluation.novelty import Scores, distances, fit_known, measured, sample_of
from thawlab.evaluation.predictions import calibrated, predictions_of
from thawlab.evaluation.views import View, view_sets
from thawlab.files import write_json
from thawlab.inference.infer import infer
from thawlab.judging.kept_images import keep_images
from thawlab.judging.outputs import Outputs, OutputsOf
from thawlab.models.saved import Judgement, Known, save_model
from thawlab.quality.label_errors import label_suspects
from thawlab.quality.near_leaks import near_leaks
from thawlab.run import RunFolder
from thawlab.training.energy import joules_between, read_counters
from thawlab.training.setup import Setup
from thawlab.training.state import TrainingState


@final
class Timing:
    """Seconds spent per part of a run."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._counters = read_counters()
        self.parts = {"data": 0.0, "cache": 0.0, "train": 0.0, "evaluate": 0.0}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time of a block to a part."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.parts[part] += time.monotonic() - started

    def joules(self) -> float | None:
        """Return what the processor took since the start of this process's work; None where the system does not tell."""
        return joules_between(self._counters, read_counters())

    def summary(self, trained: float) -> dict[str, float]:
        """Return all parts and the total, rounded to milliseconds.

        Args:
            trained: seconds of all phases, with those of earlier processes where the run was interrupted.
        """
        rest = time.monotonic() - self._started - self.parts["train"]
        return {key: round(value, 3) for key, value in {**self.parts, "train": trained, "total": rest + trained}.items()}


def judge(
    folder: RunFolder,
    setup: Setup,
    state: TrainingState,
    diagnoses: list[dict[str, str]],
    outputs_of: OutputsOf,
    timing: Timing,
) -> None:
    """Evaluate a trained classifier and write the model, predictions and results into its folder."""
    recipe, spec, dataset, classifier = setup.recipe, setup.spec, setup.dataset, setup.classifier
    with timing.measure("evaluate"):
        outputs = {split: outputs_of(dataset, dataset.indices(split), f"evaluating {split}", True) for split in ("val", "test")}
        outputs["train"] = _of_training(outputs_of, dataset, recipe.seed)
        tables = {split: predictions_of(dataset, dataset.indices(split), part.logits) for split, part in outputs.items()}
        if not all(np.isfinite(table.logits).all() and np.isfinite(brief(table)["loss"]) for table in tables.values()):
            raise ThawlabError("the trained classifier's outputs are no numbers; lower the lr of its phases")
        temperature = fit_temperature(tables["val"].logits, tables["val"].labels) if recipe.evaluation.calibrate else 1.0
        known, novelty = _novelty(setup, outputs, outputs_of, temperature)
        declining = abstention(tables["val"], tables["test"], temperature)
        judgement = Judgement(temperature, declining.get("conformal", {}).get("threshold"), known)
        save_model(folder.model, classifier, spec, dataset.classes, setup.preprocessing, recipe.model, judgement)
        for split in ("val", "test"):
            tables[split].save(folder.predictions(split))
        suspects = label_suspects(tables["val"], tables["test"], dataset.classes, temperature)
        near = near_leaks(dataset)
        keep_images(folder, setup, tables["test"], [entry["id"] for entry in suspects["first"]], near)
        averaged = _averaged(setup) if recipe.evaluation.tta and len(dataset.splits.test) else None
        train, test = (
            brief(tables["train"]),
            full(tables["test"], dataset.classes, temperature, recipe.evaluation.ece_bins),
        )
    results: dict[str, Any] = {
        "schema": 1,
        "name": recipe.name,
        "digest": recipe.digest,
        "seed": recipe.seed,
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            **{f"n_{split}": len(dataset.indices(split)) for split in ("train", "val", "test")},
            "classes": list(dataset.classes),
        },
        "model": {"backbone": spec.name, "parameters": sum(parameter.numel() for parameter in classifier.parameters())},
        "phases": state.phases,
        "train": {"loss": train["loss"], "accuracy": train["accuracy"]},
        "val": brief(tables["val"]),
        "test": test,
        "abstention": declining,
        "novelty": novelty,
        "label_suspects": suspects,
        "near_duplicates": near.as_json(dataset.ids) if near else {},
        "gap": train["accuracy"] - test["accuracy"],
        "diagnoses": [],
        "seconds": timing.summary(sum(phase["seconds"] for phase in state.phases)),
    }
    joules = timing.joules()
    if joules is not None:
        results["energy_joules"] = joules
    if averaged is not None:
        results["test_time_augmentation"] = averaged
    results["diagnoses"] = ordered([*diagnoses, *from_curves(state.rows, results), *after_training(results)])
    write_json(folder.results, results)


def _of_training(outputs_of: OutputsOf, dataset: Dataset, seed: int) -> Outputs:
    """Return the logits of all training images, with the features of a sample: those of all would fill the memory."""
    train = dataset.splits.train
    sample = sample_of(dataset.labels[train], seed)
    rest = np.setdiff1d(np.arange(len(train)), sample)
    some, others = (
        outputs_of(dataset, train[part], "evaluating train", with_features)
        for part, with_features in ((sample, True), (rest, False))
    )
    logits = np.empty((len(train), len(dataset.classes)), dtype=np.float32)
    logits[sample], logits[rest] = some.logits, others.logits
    return Outputs(logits, some.features)


def _novelty(
    setup: Setup, outputs: dict[str, Outputs], outputs_of: OutputsOf, temperature: float
) -> tuple[Known | None, dict[str, Any]]:
    """Return what is known, for predictions, and how well it tells foreign images; nothing where nothing was held out."""
    dataset = setup.dataset
    if not (len(outputs["val"].logits) and len(outputs["test"].logits)):
        return None, {}
    known = fit_known(outputs["train"].features, outputs["val"].features)

    def scores(part: Outputs) -> tuple[Scores, Scores]:
        return distances(part.features, known.features), calibrated(part.logits, temperature).max(axis=1)

    strange = {
        other.name: outputs_of(other, other.splits.test, "foreign images", True)
        for other in foreign_datasets(setup.preprocessing, setup.recipe.system, dataset.name)
    }
    foreign = {name: scores(part) for name, part in strange.items()}
    return known, measured(known, scores(outputs["val"]), scores(outputs["test"]), foreign)


def _averaged(setup: Setup) -> dict[str, Any]:
    """Return loss and accuracy on the test split with the mean of the logits over several views of each image."""
    dataset, preprocessing = setup.dataset, setup.preprocessing
    indices = dataset.splits.test
    total = np.zeros((len(indices), len(dataset.classes)), dtype=np.float32)
    for view in view_sets.get(setup.recipe.evaluation.tta or ""):

        def prepare_rows(rows: torch.Tensor, view: View = view) -> torch.Tensor:
            return preprocessing.normalize(view.of(to_tensor(rows)))

        logits = infer(setup.classifier, dataset.images, indices, prepare_rows, setup.device, "test-time augmentation")
        total += np.float32(view.weight) * logits
    table = predictions_of(dataset, indices, total)
    correct = int((table.predicted == table.labels).sum())
    return {"views": setup.recipe.evaluation.tta, **brief(table), "accuracy_ci95": accuracy_interval(correct, len(indices))}
