"""A comparison of finished runs: a table of variants, what each change of one setting does, and what cannot be told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, final

import numpy as np

from thawlab.comparison import statistics
from thawlab.comparison.curves import SIZE, in_words, learning_curves
from thawlab.comparison.effects import OTHER_IMAGES, Effect, Refusal, one_key_effects
from thawlab.comparison.grids import factorial_effects, full_grid
from thawlab.comparison.learning_curve import LearningCurve
from thawlab.comparison.optimism import Best, best_of
from thawlab.comparison.runs import ComparedRun, Variant, read_run, variants_of
from thawlab.comparison.shares import Shares, shares
from thawlab.errors import UsageError, listed
from thawlab.run import RunFolder

_SCHEMA = 2
_LISTED = 8
NO_CREDIT = "No two variants differ in one setting only: no difference can be credited to a setting."


@final
@dataclass(frozen=True)
class Comparison:
    """Variants beside each other, with the effects of single settings; shows itself as a table.

    Attributes:
        variants: in the order in which they were given.
        pairs: the effect of each pair of variants that differ in one setting.
        refusals: the pairs whose difference can be credited to no single setting.
        factorial: of a full grid, its interactions and main effects; else empty.
        shares: of a full grid, what each setting accounts for between its first and its last corner; else None.
        best: the best on validation, with its optimism; None where that cannot be told.
        learning_curves: by the other settings, where `data.train_size` varies.
        question: what the comparison is to answer, in the words of whoever asked.
        page: where the page was written.
    """

    variants: tuple[Variant, ...]
    pairs: tuple[Effect, ...]
    refusals: tuple[Refusal, ...]
    factorial: tuple[Effect, ...] = ()
    shares: Shares | None = None
    best: Best | None = None
    learning_curves: Mapping[str, LearningCurve] = field(default_factory=dict)
    question: str = ""
    notes: tuple[str, ...] = ()
    page: Path | None = None

    columns = ("variant", "seeds", "test accuracy", "95 % interval", "loss", "gap", "macro F1", "calibration error", "seconds")

    @property
    def runs(self) -> list[ComparedRun]:
        """All runs, variant by variant."""
        return [run for variant in self.variants for run in variant.runs.values()]

    @property
    def effects(self) -> tuple[Effect, ...]:
        """The effects that answer the question: those of the grid, or else of the pairs, or else of several settings together."""
        return self.factorial or self.pairs or self.wholes

    @property
    def wholes(self) -> tuple[Effect, ...]:
        """What the settings of the pairs that differ in several make together; it is credited to none of them."""
        return tuple(refusal.whole for refusal in self.refusals if refusal.whole)

    @property
    def _said(self) -> list[Effect]:
        """The effects that are put into words: a learning curve says more of sizes than every pair of them."""
        fitted = any(not curve.refusal for curve in self.learning_curves.values())
        return [effect for effect in self.effects if effect.is_shown or not fitted or SIZE not in effect.keys]

    @property
    def _curves(self) -> list[str]:
        return [in_words(name, curve) for name, curve in self.learning_curves.items()]

    @property
    def differences(self) -> dict[str, list[Any]]:
        """The settings in which variants differ, with the value of each; None where one lacks the key."""
        keys = list(self.variants[0].values)
        return {key: [variant.values[key] for variant in self.variants] for key in keys}

    @property
    def verdict(self) -> str:
        """One sentence that answers: what is shown, or that nothing is."""
        curves = self._curves
        if not self.effects and not curves:
            return NO_CREDIT
        shown = [effect.verdict for effect in self._said if effect.is_shown]
        hidden = [effect.verdict for effect in self._said if not effect.is_shown]
        sentences = [*curves, *shown, *hidden]
        said = "; ".join(sentences[:4]) + (f"; and {len(sentences) - 4} more" if len(sentences) > 4 else "") + "."
        return said if self.factorial or self.pairs or curves else f"{said} {NO_CREDIT}"

    @property
    def caveats(self) -> list[str]:
        """What this comparison cannot show, a line each."""
        lines = [refusal.sentence for refusal in self.refusals[:_LISTED]]
        if len(self.refusals) > _LISTED:
            lines.append(f"and {len(self.refusals) - _LISTED} more pairs differ in several settings; the JSON lists them all")
        single = [variant.name for variant in self.variants if len(variant.runs) == 1]
        if single:
            which = "every variant" if len(single) == len(self.variants) else listed(single, 3)
            lines.append(f"one seed only of {which}: another seed may reverse the ranking; repeat with several seeds")
        elif (least := min(len(effect.seeds) for effect in self.effects) if self.effects else 99) < 6:
            lines.append(
                f"{least} seeds: the sign-flip test cannot reach p < 0.05 with fewer than six (its least is {2 / 2**least:.2g}), "
                "so significance rests on the t interval"
            )
        if any(effect.kind == "interaction" and effect.is_shown for effect in self.factorial):
            lines.append(
                "settings depend on each other: a main effect is an average over them, and holds for none of the variants"
            )
        return [*lines, *self.notes]

    def detectable(self) -> dict[str, Any] | None:
        """Return the smallest difference that this design finds in 80 % of all studies; the median over the pairs."""
        effects = self.pairs or self.factorial
        if not effects:
            return None
        sizes = [statistics.smallest_detectable(effect.errors) for effect in effects]
        return {
            "difference": float(np.median(sizes)),
            "power": statistics.POWER,
            "seeds": min(len(effect.seeds) for effect in effects),
            "test_images": min(effect.n_images for effect in effects),
            "question": "other seeds and images" if effects[0].over_both else "other images, these runs",
        }

    def needed(self, difference: float) -> dict[str, Any] | None:
        """Return how many seeds, or test images, would show a difference (a fraction) in 80 % of all studies.

        Returns:
            None where variances between seeds and images cannot be told apart: with one seed, or test images of each seed's own.
        """
        found = [effect for effect in self.pairs or self.factorial if effect.components is not None]
        if not found:
            return None
        parts = [effect.components for effect in found if effect.components is not None]
        typical = statistics.Components(*(float(np.median(values)) for values in zip(*parts, strict=True)))
        seeds, images = len(found[0].seeds), found[0].n_images
        return {
            "difference": difference,
            "seeds": statistics.seeds_needed(difference, typical, images),
            "with_test_images": images,
            "test_images": statistics.images_needed(difference, typical, seeds),
            "with_seeds": seeds,
        }

    def plan(self, difference: float) -> str:
        """Return in words what would show a difference (a fraction) in 80 % of all studies; empty where `needed` cannot tell."""
        needed = self.needed(difference)
        if needed is None:
            return ""
        seeds, images = (f"{needed[key]:,}" if needed[key] else "no number of" for key in ("seeds", "test_images"))
        return (
            f"to find {100 * difference:g} points in four of five studies: {seeds} seeds with {needed['with_test_images']:,} "
            f"test images, or {images} test images with {needed['with_seeds']} seeds"
        )

    def rows(self) -> list[list[str]]:
        """Return the table's rows as text."""
        return [
            [
                row["name"],
                f"{row['seeds']}",
                f"{100 * row['accuracy']:.2f} %",
                f"{100 * row['interval'][0]:.2f} – {100 * row['interval'][1]:.2f}",
                f"{row['loss']:.4f}",
                f"{100 * row['gap']:+.2f}",
                f"{100 * row['macro_f1']:.2f} %",
                f"{100 * row['calibration_error']:.2f} %",
                f"{row['seconds']:.0f}",
            ]
            for row in map(describe, self.variants)
        ]

    def as_json(self, difference: float | None = None) -> dict[str, Any]:
        """Return the comparison as JSON values; `difference` is one to plan for, by default one point."""
        return {
            "schema": _SCHEMA,
            "question": self.question,
            "verdict": self.verdict,
            "variants": [describe(variant) for variant in self.variants],
            "differences": self.differences,
            "interactions": [effect.as_json() for effect in self.factorial if effect.kind == "interaction"],
            "main_effects": [effect.as_json() for effect in self.factorial if effect.kind == "main"],
            "shares": self.shares and self.shares.as_json(),
            "pairs": [effect.as_json() for effect in self.pairs],
            "refused": [refusal.as_json() for refusal in self.refusals],
            "best_on_validation": self.best and self.best.as_json(),
            "smallest_detectable": self.detectable(),
            "needed": self.needed(0.01 if difference is None else difference),
            "learning_curves": {name: curve.as_json() for name, curve in self.learning_curves.items()},
            "warnings": self.caveats,
        }

    def __repr__(self) -> str:
        rows = [list(self.columns), *self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *self.lines()])

    def lines(self) -> list[str]:
        """Return what is said below the table, a line each."""
        shown = [*self._curves, *(effect.verdict for effect in self._said[:_LISTED])]
        if (more := len(self.effects) - len(self._said[:_LISTED])) > 0:
            shown.append(f"and {more} more effects; the page and the JSON have them all")
        if self.shares:
            shown.append(self.shares.sentence)
        if self.best:
            shown.append(
                f"best on validation: {self.best.name}, {100 * self.best.val_accuracy:.2f} %, of which the choice among "
                f"{self.best.among} made up {100 * self.best.optimism:.2f} points; test {100 * self.best.test_accuracy:.2f} %"
            )
        return [*shown, *(f"note: {line}" for line in self.caveats)]

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows())
        notes = "".join(f"<p>{escape(line)}</p>" for line in self.lines())
        return f"<table><tr>{''.join(f'<th>{name}</th>' for name in self.columns)}</tr>{rows}</table>{notes}"


