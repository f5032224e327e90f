"""timm's networks by name; where timm's families of networks may wait, only the one that is asked for is imported."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from thawlab.late_imports import load, waits


def is_architecture(name: str) -> bool:
    """Return whether timm has a network of a name."""
    from timm.models._registry import is_model

    if not is_model(name) and waits("timm.models"):
        family = _family(name)
        if family is None:  # no network, or a name of old, which only the whole knows
            load("timm.models")
        else:
            import_module(f"timm.models.{family}")
    found: bool = is_model(name)
    return found


def pretrained_config(tagged: str) -> Any:
    """Return timm's config of a network with or without a tag of weights; None if it has no such tag."""
    from timm.models._registry import get_arch_pretrained_cfgs, get_pretrained_cfg

    architecture, _, tag = tagged.partition(".")
    if not is_architecture(architecture) or (tag and tagged not in get_arch_pretrained_cfgs(architecture)):
        return None
    return get_pretrained_cfg(tagged)


def pretrained_names(architecture: str) -> list[str]:
    """Return the names with tags under which a network has weights."""
    from timm.models._registry import get_arch_pretrained_cfgs

    configs = get_arch_pretrained_cfgs(architecture) if is_architecture(architecture) else {}
    return sorted(name for name, config in configs.items() if config.has_weights)


def create(architecture: str, source: str | None = None, **arguments: Any) -> nn.Module:
    """Return a network as `timm.create_model` makes it.

    Args:
        architecture: of it.
        source: what else names it and its weights: a tag, a folder or a repository; the architecture if None.
        **arguments: of timm's factory.
    """
    from timm.models._factory import create_model

    is_architecture(architecture)
    network: nn.Module = create_model(source or architecture, **arguments)
    return network


def _family(name: str) -> str | None:
    """Return which of timm's modules registers a network, as their texts have it."""
    if not name.isidentifier():
        return None
    defined = re.compile(rb"^@register_model\b.*\n(?:@.*\n)*def %s\(" % name.encode(), re.MULTILINE)
    for folder in import_module("timm.models").__path__:
        for file in sorted(Path(folder).glob("[!_]*.py")):
            if defined.search(file.read_bytes()):
                return file.stem
    return None
