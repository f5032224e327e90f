"""The table of backbones that `thawlab models` shows."""

from fnmatch import fnmatch

from thawlab.models.catalog import KERAS_NAMES
from thawlab.models.small import backbones
from thawlab.registry import about


def backbone_table(pattern: str | None = None) -> list[dict[str, str]]:
    """Return name, kind and description of the backbones.

    Args:
        pattern: a wildcard; with it, timm's pretrained networks are searched too, else only their most common are named.
    """
    rows = [{"name": "bundled", "kind": "pretrained, shipped", "about": "speednet, trained on CIFAR-10 by recipes/speednet.toml"}]
    for name in backbones:
        rows.append({"name": name, "kind": "from scratch", "about": about(backbones.get(name))})
    for name, (target, relation) in KERAS_NAMES.items():
        rows.append({"name": name, "kind": "Keras' name", "about": f"{target} ({relation})"})
    if pattern is None:
        return rows
    import timm

    rows = [row for row in rows if fnmatch(row["name"], pattern)]
    for name in timm.list_pretrained(pattern):
        config = timm.models.get_pretrained_cfg(name)
        size = config.input_size[-1] if config else "?"
        rows.append({"name": f"timm/{name}", "kind": "timm, pretrained", "about": f"{size} px"})
    return rows
