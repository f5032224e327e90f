from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from thawlab.errors import ThawlabError, UsageError
from thawlab.models.catalog import BackboneSpec, fetch_network, resolve_backbone
from thawlab.models.classifier import (
    build_backbone,
    build_classifier,
    feature_map_side,
    load_weights,
    make_head,
    make_preprocessing,
    save_backbone,
    weights_digest,
)
from thawlab.recipe import Recipe


def _tiny(seed: int = 0) -> nn.Module:
    """Return a tiny network of timm's; its BatchNorm statistics are not the ones of a fresh network."""
    torch.manual_seed(seed)
    network: nn.Module = timm.create_model("test_resnet", num_classes=0)
    with torch.no_grad():
        network.train()(torch.rand(8, 3, 32, 32))
    return network.eval()


def _save(network: nn.Module, folder: Path) -> Path:
    save_backbone(network, "test_resnet", network.pretrained_cfg, folder)
    return folder


def _kinds(head: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in head]


def test_a_linear_head_is_one_layer() -> None:
    head = make_head(8, (), (), 3)
    assert _kinds(head) == ["Linear"]
    assert head[0].weight.shape == (3, 8)


def test_dropout_of_a_linear_head_acts_on_the_features() -> None:
    head = make_head(8, (), (0.5,), 3)
    assert _kinds(head) == ["Dropout", "Linear"]
    assert head[0].p == 0.5


def test_each_hidden_layer_has_its_relu_and_its_own_dropout() -> None:
    head = make_head(8, (16, 4), (0.25, 0.1), 3)
    assert _kinds(head) == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert [layer.weight.shape for layer in head if isinstance(layer, nn.Linear)] == [(16, 8), (4, 16), (3, 4)]
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.25, 0.1]


def test_a_rate_of_zero_adds_no_layer() -> None:
    assert _kinds(make_head(8, (16,), (0.0,), 3)) == ["Linear", "ReLU", "Linear"]
    assert _kinds(make_head(8, (), (0.0,), 3)) == ["Linear"]


def test_a_fresh_head_is_nearly_undecided() -> None:
    logits = make_head(256, (), (), 10)(torch.randn(100, 256))
    assert float(logits.detach().softmax(dim=1).max()) < 0.25


def test_the_classifier_is_the_head_on_pooled_features(recipe: Callable[..., Recipe]) -> None:
    classifier = build_classifier(recipe("model.backbone=resnet20"), resolve_backbone("resnet20"), 16, 5).eval()
    x = torch.rand(4, 3, 16, 16)
    with torch.inference_mode():
        features = classifier.backbone(x)
        assert features.shape == (4, 64)
        assert torch.equal(classifier(x), classifier.head(features))
        assert classifier(x).shape == (4, 5)


def test_fresh_weights_depend_on_the_seed_alone(recipe: Callable[..., Recipe]) -> None:
    spec = resolve_backbone("cnn5")
    digests = []
    for noise, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(noise)
        digests.append(weights_digest(build_classifier(recipe(f"seed={seed}", "model.backbone=cnn5"), spec, 16, 3)))
    assert digests[0] == digests[1] != digests[2]


def test_the_head_does_not_depend_on_how_the_backbone_was_drawn(recipe: Callable[..., Recipe]) -> None:
    heads = []
    for name in ("mobilenetv2_035", "mobilenetv2_050"):  # different networks, equally wide features
        spec = resolve_backbone(name)
        chosen = recipe(f"model.backbone={name}", "model.pretrained=false")
        heads.append(build_classifier(chosen, spec, 32, 3).head)
    assert heads[0][0].weight.shape[1] == heads[1][0].weight.shape[1]
    assert weights_digest(heads[0]) == weights_digest(heads[1])


def test_building_leaves_the_global_random_state_as_it_was(recipe: Callable[..., Recipe]) -> None:
    before = torch.get_rng_state().clone()
    build_classifier(recipe("model.backbone=cnn5"), resolve_backbone("cnn5"), 16, 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("name", "size"), [("cnn5", 4), ("cnn5", 9), ("vgg10", 7), ("test_vit", 8)])
def test_a_size_that_a_network_cannot_take_is_said_before_training(recipe: Callable[..., Recipe], name: str, size: int) -> None:
    spec = resolve_backbone(name)
    with pytest.raises(UsageError, match=rf"^data\.image_size = {size}: '{spec.name}' cannot take this size \([^\n]+\)$"):
        build_classifier(recipe(f"model.backbone={name}", "model.pretrained=false"), spec, size, 3)


@pytest.mark.parametrize("name", ["MobileNetV3Small", "MobileNetV2"])
def test_the_head_fits_networks_with_hidden_layers_behind_their_features(recipe: Callable[..., Recipe], name: str) -> None:
    chosen = recipe(f"model.backbone={name}", "model.pretrained=false")
    classifier = build_classifier(chosen, resolve_backbone(name), 80, 3).eval()
    with torch.inference_mode():
        assert classifier(torch.rand(1, 3, 80, 80)).shape == (1, 3)


