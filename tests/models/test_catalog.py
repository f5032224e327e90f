from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from thawlab.errors import ThawlabError, UsageError
from thawlab.models.catalog import BUNDLED, KERAS_NAMES, resolve_backbone
from thawlab.models.classifier import build_backbone, save_backbone
from thawlab.models.overview import backbone_table
from thawlab.models.small import backbones


@pytest.fixture
def weights_folder(tmp_path: Path) -> Path:
    network = timm.create_model("test_resnet", num_classes=0)
    folder = tmp_path / "weights"
    save_backbone(network, "test_resnet", {**network.pretrained_cfg, "mean": (0.1, 0.2, 0.3)}, folder)
    return folder


def test_a_small_network_resolves_without_weights() -> None:
    spec = resolve_backbone("resnet20")
    assert (spec.name, spec.architecture, spec.origin, spec.has_weights) == ("resnet20", "resnet20", "small", False)


@pytest.mark.parametrize("name", list(backbones))
def test_a_small_network_is_known_without_building_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = backbones.get(name)(32).pretrained_cfg
    monkeypatch.setitem(backbones._entries, name, _unbuildable(backbones.get(name)))
    assert resolve_backbone(name).config == built


def _unbuildable(factory: object) -> Callable[[int], nn.Module]:
    def fail(size: int) -> nn.Module:
        raise AssertionError(f"built at {size} px")

    fail.__module__ = factory.__module__
    return fail


def test_a_plugins_network_without_docstring_is_asked_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def undescribed(size: int) -> nn.Module:
        network = nn.Flatten()
        network.pretrained_cfg = {"input_size": (3, size, size)}  # type: ignore[assignment]
        return network

    monkeypatch.setitem(backbones._entries, "undescribed", undescribed)
    assert resolve_backbone("undescribed").config == {"input_size": (3, 32, 32)}
    assert {"name": "undescribed", "kind": "from scratch", "about": ""} in backbone_table()


def test_resolving_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    resolve_backbone("speednet")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", KERAS_NAMES)
def test_every_keras_name_leads_to_weights_that_timm_has(name: str) -> None:
    spec = resolve_backbone(name)
    assert spec.name == KERAS_NAMES[name][0]
    assert spec.name.removeprefix("timm/") in timm.list_pretrained()
    assert spec.has_weights
    assert set(spec.config) >= {"input_size", "mean", "std", "interpolation", "crop_pct"}


@pytest.mark.parametrize("name", KERAS_NAMES)
def test_weights_are_called_the_same_where_timm_converted_them_from_their_authors(name: str) -> None:
    target, relation = KERAS_NAMES[name]
    converted = "tf_" in target or target == "timm/convnext_tiny.fb_in1k"
    assert (relation == "same weights") == converted


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("resnet50", "timm/resnet50.a1_in1k"),
        ("timm/resnet50", "timm/resnet50.a1_in1k"),
        ("timm/resnet50.tv_in1k", "timm/resnet50.tv_in1k"),
        ("resnet50.tv_in1k", "timm/resnet50.tv_in1k"),
        ("mobilenetv2_100", "timm/mobilenetv2_100.ra_in1k"),
    ],
)
def test_timm_names_resolve_to_the_full_name_with_tag(written: str, full: str) -> None:
    spec = resolve_backbone(written)
    assert spec.name == full
    assert resolve_backbone(spec.name) == spec


def test_a_timm_network_without_weights_does_not_claim_any_and_its_name_resolves_again() -> None:
    spec = resolve_backbone("botnet50ts_256")
    assert not spec.has_weights
    assert resolve_backbone(spec.name) == spec


