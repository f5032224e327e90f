"""Several runs side by side: what differs in their recipes, and what their predictions show."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from thawlab.errors import UsageError, listed
from thawlab.evaluation.predictions import load_predictions
from thawlab.recipe import Recipe
from thawlab.results import Results, read_results
from thawlab.run import RunFolder
from thawlab.study.paired import PairedComparison, compare_predictions

# Smaller ones fall below what a float holds and would read as 0.
_LEAST_P = 1e-300


def settings(recipe: Recipe) -> dict[str, Any]:
    """Return everything that determines a run, by dotted key; the name is left out."""

    def flat(prefix: str, value: Any) -> dict[str, Any]:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = dict(enumerate(value))
        if not isinstance(value, dict):
            return {prefix[:-1]: value}
        return {key: leaf for name, inner in value.items() for key, leaf in flat(f"{prefix}{name}.", inner).items()}

    return flat("", recipe.model_dump(mode="json", exclude={"system", "name"}))


def differences(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """Return the settings in which some recipes differ, with the value of each; None where a recipe lacks the key."""
    tables = [settings(recipe) for recipe in recipes]
    keys = dict.fromkeys(key for table in tables for key in table)
    values = {key: [table.get(key) for table in tables] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


class ComparedRun(NamedTuple):
    """A run beside the first one.

    Attributes:
        folder: of the run.
        results: of the run.
        differs: the settings in which it differs from the first run, with its own values; the name is left out.
        paired: its paired comparison with the first run; None for that itself, and where the test images differ.
        not_comparable: why there is no paired comparison; empty where there is.
    """

    folder: RunFolder
    results: Results
    differs: dict[str, Any]
    paired: PairedComparison | None = None
    not_comparable: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the run as JSON values."""
        results, pair = self.results, self.paired
        row: dict[str, Any] = {
            "run": self.folder.name,
            "name": results.name,
            "seed": results.seed,
            "backbone": results.model.backbone,
            "n_train": results.dataset.n_train,
            "test": results.test.model_dump(mode="json", include={"n", "accuracy", "accuracy_ci95", "macro_f1"}),
            "gap": results.gap,
            "seconds": results.seconds["total"],
            "differs": self.differs,
            "against_first": pair
            and {
                "difference": pair.difference,
                "only_this": pair.only_first,
                "only_first": pair.only_second,
                "p_value": max(pair.p_value, _LEAST_P),
            },
        }
        return row | ({"not_comparable": self.not_comparable} if self.not_comparable else {})


class Comparison(NamedTuple):
    """Several finished runs side by side; the first is the one that the others are compared with."""

    runs: tuple[ComparedRun, ...]
    differences: dict[str, list[Any]]

    @property
    def caveats(self) -> list[str]:
        """What this comparison cannot show, a line each."""
        first, lines = self.runs[0], []
        for run in self.runs[1:]:
            changed = [key for key in run.differs if key != "seed"]
            if len(changed) > 1:
                lines.append(
                    f"{run.folder.name} differs from {first.folder.name} in {len(changed)} settings ({', '.join(changed[:4])}"
                    f"{', …' if len(changed) > 4 else ''}): which of them makes the difference cannot be told"
                )
            if run.not_comparable:
                lines.append(
                    f"{run.folder.name} and {first.folder.name} were not tested on the same images: they have no paired test"
                )
        settings = [tuple(sorted((key, str(value)) for key, value in run.differs.items() if key != "seed")) for run in self.runs]
        single = [run.folder.name for run, own in zip(self.runs, settings, strict=True) if settings.count(own) == 1]
        if single and len(set(settings)) > 1:
            which = "every setting" if len(single) == len(self.runs) else listed(single, 3)
            lines.append(f"one seed only of {which}: another seed may reverse the ranking; repeat with several seeds")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        rows = [run.as_json() for run in self.runs]
        return {"schema": 1, "runs": rows, "differences": self.differences, "warnings": self.caveats}


def compare_runs(folders: Sequence[RunFolder]) -> Comparison:
    """Compare several finished runs with the first of them.

    Raises:
        UsageError: if there are fewer than two runs.
        ThawlabError: if a file of a run is missing or damaged.
    """
    if len({folder.path.resolve() for folder in folders}) < 2:
        raise UsageError("give at least two different runs to compare")
    recipes = [folder.recipe for folder in folders]
    tables = [load_predictions(folder.predictions("test")) for folder in folders]
    runs: list[ComparedRun] = []
    for folder, recipe, table in zip(folders, recipes, tables, strict=True):
        differs = {key: values[1] for key, values in differences([recipes[0], recipe]).items()}
        paired, reason = None, ""
        try:
            paired = compare_predictions(table, tables[0]) if runs else None
        except UsageError as error:
            reason = str(error)
        runs.append(ComparedRun(folder, read_results(folder.results), differs, paired, reason))
    return Comparison(tuple(runs), differences(recipes))
