"""Where a recipe comes from, with overrides that mean the same on the command line and in Python."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thawlab.data.sources import check_source
from thawlab.errors import UsageError, listed, nearest
from thawlab.files import user_path
from thawlab.models.catalog import resolve_backbone
from thawlab.plan.defaults import DEFAULT_BACKBONE, default_tables
from thawlab.plan.resolve import Plan, close, resolve
from thawlab.recipe import Recipe, parse_recipe, read_toml, source_text, with_overrides

# Shorter names of dotted keys.
SHORT = {
    "backbone": "model.backbone",
    "size": "data.image_size",
    "train_size": "data.train_size",
    "device": "system.device",
    "data_dir": "system.data_dir",
    "cache_dir": "system.cache_dir",
}


def plan_of(source: str | Path | Recipe, overrides: Mapping[str, Any]) -> Plan:
    """Return the closed recipe of a `train` command.

    Args:
        source: a recipe, the path of one (`.toml`), or images by name or path, which get the defaults that suit the backbone.
        overrides: values by dotted key or short name.

    Raises:
        UsageError: if the source, a key or a value is wrong.
    """
    values = _dotted(overrides)
    if isinstance(source, Recipe):
        # Only what was set: whether somebody asked for pretrained weights must not be forgotten.
        tables = source.model_dump(mode="json", exclude_unset=True)
        return resolve(parse_recipe(with_overrides(tables, values), source.name) if values else source)
    text = source_text(source)
    if text.endswith(".toml"):
        return resolve(parse_recipe(with_overrides(read_toml(user_path(text)), values), text))
    check_source(text)
    spec = resolve_backbone(str(values.get("model.backbone") or DEFAULT_BACKBONE))
    tables = default_tables(text, spec, values.get("model.pretrained", True) is not False)
    return close(parse_recipe(with_overrides(tables, {**values, "model.backbone": spec.name}), "train"), spec)


def _dotted(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides by dotted key; whole tables are taken apart."""
    values: dict[str, Any] = {}
    for key, value in overrides.items():
        if "." not in key and key not in SHORT and key not in Recipe.model_fields:
            known = [*SHORT, *Recipe.model_fields]
            raise UsageError(f"'{key}' is not a setting{nearest(key, known) or f' (known: {listed(known)}; or a dotted key)'}")
        table = value if isinstance(value, Mapping) else {"": value}
        values |= {f"{SHORT.get(key, key)}.{part}".rstrip("."): inner for part, inner in table.items()}
    return values
