"""A run's model folder that computes in bfloat16, for processors that multiply it themselves."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from thawlab.data.types import Pixels
from thawlab.deploy.export.formats import Exporter, Material, Outputs, Session, exporters
from thawlab.deploy.predictor import Predictor
from thawlab.environment import has_fast_bfloat16
from thawlab.errors import UsageError
from thawlab.models.saved import load_model, save_model

NAME = "bfloat16"


def open_rounded(folder: Path) -> Predictor:
    """Load an export, ready to predict.

    Raises:
        UsageError: if this processor has no products of bfloat16.
        ThawlabError: if a file is missing or damaged.
    """
    _refuse_imitation()
    return Predictor(load_model(folder), "cpu", rounds=True)


def _write(material: Material, folder: Path) -> None:
    _refuse_imitation()
    # Weights are rounded when they are read and carry BatchNorm: rounded here, too, they would lose as much again.
    save_model(folder, *material.model)


def _refuse_imitation() -> None:
    if not has_fast_bfloat16(torch.device("cpu")):
        raise UsageError(f"{NAME}: this processor has no products of bfloat16, and would imitate them slowly; take onnx, or none")


def _open(folder: Path) -> Session:
    predictor = open_rounded(folder)

    def answer(images: Pixels) -> Outputs:
        return predictor.answer(np.stack([predictor.preprocessing.fit(Image.fromarray(image)) for image in images]))

    return answer


_USE = (
    f"`thawlab predict RUN photos/ --engine {NAME}` where the run holds this folder as `exports/{NAME}`; it is a copy of the "
    "run's `model` folder, whose weights are rounded when they are read."
)
exporters.register(NAME)(
    Exporter(_write, _open, open_predictor=open_rounded, use=_USE, tolerance=0.05, same_decisions=False, by_accuracy=True)
)