def describe(variant: Variant) -> dict[str, Any]:
    """Return what the table says of a variant, as JSON values: means over its runs, with the interval of the accuracy.

    The interval is a t interval over seeds; of one run it is Wilson's, over test images.
    """
    runs = list(variant.runs.values())
    estimate = statistics.over_seeds(variant.accuracies)
    first = runs[0].results
    mean = {
        name: float(np.mean([run.results.test.metric(name) for run in runs])) for name in ("macro_f1", "ece_calibrated", "loss")
    }
    return {
        "name": variant.name,
        "values": variant.values,
        "runs": [run.folder.name for run in runs],
        "seeds": len(runs),
        "backbone": first.model.backbone,
        "n_train": first.dataset.n_train,
        "n_test": first.dataset.n_test,
        "accuracy": float(np.mean(variant.accuracies)),
        "accuracies": variant.accuracies,
        "sd": float(np.std(variant.accuracies, ddof=1)) if len(runs) > 1 else None,
        "interval": [min(max(bound, 0.0), 1.0) for bound in (estimate[:2] if estimate else first.test.accuracy_ci95)],
        "interval_over": "seeds" if estimate else "test images",
        "val_accuracy": float(np.mean([run.results.val.accuracy for run in runs])),
        "loss": mean["loss"],
        "gap": float(np.mean([run.results.gap for run in runs])),
        "macro_f1": mean["macro_f1"],
        "calibration_error": mean["ece_calibrated"],
        "parameters": first.model.parameters,
        "trainable_parameters": {phase.name: phase.trainable_parameters for phase in first.phases},
        "seconds": float(np.mean([run.results.seconds["total"] for run in runs])),
        "seconds_training": float(np.mean([run.results.seconds["train"] for run in runs])),
    }


