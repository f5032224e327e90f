"""One module from pixels of any size to probabilities, thresholds included: what every export format holds."""

import copy
from typing import final

import torch
from torch import nn

from thawlab.data.preprocessing import Preprocessing
from thawlab.deploy.export.resize import fitted
from thawlab.evaluation.novelty import NEIGHBOUR
from thawlab.inference.folding import folded
from thawlab.models.classifier import WithFeatures
from thawlab.models.saved import SavedModel

# The outputs, in order; the last three exist where images were held out.
OUTPUTS = ("probabilities", "features", "unsure", "distance", "novel")


def outputs_of(model: SavedModel) -> tuple[str, ...]:
    """Return the names of what `ExportedGraph.forward` gives for a classifier."""
    absent = {"unsure"} if model.card.set_threshold is None else set()
    absent |= {"distance", "novel"} if model.reference is None else set()
    return tuple(name for name in OUTPUTS if name not in absent)


@final
class ExportedGraph(nn.Module):
    """A saved classifier from uint8 RGB to its answer.

    Args:
        model: as `load_model` reads it.
        half: whether the network computes in half precision; preprocessing and calibration never do.
    """

    scale: torch.Tensor
    shift: torch.Tensor
    known: torch.Tensor

    def __init__(self, model: SavedModel, half: bool = False) -> None:
        super().__init__()
        card = model.card
        side = card.preprocessing.size
        network = folded(WithFeatures(model.classifier).eval(), (3, side, side))
        self.network = copy.deepcopy(network).half() if half else network  # what is folded shares parts with the model
        self._half = half
        self._preprocessing: Preprocessing = card.preprocessing
        self._temperature, self._threshold = card.temperature, card.set_threshold
        self.limit = None if model.reference is None else model.reference.limit
        std = torch.tensor(card.preprocessing.std, dtype=torch.float64)
        mean = torch.tensor(card.preprocessing.mean, dtype=torch.float64)
        # The arithmetic of `Preprocessing.normalize`, to the bit.
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("shift", (-mean / std).float())
        if model.reference is not None:
            self.register_buffer("known", torch.from_numpy(model.reference.features.T.copy()))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return what is said of images.

        Args:
            images: uint8 RGB, n × height × width × 3, of any size, upright.

        Returns:
            probabilities: float32, n × classes, calibrated.
            features: float32, n × width, of the pooled layer.
            unsure: bool, n; whether more than one class is in the 90 % prediction set.
            distance: float32, n; one minus the cosine to the fifth nearest training image.
            novel: bool, n; whether the distance exceeds that of 99 % of held-out images.
        """
        values = fitted(images, self._preprocessing)
        inputs = (values * self.scale + self.shift).permute(0, 3, 1, 2)
        logits, features = self.network(inputs.half() if self._half else inputs)
        probabilities = torch.softmax(logits.double() / self._temperature, dim=1)
        features = features.float()
        results = [probabilities.float(), features]
        if self._threshold is not None:
            results.append((probabilities >= self._threshold).sum(dim=1) > 1)
        if self.limit is not None:
            distance = self._distance(features)
            results += [distance, distance.double() > self.limit]
        return tuple(results)

    def _distance(self, features: torch.Tensor) -> torch.Tensor:
        """Return how far images lie from the training images, as `novelty.distances` does."""
        known: torch.Tensor = self.known.float()
        length = torch.sqrt((features * features).sum(dim=1, keepdim=True)).clamp(min=1e-12)
        cosines = torch.matmul((features / length).half().float(), known)
        nearest = torch.topk(cosines, min(NEIGHBOUR, known.shape[1]), dim=1).values
        return 1 - nearest[:, -1]