def test_a_local_folder_resolves_to_what_its_config_says(weights_folder: Path) -> None:
    spec = resolve_backbone(f"local-dir:{weights_folder}")
    file = weights_folder / "model.safetensors"
    assert (spec.architecture, spec.origin, spec.weights, spec.has_weights) == ("test_resnet", "local", file, True)
    assert tuple(spec.config["mean"]) == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("resnet1O1", "resnet101"),
        ("ResNet-50", "resnet50"),
        ("MobilNetV2", "MobileNetV2"),
        ("spednet", "speednet"),
        ("bundeld", "bundled"),
        ("timm/resnet50.a1_in1kk", "resnet50.a1_in1k"),
    ],
)
def test_a_wrong_name_gives_the_nearest_right_one_in_one_line(wrong: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=r"^model\.backbone: ") as caught:
        resolve_backbone(wrong)
    message = str(caught.value)
    assert f"did you mean '{nearest}'?" in message
    assert wrong.removeprefix("timm/").split(".")[0] in message
    assert "\n" not in message


@pytest.mark.parametrize("nonsense", ["", "timm/", "zzzzqqqq", "../../etc/passwd"])
def test_a_name_like_no_other_points_at_the_list(nonsense: str) -> None:
    with pytest.raises(UsageError, match=r"there is no backbone .*thawlab models"):
        resolve_backbone(nonsense)


def test_a_wrong_folder_names_its_nearest_sibling(weights_folder: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*weihgts \(did you mean 'weights'\?\)"):
        resolve_backbone(f"local-dir:{weights_folder.with_name('weihgts')}")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"architecture": "resnet18"}'])
def test_a_folder_without_a_usable_config_is_refused(weights_folder: Path, content: str | None) -> None:
    file = weights_folder / "config.json"
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(UsageError, match=r"config\.json is missing or is not a timm config"):
        resolve_backbone(f"local-dir:{weights_folder}")


@pytest.mark.parametrize("broken", ["mean", "std", "input_size"])
def test_a_config_that_lacks_what_preprocessing_needs_is_refused(weights_folder: Path, broken: str) -> None:
    file = weights_folder / "config.json"
    content = json.loads(file.read_text())
    del content["pretrained_cfg"][broken]
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=rf"config\.json.*{broken}"):
        resolve_backbone(f"local-dir:{weights_folder}")


def test_a_folder_with_another_revision_of_our_own_network_is_refused(tmp_path: Path) -> None:
    spec = resolve_backbone("speednet")
    save_backbone(build_backbone(spec, 32), spec.architecture, spec.config, tmp_path)
    assert resolve_backbone(f"local-dir:{tmp_path}").architecture == "speednet"
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "revision": 1}))
    with pytest.raises(UsageError, match=r"config\.json: holds revision 1 of 'speednet', and this version of thawlab builds"):
        resolve_backbone(f"local-dir:{tmp_path}")


def test_a_folder_without_weights_is_refused(weights_folder: Path) -> None:
    (weights_folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"holds no model\.safetensors"):
        resolve_backbone(f"local-dir:{weights_folder}")


def test_the_bundled_weights_are_small_half_precision_and_described() -> None:
    from safetensors.torch import load_file

    spec = resolve_backbone("bundled")
    assert (spec.architecture, spec.origin) == ("speednet", "bundled")
    assert {entry.name for entry in BUNDLED.iterdir()} >= {"config.json", "model.safetensors", "README.md"}
    assert sum(entry.stat().st_size for entry in BUNDLED.iterdir()) < 4_000_000
    tensors = load_file(BUNDLED / "model.safetensors").values()
    assert {str(tensor.dtype) for tensor in tensors if tensor.is_floating_point()} == {"torch.float16"}
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    assert "CIFAR-10" in card
    assert "recipes/speednet.toml" in card and "test accuracy" in card


def test_fetching_without_a_network_says_what_from_where_and_the_other_ways(closed_hub: str) -> None:
    with pytest.raises(ThawlabError) as caught:
        resolve_backbone("hf-hub:somebody/tiny")
    message = str(caught.value)
    assert "hf-hub:somebody/tiny" in message
    assert closed_hub in message
    assert "local-dir:" in message
    assert "--backbone bundled" in message
    assert "\n" not in message
