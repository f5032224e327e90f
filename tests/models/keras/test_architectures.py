"""Weights without a description, of networks of keras.applications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_oracle import logits, noisy, pixels

from thawlab.errors import UsageError
from thawlab.models.catalog import resolve_backbone
from thawlab.models.keras.imported import read_backbone, read_classifier

keras: Any = pytest.importorskip("keras")
A = keras.applications
SIDE = 32
NETWORKS = {
    "MobileNetV2": (A.mobilenet_v2, "symmetric", {"alpha": 0.35}),
    "ResNet50": (A.resnet50, "caffe", {}),
    "VGG16": (A.vgg16, "caffe", {}),
    "EfficientNetB0": (A.efficientnet, "raw", {}),
    "EfficientNetV2B0": (A.efficientnet_v2, "raw", {}),
}
CASES = [pytest.param(name, marks=[] if name == "MobileNetV2" else [pytest.mark.slow]) for name in NETWORKS]


@pytest.mark.parametrize("name", CASES)
def test_weights_alone_are_recognised_and_agree(name: str, tmp_path: Path) -> None:
    module, scaling, more = NETWORKS[name]
    base = noisy(getattr(A, name)(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3), **more))
    base.save_weights(tmp_path / "notop.weights.h5")
    images = pixels(2, SIDE)
    wanted = np.asarray(base(module.preprocess_input(images.copy()), training=False).detach()).mean((1, 2))
    network = read_backbone(tmp_path / "notop.weights.h5")
    assert (network.scaling, network.arguments["reduction"]) == (scaling, 32)
    np.testing.assert_allclose(logits(network, None, images), wanted, atol=1e-4 * np.abs(wanted).max())
    with pytest.raises(UsageError, match="holds no classifier"):
        read_classifier(tmp_path / "notop.weights.h5")


@pytest.mark.parametrize("name", CASES)
def test_with_its_classifier_a_network_gives_keras_logits(name: str, tmp_path: Path) -> None:
    module, _, more = NETWORKS[name]
    options = {"include_top": True, "classes": 6, "classifier_activation": None, "input_shape": (SIDE, SIDE, 3)}
    model = noisy(getattr(A, name)(weights=None, **options, **more))
    images = pixels(2, SIDE)
    wanted = np.asarray(model(module.preprocess_input(images.copy()), training=False).detach())
    model.save_weights(tmp_path / "model.weights.h5")
    model.save(tmp_path / "model.keras")
    for file in ("model.weights.h5", "model.keras"):
        network, head = read_classifier(tmp_path / file, size=SIDE)
        np.testing.assert_allclose(logits(network, head, images), wanted, atol=1e-4 * np.abs(wanted).max())


def test_other_weights_are_refused_with_what_is_known(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 3), keras.layers.Flatten()])
    model.save_weights(tmp_path / "small.weights.h5")
    with pytest.raises(UsageError, match=r"holds weights without a description.*save the whole model"):
        read_backbone(tmp_path / "small.weights.h5")
    with pytest.raises(UsageError, match=r"model.backbone: .*holds weights without"):
        resolve_backbone(f"keras:{tmp_path / 'small.weights.h5'}")
