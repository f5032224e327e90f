"""Recipes as people write them: TOML, and overrides by dotted key."""

import copy
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thawlab.errors import UsageError, nearest
from thawlab.files import user_path
from thawlab.recipe import PARTS, Recipe, parse_recipe

# Shorter names of dotted keys.
SHORT = {
    "backbone": "model.backbone",
    "size": "data.image_size",
    "train_size": "data.train_size",
    "device": "system.device",
    "data_dir": "system.data_dir",
    "cache_dir": "system.cache_dir",
}
# Tables and lists within each other.
_DEEPEST = 50
_KEY_ENDS = re.compile("[={,]")
_MOST_BYTES = 1_000_000  # of a recipe
_SHORT_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.)(?:[eE][-+]?[0-9]+)?")  # .001 and 1., which TOML does not know


def source_text(source: str | Path) -> str:
    """Return a source as a user would write it; a path stays one, also where a data set has its name."""
    return source if isinstance(source, str) else os.path.join(".", user_path(source))  # noqa: PTH118 - keeps the dot


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file into tables.

    Raises:
        UsageError: if the file is absent or is not TOML.
    """
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise ValueError(f"it has {size / 1e6:,.1f} MB, where {_MOST_BYTES / 1e6:,.0f} is plenty")
        text = path.read_text(encoding="utf-8-sig")
        for number, line in enumerate(text.splitlines(), start=1):  # a reader's time grows with the square of their parts
            if line.count(".") > _DEEPEST and any(part.count(".") > _DEEPEST for part in _KEY_ENDS.split(line.partition("#")[0])):
                raise ValueError(f"line {number} names more than {_DEEPEST} tables within each other")
        table = tomllib.loads(text)
        if _is_endless(table):
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
        return table
    except FileNotFoundError:
        hint = nearest(path.name, (entry.name for entry in path.parent.glob("*.toml")))
        raise UsageError(f"{path}: there is no such recipe{hint}") from None
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _is_endless(table: Any) -> bool:
    """Return whether tables or lists lie too deep in each other for those who walk through them."""
    level = [table]
    for _ in range(_DEEPEST):
        level = [
            part
            for node in level
            if isinstance(node, dict | list)
            for part in (node.values() if isinstance(node, dict) else node)
            if isinstance(part, dict | list)
        ]
        if not level:
            return False
    return True


def parse_value(text: str) -> Any:
    """Read the value of a `key=value` override: a TOML value, `none`, or else the text itself; a date is text."""
    if text.lower() == "none":
        return None
    try:
        value = tomllib.loads(f"value = {text}")["value"]
        json.dumps(value)
    except (ValueError, RecursionError, TypeError):
        return float(text) if _SHORT_NUMBER.fullmatch(text) else text
    return value


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Read overrides of the form `dotted.key=value`; where the key takes text, `2024` and `true` are text as well.

    Raises:
        UsageError: if one has no `=`.
    """
    values: dict[str, Any] = {}
    for override in texts:
        key, separator, text = (part.strip() for part in override.partition("="))
        if not separator or not key:
            raise UsageError(f"'{override}' is not an override; write key=value, for example data.train_size=10000")
        value = parse_value(text)
        if isinstance(value, str) and _takes_texts(key):
            value = [part.strip() for part in value.split(",")]
        values[key] = value if isinstance(value, str | None) or not _takes_text(key) else text
    return values


def _takes_texts(key: str) -> bool:
    """Return whether a key takes a list of texts, of which a single one may stand without brackets."""
    return bool(_annotation(key) == tuple[str, ...])


def _takes_text(key: str) -> bool:
    return _annotation(key) in (str, str | None)


def _annotation(key: str) -> Any:
    """Return the type of what a dotted key takes; None for a key that no recipe has."""
    first, *rest = key.split(".")
    field = PARTS[first].model_fields.get(rest[-1]) if first in PARTS and rest else Recipe.model_fields.get(first)
    return None if field is None else field.annotation


def with_overrides(table: Mapping[str, Any], overrides: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Return a copy of the tables in which each dotted key is set.

    Args:
        table: of a recipe.
        overrides: values by dotted key, or texts as `parse_overrides` reads them.

    Raises:
        UsageError: if an override has no `=`, or its key leads through something that has no such part.
    """
    values = overrides if isinstance(overrides, Mapping) else parse_overrides(overrides)
    result: dict[str, Any] = copy.deepcopy(dict(table))
    for key, value in values.items():
        node: Any = result
        parts = key.split(".")
        for depth, part in enumerate(parts):
            place = ".".join(parts[:depth])
            index: Any = part
            if isinstance(node, list):
                if not part.isdecimal() or int(part) >= len(node):
                    raise UsageError(f"{key}: {place} has {len(node)} entries, numbered from 0; '{part}' is none of them")
                index = int(part)
            elif isinstance(node, dict):
                node.setdefault(part, {})
            else:
                raise UsageError(f"{key}: {place} is a value and has no part '{part}'")
            if depth == len(parts) - 1:
                node[index] = copy.deepcopy(value)
            node = node[index]
    return result


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, apply the overrides and check the result.

    Raises:
        UsageError: if the file, a key or a value is wrong.
    """
    return parse_recipe(with_overrides(read_toml(Path(path)), overrides), str(path))
