"""Opening what a run's folder holds for predictions: its classifier, and an export that computes in its place."""

from __future__ import annotations

from thawlab.deploy.export.export import with_engine
from thawlab.deploy.predictor import Predictor
from thawlab.errors import UsageError
from thawlab.models.saved import load_model, weights_digest
from thawlab.run import RunFolder


def open_predictor(folder: RunFolder, device: str = "auto", engine: str | None = None) -> Predictor:
    """Load the classifier of a run, ready to predict.

    Args:
        folder: of the run.
        device: where it computes: "cpu", "cuda", or "auto" for a GPU if there is one.
        engine: an export of the run that computes instead, on the CPU.

    Raises:
        UsageError: if there is no such export of it, or no such device.
        ThawlabError: if its model is missing or damaged.
    """
    if engine is None:
        return Predictor(load_model(folder.model), device)
    if device not in {"auto", "cpu"}:
        raise UsageError(f"--engine {engine} computes on the CPU; leave out --device {device}")
    return with_engine(folder, engine)


def model_digest(folder: RunFolder, engine: str | None = None) -> str:
    """Return what tells whose predictions a table holds: the weights, and what computes with them."""
    digest = weights_digest(folder.model)
    return digest if engine is None else f"{digest} {engine}"
