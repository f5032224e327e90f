"""What makes two runs differ: the settings of their recipes, the images, the weights and the program behind them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thawlab.errors import ThawlabError
from thawlab.files import read_json
from thawlab.recipe import Recipe
from thawlab.results import DataSummary, read_value
from thawlab.run import RunFolder

# A setting that follows from others, and those others: where one of them differs, it is no difference of its own.
_FOLLOWS = {
    "data.fingerprint": (
        "data.source",
        "data.exclude",
        "data.corrections",
        "data.group",
        "data.layout",
        "data.path_column",
        "data.label_column",
    ),
    "model.weights": ("model.backbone", "model.pretrained"),
    "model.revision": ("model.backbone",),
}
_SHORT_VALUE = 12


def settings(recipe: Recipe) -> dict[str, Any]:
    """Return everything that determines a run, by dotted key; the name is left out."""

    def flat(prefix: str, value: Any) -> dict[str, Any]:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = dict(enumerate(value))
        if not isinstance(value, dict):
            return {prefix[:-1]: value}
        return {key: leaf for name, inner in value.items() for key, leaf in flat(f"{prefix}{name}.", inner).items()}

    return flat("", recipe.model_dump(mode="json", exclude={"system", "name"}))


def settings_of_run(folder: RunFolder, recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a run's recipe, and what its recipe does not say: the images' and weights' digests, the version.

    Raises:
        ThawlabError: if a file of the run is missing or damaged.
    """
    data = read_value(folder.path / "data.json", DataSummary)
    try:
        version = read_json(folder.path / "environment.json").get("packages", {}).get("thawlab")
    except ThawlabError:
        version = None  # a lost description of the machine is no reason to show nothing
    known = {"data.fingerprint": data.fingerprint, "model.weights": data.weights, "thawlab": version}
    return {**settings(recipe), **known}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the keys in which two runs differ; a phase that one of them lacks is one key, and the seed is none."""
    keys = [key for key in dict.fromkeys([*one, *other]) if key != "seed" and one.get(key) != other.get(key)]
    lacking = {_phase(key) for key in keys if _phase(key) and (_has(one, _phase(key)) != _has(other, _phase(key)))}
    merged = dict.fromkeys(_phase(key) if _phase(key) in lacking else key for key in keys)
    return [key for key in merged if not any(cause in merged for cause in _FOLLOWS.get(key, ()))]


def _phase(key: str) -> str:
    """Return "phases.N" for a key of a phase, else an empty string."""
    parts = key.split(".")
    return ".".join(parts[:2]) if parts[0] == "phases" else ""


def _has(table: Mapping[str, Any], phase: str) -> bool:
    return any(key.startswith(f"{phase}.") for key in table)


def value_of(table: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key; for a phase as a whole its name, or None where there is none."""
    return table.get(f"{key}.name") if _phase(key) == key else table.get(key)


def shown(value: Any) -> str:
    """Return a value as a person writes it; digests are cut."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return (
            Path(value).name if value.startswith(("local-dir:", "/")) else value[:64] if len(value) < 64 else value[:_SHORT_VALUE]
        )
    return json.dumps(value)


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Return for each dotted key the shortest ending that tells it from the others."""
    result = {}
    for key in keys:
        parts = key.split(".")
        endings = [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]
        result[key] = next(
            ending for ending in endings if sum(k == ending or k.endswith(f".{ending}") for k in keys) == 1 or ending == key
        )
    return result