def compare_runs(
    folders: Sequence[RunFolder], names: Mapping[str, str] | None = None, question: str = "", unpaired: bool = False
) -> Comparison:
    """Compare several finished runs: those that differ in nothing but the seed are one variant.

    Args:
        folders: of the runs, the reference first.
        names: of the variants, by the name of a run's folder; made from what differs where omitted.
        question: to be shown above the answer.
        unpaired: whether runs of which no two were tested on the same images are shown side by side all the same.

    Raises:
        UsageError: if there are fewer than two runs, or no two of them were tested on the same images.
        ThawlabError: if a file of a run is missing or damaged.
    """
    if len({folder.path.resolve() for folder in folders}) < max(2, len(folders)):
        twice = [folder.name for folder in folders if [f.path.resolve() for f in folders].count(folder.path.resolve()) > 1]
        raise UsageError(f"{twice[0]}: is named twice" if len(folders) > 1 else "give at least two different runs to compare")
    variants = variants_of([read_run(folder) for folder in folders], names)
    grid = full_grid(variants)
    pairs, refusals = one_key_effects(variants, skip_refusals=grid is not None)
    if not unpaired and not pairs and refusals and all(refusal.reason == OTHER_IMAGES for refusal in refusals):
        raise UsageError(
            f"{refusals[0].second} and {refusals[0].first} were not tested on the same images and labels, nor were any two of "
            "these runs; use the same source, seed, splits and corrections"
        )
    return Comparison(
        variants=tuple(variants),
        pairs=tuple(pairs),
        refusals=tuple(refusals),
        factorial=tuple(factorial_effects(grid)) if grid else (),
        shares=shares(grid) if grid else None,
        best=best_of(variants),
        learning_curves=learning_curves(variants),
        question=question,
    )
