"""A run's own model, computing in bfloat16: for processors that multiply it themselves."""

from pathlib import Path

import numpy as np

from thawlab.deploy.export.formats import Exporter, Material, Session, exporters, on_fitted
from thawlab.deploy.predictor import Predictor
from thawlab.models.saved import SavedModel, load_model, save_model


def _write(material: Material, folder: Path) -> None:
    # Weights are rounded when they are read and carry BatchNorm: rounded here, too, they would lose as much again.
    save_model(folder, *material.model)
    predictor, side = _rounded(material.model), material.model.card.preprocessing.size
    predictor.logits(np.zeros((1, side, side, 3), np.uint8))  # a network that cannot be computed so is told of before the gate


def _rounded(model: SavedModel) -> Predictor:
    return Predictor(model, "cpu", rounds=True)


def _open(folder: Path) -> Session:
    predictor = _rounded(load_model(folder))
    return on_fitted(folder, lambda _look, fitted: predictor.answer(fitted))


_USE = (
    "`thawlab predict RUN photos/ --engine bfloat16` where the run holds this folder as `exports/bfloat16`; it is a copy of its "
    "`model` folder, whose weights are rounded when they are read."
)
exporters.register("bfloat16")(Exporter(_write, _open, use=_USE, tolerance=0.05, same_decisions=False, rounds=True))
