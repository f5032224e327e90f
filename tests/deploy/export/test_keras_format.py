"""The `.keras` file: loaded by Keras itself, it says what the classifier says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import thawlab
from thawlab.deploy.export.keras_layers import emit
from thawlab.errors import UsageError
from thawlab.models.catalog import BackboneSpec
from thawlab.models.classifier import Classifier, build_backbone, feature_width, make_head
from thawlab.models.keras.writing import Description

keras: Any = pytest.importorskip("keras")
SIDE = 32
SMALL = ["cnn5", "vgg10", "resnet20", "speednet", "mobilenetv2_035", "mobilenetv3_small_050"]
LARGE = [
    "convnext_atto",
    "resnet50",
    "vgg16",
    "tf_efficientnet_lite0",
    "tf_efficientnetv2_b0",
    "efficientnet_b0",
    "densenet121",
    "regnety_002",
    "resnext50_32x4d",
    "ghostnet_100",
    "mobilenetv4_conv_small",
]


def classifier(name: str) -> Classifier:
    spec = BackboneSpec(name, name, "timm", {}, {"input_size": (3, SIDE, SIDE)})
    backbone = build_backbone(spec, SIDE)
    for part in backbone.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    head = make_head(feature_width(backbone), (8,), (0.2,), 5)
    torch.nn.init.normal_(head[-1].weight, std=0.3)
    return Classifier(backbone, head).eval()


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_keras_computes_the_same_network(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = classifier(name)
    description = Description((SIDE, SIDE, 3))
    program = torch.export.export(network, (torch.zeros(2, 3, SIDE, SIDE),))
    (tmp_path / "model.keras").write_bytes(description.save(emit(description, program, description.input)))
    images = np.random.default_rng(0).uniform(-1, 1, (3, SIDE, SIDE, 3)).astype(np.float32)
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    found = np.asarray(loaded(images, training=False).detach())
    with torch.no_grad():
        wanted = network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("backbone", ["cnn5", "resnet20"])
def test_a_run_becomes_a_file_that_keras_reads(backbone: str, tmp_path: Path) -> None:
    run = thawlab.train("shapes:300x32", runs=tmp_path, backbone=backbone, size=32, **{"phases.0.epochs": 1})
    [exported] = thawlab.export(run, ["keras"])
    assert exported.parity["agreement"] == 1.0
    assert exported.parity["largest"] < 1e-4
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    model = keras.saving.load_model(exported.folder / "model.keras", compile=False)
    found = np.asarray(model(images.astype(np.float32), training=False).detach())
    predictor = thawlab.load(run)
    for row, image in zip(found, images, strict=True):
        answer = predictor.predict(image, len(predictor.classes))
        wanted = dict(zip(answer.classes, answer.probabilities, strict=True))
        np.testing.assert_allclose(row, [wanted[name] for name in predictor.classes], atol=1e-4)
    again = (exported.folder / "model.keras").read_bytes()
    [second] = thawlab.export(run, ["keras"], out=tmp_path / "again")
    assert (second.folder / "model.keras").read_bytes() == again


def test_a_transformer_is_refused_with_its_operation() -> None:
    import timm

    network = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3).eval()
    description = Description((32, 32, 3))
    program = torch.export.export(network, (torch.zeros(2, 3, 32, 32),))
    with pytest.raises(UsageError, match=r"no layer of Keras stands for .*take onnx or torch"):
        emit(description, program, description.input)
