"""The formats that a classifier is exported to: how each is written, read again, and what it must hold."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from thawlab.data.preprocessing import Preprocessing
from thawlab.data.types import Pixels
from thawlab.models.saved import SavedModel
from thawlab.registry import Registry

# The description beside each graph, and the name under which `torch.export` keeps it inside.
CARD_FILE = "thawlab.json"

Outputs = Mapping[str, npt.NDArray[Any]]
Session = Callable[[Pixels], Outputs]


class Material(NamedTuple):
    """What an exporter makes its file from.

    Attributes:
        model: the saved classifier.
        card: what is stored beside or inside the graph, as JSON values.
        calibration: uint8 images at working size for int8; empty for the other formats.
    """

    model: SavedModel
    card: Mapping[str, Any]
    calibration: Pixels


@final
@dataclass(frozen=True)
class Exporter:
    """A format.

    Attributes:
        write: writes the files into a folder that is empty.
        open: reads them again: from uint8 images, n × height × width × 3, to the outputs by name.
        open_fitted: reads them as `predict --engine` uses them, from images at working size; None where it cannot.
        library: the Hugging Face hub's name of what loads it.
        runtime: the package that the script beside it needs; empty where timm or the like loads it without a script.
        use: how it is used there, as Markdown for the model card; of no account with a `runtime`.
        extra: of ours that brings what it needs, or empty.
        modules: what this extra brings, to be imported.
        tolerance: how far a probability may be from the predictor's.
        agreement: the least share of images with the same most probable class.
        same_decisions: whether each image must be answered, found unsure or found novel alike.
        calibrated: whether it is made from validation images, and judged by its accuracy instead of image by image.
        rounds: whether it is the run's own model, computing in bfloat16; judged by its accuracy, too.
    """

    write: Callable[[Material, Path], None]
    open: Callable[[Path], Session]
    open_fitted: Callable[[Path], Session] | None = None
    library: str = "thawlab"
    runtime: str = ""
    use: str = ""
    extra: str = ""
    modules: tuple[str, ...] = ()
    tolerance: float = 1e-4
    agreement: float = 1.0
    same_decisions: bool = True
    calibrated: bool = False
    rounds: bool = False

    @property
    def by_accuracy(self) -> bool:
        """Whether its accuracy on held-out images decides, and not each of them."""
        return self.calibrated or self.rounds


exporters: Registry[Exporter] = Registry("export format")


def named(names: Sequence[str], values: Sequence[npt.NDArray[np.generic]]) -> Outputs:
    """Return a graph's outputs by name."""
    return dict(zip(names, values, strict=True))


def on_fitted(folder: Path, answer: Callable[[Preprocessing, Pixels], Outputs]) -> Session:
    """Return a session of a file that takes images at working size: they are fitted as `predict` fits them.

    Args:
        folder: of the export, with its description.
        answer: from the preprocessing and fitted images, n × size × size × 3, to the outputs by name.
    """
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    look = Preprocessing.model_validate(card["preprocessing"])

    def session(images: Pixels) -> Outputs:
        fitted = np.stack([look.fit(Image.fromarray(image)) for image in images])
        with torch.inference_mode():
            return answer(look, fitted)

    return session