def test_a_network_of_fixed_size_is_built_for_other_sizes() -> None:
    spec = replace(
        resolve_backbone("timm/test_vit"), config={**resolve_backbone("timm/test_vit").config, "fixed_input_size": True}
    )
    with torch.inference_mode():
        assert build_backbone(spec, 64).eval()(torch.rand(1, 3, 64, 64)).shape == (1, 64)


def test_saved_weights_are_half_precision_and_load_to_the_rounded_values(tmp_path: Path) -> None:
    network = _tiny()
    folder = _save(network, tmp_path / "w")
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}
    spec = resolve_backbone(f"local-dir:{folder}")
    loaded = build_backbone(spec, 32)
    load_weights(loaded, spec, 32)
    for key, value in network.state_dict().items():
        own = loaded.state_dict()[key]
        assert own.dtype == value.dtype
        assert torch.equal(own, value.half().float() if value.is_floating_point() else value), key


def test_weights_from_a_folder_end_up_in_the_classifier(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    name = f"local-dir:{_save(_tiny(), tmp_path / 'w')}"
    spec = resolve_backbone(name)
    kept = load_file(spec.weights) if spec.weights else {}
    pretrained = build_classifier(recipe(f"model.backbone={name}"), spec, 32, 3)
    fresh = build_classifier(recipe(f"model.backbone={name}", "model.pretrained=false"), spec, 32, 3)
    assert torch.equal(pretrained.backbone.state_dict()["conv1.0.weight"], kept["conv1.0.weight"].float())
    assert not torch.equal(fresh.backbone.state_dict()["conv1.0.weight"], kept["conv1.0.weight"].float())
    assert weights_digest(pretrained.head) == weights_digest(fresh.head)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other network"])
def test_damaged_weights_are_named(tmp_path: Path, damage: str) -> None:
    folder = _save(_tiny(), tmp_path / "w")
    file = folder / "model.safetensors"
    content = file.read_bytes()
    if damage == "other network":
        other = timm.create_model("test_efficientnet", num_classes=0)
        save_backbone(other, "test_resnet", other.pretrained_cfg, folder)
    else:
        file.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "text": b"no weights at all, just text"}[damage])
    spec = resolve_backbone(f"local-dir:{folder}")
    with pytest.raises(ThawlabError) as caught:
        load_weights(build_backbone(spec, 32), spec, 32)
    assert str(file) in str(caught.value)
    assert "test_resnet" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_are_fetched_from_a_hub_and_kept(local_hub: Path, tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    network = _tiny(seed=3)
    _save(network, local_hub / "somebody" / "tiny")
    name = "hf-hub:somebody/tiny"
    spec = resolve_backbone(name)
    assert (spec.name, spec.architecture, spec.origin, spec.has_weights) == (name, "test_resnet", "hub", True)
    classifier = build_classifier(recipe(f"model.backbone={name}"), spec, 32, 3)
    expected = {k: v.half().float() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    assert all(torch.equal(value, expected[key]) for key, value in classifier.backbone.state_dict().items())
    assert list((tmp_path / "hub-cache").rglob("model.safetensors"))


def test_weights_fetched_before_are_used_when_the_hub_is_gone(
    local_hub: Path, monkeypatch: pytest.MonkeyPatch, recipe: Callable[..., Recipe]
) -> None:
    from huggingface_hub import constants

    _save(_tiny(seed=3), local_hub / "somebody" / "tiny")
    chosen = recipe("model.backbone=hf-hub:somebody/tiny")
    first = build_classifier(chosen, resolve_backbone("hf-hub:somebody/tiny"), 32, 3)
    closed = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", closed + "/{repo_id}/resolve/{revision}/{filename}")
    started = time.monotonic()
    second = build_classifier(chosen, resolve_backbone("hf-hub:somebody/tiny"), 32, 3)
    assert time.monotonic() - started < 8
    assert weights_digest(first) == weights_digest(second)
    assert constants.HF_HUB_OFFLINE is False


def test_weights_fetched_before_are_used_without_asking_the_hub(
    local_hub: Path, requests: list[str], recipe: Callable[..., Recipe]
) -> None:
    _save(_tiny(seed=3), local_hub / "somebody" / "tiny")
    name = "hf-hub:somebody/tiny"
    chosen = recipe(f"model.backbone={name}")
    first = build_classifier(chosen, resolve_backbone(name), 32, 3)
    assert requests
    requests.clear()
    second = build_classifier(chosen, resolve_backbone(name), 32, 3)
    assert requests == []
    assert weights_digest(first) == weights_digest(second)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interruption_while_fetching_stays_one(
    stop: type[BaseException], local_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(_tiny(), local_hub / "somebody" / "tiny")

    def interrupted(*_: object, **__: object) -> None:
        raise stop

    monkeypatch.setattr("timm.models.load_model_config_from_hf", interrupted)
    with pytest.raises(stop):
        resolve_backbone("hf-hub:somebody/tiny")
    monkeypatch.undo()
    monkeypatch.setattr("thawlab.models.catalog.create", interrupted)
    with pytest.raises(stop):
        fetch_network(BackboneSpec("hf-hub:somebody/tiny", "test_resnet", "hub"))


def test_weights_that_are_not_on_the_hub_are_named(local_hub: Path) -> None:  # noqa: ARG001 - serves nothing
    with pytest.raises(ThawlabError, match=r"'hf-hub:somebody/missing' could not be fetched from http://127\.0\.0\.1:\d+ \("):
        resolve_backbone("hf-hub:somebody/missing")


def test_timm_weights_without_a_network_fail_within_seconds(closed_hub: str) -> None:
    spec = resolve_backbone("timm/test_resnet.r160_in1k")
    backbone = build_backbone(spec, 32)
    started = time.monotonic()
    with pytest.raises(ThawlabError) as caught:
        load_weights(backbone, spec, 32)
    assert time.monotonic() - started < 8
    message = str(caught.value)
    assert all(part in message for part in ("timm/test_resnet.r160_in1k", closed_hub, "local-dir:", "bundled", "from scratch"))
    assert "\n" not in message


def test_preprocessing_comes_from_the_weights_own_config(recipe: Callable[..., Recipe]) -> None:
    spec = resolve_backbone("timm/resnet50.tv_in1k")
    preprocessing = make_preprocessing(recipe("data.resize=crop").data, spec, 96)
    assert (preprocessing.size, preprocessing.resize) == (96, "crop")
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    assert preprocessing.std == (0.229, 0.224, 0.225)
    assert preprocessing.interpolation == spec.config["interpolation"] == "bilinear"
    assert preprocessing.crop_pct == spec.config["crop_pct"] == 0.875


@pytest.mark.parametrize(("normalize", "black", "white"), [("unit", 0.0, 1.0), ("symmetric", -1.0, 1.0)])
def test_other_normalisations_can_be_studied(recipe: Callable[..., Recipe], normalize: str, black: float, white: float) -> None:
    preprocessing = make_preprocessing(recipe(f"data.normalize={normalize}").data, resolve_backbone("resnet50"), 8)
    images = torch.stack([torch.zeros(3, 8, 8), torch.full((3, 8, 8), 255.0)]).to(torch.uint8)
    values = preprocessing.normalize(images)
    assert torch.allclose(values[0], torch.tensor(black), atol=1e-6)
    assert torch.allclose(values[1], torch.tensor(white), atol=1e-6)


def test_an_interpolation_that_pillow_does_not_have_becomes_bicubic(recipe: Callable[..., Recipe]) -> None:
    spec = resolve_backbone("resnet20")
    assert (
        make_preprocessing(recipe().data, replace(spec, config={**spec.config, "interpolation": "random"}), 8).interpolation
        == "bicubic"
    )


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [
        ("resnet20", 32, 8),
        ("speednet", 16, 1),
        ("speednet", 24, 2),
        ("speednet", 32, 3),
        ("timm/resnet50", 32, 1),
        ("resnet18", 100, 4),
    ],
)
def test_the_side_of_the_last_feature_map_is_known(name: str, size: int, side: int) -> None:
    assert feature_map_side(build_backbone(resolve_backbone(name), size), size) == side


def test_the_digest_of_weights_changes_with_any_bit_and_not_with_the_memory_format() -> None:
    network = _tiny()
    digest = weights_digest(network)
    assert weights_digest(network.to(memory_format=torch.channels_last)) == digest
    network.bn1.running_mean[0] += 1e-6
    changed = weights_digest(network)
    assert changed != digest
    network.bn1.num_batches_tracked += 1
    assert weights_digest(network) != changed


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained", "pretrained_cfg", "cache_dir"])
def test_a_description_may_not_have_its_network_read_or_fetch_anything(argument: str, tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    config = {"architecture": "test_resnet", "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}}
    config["model_args"] = {argument: str(tmp_path / "evil.pth")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=f"gives its network {argument}, which no network needs"):
        build_backbone(resolve_backbone(f"local-dir:{tmp_path}"), 32)


def test_a_network_is_not_fetched_by_its_name(tmp_path: Path) -> None:
    config = {"architecture": "hf-hub:evil/network", "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0], "std": [1]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="names the network 'hf-hub:evil/network', which timm does not have"):
        build_backbone(resolve_backbone(f"local-dir:{tmp_path}"), 32)
