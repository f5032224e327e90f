"""Several runs side by side: what differs in their recipes, and what their predictions show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from thawlab.errors import UsageError
from thawlab.evaluation.predictions import load_predictions
from thawlab.files import read_json
from thawlab.recipe import Recipe
from thawlab.run import RunFolder
from thawlab.study.paired import compare_predictions

# Smaller ones fall below what a float holds and would read as 0.
_LEAST_P = 1e-300


def settings(recipe: Recipe) -> dict[str, Any]:
    """Return everything that determines a run, by dotted key; the name is left out."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}{key}.", inner)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for number, inner in enumerate(value):
                walk(f"{prefix}{number}.", inner)
        else:
            flat[prefix[:-1]] = value

    walk("", recipe.model_dump(mode="json", exclude={"system", "name"}))
    return flat


def differences(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """Return the settings in which some recipes differ, with the value of each; None where a recipe lacks the key."""
    tables = [settings(recipe) for recipe in recipes]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    values = {key: [table.get(key) for table in tables] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def compare_runs(folders: Sequence[RunFolder]) -> dict[str, Any]:
    """Return several finished runs side by side; the first is the one that the others are compared with.

    Raises:
        UsageError: if there are fewer than two runs.
        ThawlabError: if a file of a run is missing or damaged.
    """
    if len({folder.path.resolve() for folder in folders}) < 2:
        raise UsageError("give at least two different runs to compare")
    recipes = [folder.recipe for folder in folders]
    tables = [load_predictions(folder.predictions("test")) for folder in folders]
    rows = []
    for number, folder in enumerate(folders):
        results = read_json(folder.results)
        changed = differences([recipes[0], recipes[number]])
        row: dict[str, Any] = {
            "run": folder.name,
            "name": results["name"],
            "seed": results["seed"],
            "backbone": results["model"]["backbone"],
            "n_train": results["dataset"]["n_train"],
            "test": {key: results["test"][key] for key in ("n", "accuracy", "accuracy_ci95", "macro_f1")},
            "gap": results["gap"],
            "seconds": results["seconds"]["total"],
            "differs": {key: value[1] for key, value in changed.items()},
            "against_first": None,
        }
        if number:
            try:
                paired = compare_predictions(tables[number], tables[0])
                row["against_first"] = {
                    "difference": paired.difference,
                    "only_this": paired.only_first,
                    "only_first": paired.only_second,
                    "p_value": max(paired.p_value, _LEAST_P),
                }
            except UsageError as error:
                row["not_comparable"] = str(error)
        rows.append(row)
    return {"schema": 1, "runs": rows, "differences": differences(recipes), "warnings": warnings(rows)}


def warnings(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return what a comparison of runs cannot show, a line each."""
    lines = []
    for row in rows[1:]:
        changed = [key for key in row["differs"] if key != "seed"]
        if len(changed) > 1:
            lines.append(
                f"{row['run']} differs from {rows[0]['run']} in {len(changed)} settings ({', '.join(changed[:4])}"
                f"{', …' if len(changed) > 4 else ''}): which of them makes the difference cannot be told"
            )
        if "not_comparable" in row:
            lines.append(f"{row['run']} and {rows[0]['run']} were not tested on the same images: they have no paired test")
    settings_seen = [tuple(sorted((key, str(value)) for key, value in row["differs"].items() if key != "seed")) for row in rows]
    if len(set(settings_seen)) == len(rows):
        lines.append("one run for each setting: another seed may turn the order round; repeat with several seeds")
    return lines
