"""What tests of Keras' files share: models whose statistics matter, and what our networks say of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from thawlab.models.keras import SCALINGS
from thawlab.models.keras.file import read_keras
from thawlab.models.keras.graph import KerasNetwork, state_of
from thawlab.models.keras.imported import Backbone, Head, build_network
from thawlab.models.keras.translate import translate


def noisy(model: Any) -> Any:
    """Give BatchNorm statistics that matter."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith("moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.path.endswith("moving_mean"):
            weight.assign(rng.normal(0, 0.1, weight.shape))
    return model


def pixels(count: int = 3, side: int = 16) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3)).astype(np.float32)


def outputs(path: Path, images: np.ndarray) -> np.ndarray:
    """What our graph of a file says of images."""
    model = translate(read_keras(path))
    network = KerasNetwork(model.nodes, 1)
    network.load_state_dict(state_of(model.nodes, model.arrays))
    with torch.inference_mode():
        result = network.eval()(torch.from_numpy(images).permute(0, 3, 1, 2))
    return (result.permute(0, 2, 3, 1) if result.ndim == 4 else result).numpy()


def logits(network: Backbone, head: Head | None, images: np.ndarray) -> np.ndarray:
    mean, std, _ = SCALINGS[network.scaling]
    module = build_network(network.arguments)
    module.load_state_dict(network.state)
    with torch.inference_mode():
        inputs = ((torch.from_numpy(images) / 255 - torch.tensor(mean)) / torch.tensor(std)).float()
        features = module.eval()(inputs.permute(0, 3, 1, 2))
        return (features if head is None else features @ head.weight.T + head.bias).numpy()


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
