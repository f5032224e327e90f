"""Effects: what a change of one setting does, what several do together, and which changes cannot be credited to anything."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from thawlab.comparison import statistics
from thawlab.comparison.runs import Variant
from thawlab.comparison.settings import differing, short_keys, shown, value_of
from thawlab.comparison.statistics import Components, Differences, Errors, Estimate

# Why two variants have no paired difference.
NO_COMMON_SEED, OTHER_IMAGES = "they have no seed in common", "they were not tested on the same images and labels"


class Effect(NamedTuple):
    """A difference in test accuracy that belongs to one setting, or to several settings together.

    Attributes:
        kind: "pair" (two variants that differ in one key), "main" (averaged over the other settings of a grid), "interaction",
            "whole" (variants that differ in several keys, or opposite corners of a grid) or "share" (a setting's part of that).
        name: what is changed, from what to what.
        keys: the settings that it belongs to; none where nothing but the machine differs.
        between: the names of the two variants of a pair.
        seeds: that both sides have.
        n_images: of each test split.
        difference: of the accuracies, as a fraction.
        by_seed: the same for each seed.
        over_seeds: with other seeds on these test images; None for one seed, or where every seed has images of its own.
        over_images: with other test images for these runs.
        over_both: with other seeds and other images; None for one seed.
        sign_flip: p-value of the sign-flip test over seeds; None for one seed.
        logit: of a grid, the effect on the logit of accuracy with its t interval over seeds.
        components: variances between seeds and images; None where they cannot be told apart.
        p_holm: p-value of the widest question that can be answered, corrected over the family of its kind (Holm 1979).
        corrected: the interval that covers zero exactly where that p-value is above 0.05.
        only_second, only_first: of a pair, images that only one of them gets right, summed over seeds.
    """

    kind: str
    name: str
    keys: tuple[str, ...]
    between: tuple[str, str] | None
    seeds: tuple[int, ...]
    n_images: int
    difference: float
    by_seed: tuple[float, ...]
    over_seeds: Estimate | None
    over_images: Estimate
    over_both: Estimate | None
    sign_flip: float | None
    logit: tuple[float, Estimate | None] | None = None
    components: Components | None = None
    p_holm: float = 1.0
    corrected: tuple[float, float] = (0.0, 0.0)
    only_second: int | None = None
    only_first: int | None = None

    @property
    def widest(self) -> Estimate:
        """The answer to the widest question that can be answered: other seeds and images, or else other images."""
        return self.over_both or self.over_images

    @property
    def is_shown(self) -> bool:
        """Whether the difference is shown, after the correction."""
        return self.p_holm < 1 - statistics.CONFIDENCE

    @property
    def verdict(self) -> str:
        """A sentence of what is shown, and what is not."""
        low, high = (100 * bound for bound in self.corrected)
        if not self.is_shown:
            return f"{self.name}: no difference shown; at most {max(abs(low), abs(high)):.2f} points either way"
        scope = "with other seeds and test images" if self.over_both else "with other test images; of these runs only"
        other = "others" if len(self.keys) > 2 else "other"
        whats = {"interaction": f"what one does depends on the {other}, by", "share": "accounts for"}
        what = whats.get(self.kind, "changes test accuracy by")
        p = f"p < {1e-4:.0e}" if self.p_holm < 1e-4 else f"p = {self.p_holm:.2g}"
        return f"{self.name}: {what} {100 * self.difference:+.2f} points ({low:+.2f} to {high:+.2f} {scope}; {p} after Holm)"

    @property
    def errors(self) -> Errors:
        """The standard errors behind the widest answer."""
        return self.widest.errors

    def as_json(self) -> dict[str, Any]:
        """Return the effect as JSON values; differences are fractions."""
        plain = {key: getattr(self, key) for key in ("kind", "name", "n_images", "difference", "sign_flip", "p_holm")}
        plain |= {key: getattr(self, key) for key in ("only_second", "only_first")}
        plain |= {key: list(getattr(self, key) or ()) for key in ("keys", "between", "seeds", "by_seed", "corrected")}
        for key in ("over_seeds", "over_images", "over_both"):
            estimate = getattr(self, key)
            plain[key] = estimate and estimate.as_json()
        logit = self.logit and {"difference": self.logit[0], "over_seeds": self.logit[1] and self.logit[1].as_json()}
        return {**plain, "logit": logit, "shown": self.is_shown, "verdict": self.verdict}


class Refusal(NamedTuple):
    """Two variants whose difference belongs to no single setting, and why.

    Attributes:
        first, second: their names.
        keys: the settings in which they differ.
        reason: why nothing is credited to one of these.
        whole: the difference that all of them make together; None where the two cannot be paired.
    """

    first: str
    second: str
    keys: tuple[str, ...]
    reason: str
    whole: Effect | None = None

    @property
    def sentence(self) -> str:
        """The refusal as a sentence, with the difference as a whole where it was measured."""
        together = ""
        if self.whole:
            low, high = (100 * bound for bound in self.whole.corrected)
            together = f"; together they make {100 * self.whole.difference:+.2f} points ({low:+.2f} to {high:+.2f})"
        return f"{self.second} and {self.first}: {self.reason}{together}"

    def as_json(self) -> dict[str, Any]:
        """Return the refusal as JSON values."""
        return {**self._asdict(), "keys": list(self.keys), "whole": self.whole and self.whole.as_json()}


def contrast(weights: Sequence[tuple[float, Variant]], **described: Any) -> Effect | str:
    """Measure a weighted sum of accuracies on the seeds that all variants have.

    Returns:
        The effect, or in words why there is none.
    """
    seeds = sorted(set.intersection(*(set(variant.runs) for _, variant in weights)))
    if not seeds:
        return NO_COMMON_SEED
    rows, images = [], []
    for seed in seeds:
        answers = [(weight, variant.runs[seed].test) for weight, variant in weights]
        if len({answer.images for _, answer in answers}) > 1:
            return OTHER_IMAGES
        images.append(answers[0][1].images)
        rows.append(sum((weight * answer.right.astype(np.float64) for weight, answer in answers), np.zeros(1)))
    by_seed = [float(row.mean()) for row in rows]
    crossed = len(set(images)) == 1
    tables: list[Differences] = [np.stack(rows)] if crossed else [row[None] for row in rows]
    return Effect(
        seeds=tuple(seeds),
        n_images=len(rows[0]),
        difference=float(np.mean(by_seed)),
        by_seed=tuple(by_seed),
        over_seeds=statistics.over_seeds(by_seed) if crossed else None,
        over_images=statistics.over_images(tables[0]) if crossed else statistics.over_own_images(tables),
        over_both=statistics.over_both(tables[0]) if crossed else statistics.over_both_of_own_images(tables),
        sign_flip=statistics.sign_flip(by_seed) if len(seeds) > 1 else None,
        components=statistics.components(tables[0]) if crossed and len(seeds) > 1 else None,
        **described,
    )


def one_key_effects(variants: Sequence[Variant], skip_refusals: bool = False) -> tuple[list[Effect], list[Refusal]]:
    """Return the effect of every pair of variants that differ in one key, and a refusal for every other pair.

    Args:
        variants: in the order in which they are shown; a difference is the later minus the earlier.
        skip_refusals: whether a full grid explains the other pairs by its main effects and interactions.
    """
    effects, refusals = [], []
    for first, second in itertools.combinations(variants, 2):
        keys = differing(first.settings, second.settings)
        if len(keys) > 1:
            if not skip_refusals:
                refusals.append(_confounded(first, second, keys))
            continue
        found = contrast(
            [(1.0, second), (-1.0, first)],
            kind="pair",
            name=_pair_name(first, second, keys),
            keys=tuple(keys),
            between=(first.name, second.name),
        )
        if isinstance(found, str):
            refusals.append(_not_paired(first, second, keys, found))
        else:
            better, worse = _discordant(first, second, found.seeds)
            effects.append(found._replace(only_second=better, only_first=worse))
    wholes = iter(corrected([refusal.whole for refusal in refusals if refusal.whole]))
    refusals = [refusal._replace(whole=next(wholes)) if refusal.whole else refusal for refusal in refusals]
    return corrected(effects), refusals


def _pair_name(first: Variant, second: Variant, keys: Sequence[str]) -> str:
    """Return what is changed from what to what, and where: by the names that somebody gave, or by the settings that stay."""
    short = short_keys(list({**first.values, **second.values}))
    change = "; ".join(
        f"{short.get(key, key)} {shown(value_of(first.settings, key))} → {shown(value_of(second.settings, key))}" for key in keys
    )
    same = ", ".join(f"{short[key]} {shown(value)}" for key, value in first.values.items() if key not in keys)
    if change and same and first.is_named and second.is_named:
        return f"{first.name} → {second.name} ({change})"
    return (change or "the same recipe again") + (f" (at {same})" if same else "")


def _confounded(first: Variant, second: Variant, keys: Sequence[str]) -> Refusal:
    named = ", ".join(keys[:4]) + (", …" if len(keys) > 4 else "")
    reason = f"they differ in {len(keys)} settings ({named}): which of them makes the difference cannot be told"
    whole = contrast(
        [(1.0, second), (-1.0, first)], kind="whole", name=f"{first.name} → {second.name}", keys=tuple(keys), between=None
    )
    return Refusal(first.name, second.name, tuple(keys), reason, None if isinstance(whole, str) else whole)


def _not_paired(first: Variant, second: Variant, keys: Sequence[str], why: str) -> Refusal:
    if why == NO_COMMON_SEED:
        return Refusal(first.name, second.name, (*keys, "seed"), f"{why}: the difference may be the seed's")
    return Refusal(first.name, second.name, tuple(keys), why)


def _discordant(first: Variant, second: Variant, seeds: Sequence[int]) -> tuple[int, int]:
    pairs = [(first.runs[seed].test.right, second.runs[seed].test.right) for seed in seeds]
    return sum(int((b & ~a).sum()) for a, b in pairs), sum(int((a & ~b).sum()) for a, b in pairs)


def corrected(effects: Sequence[Effect]) -> list[Effect]:
    """Correct the p-values of a family of effects, and the intervals with them."""
    p_values = [effect.widest.p_value for effect in effects]
    adjusted, levels = statistics.holm(p_values), statistics.holm_levels(p_values)
    result = []
    for effect, p_holm, level in zip(effects, adjusted, levels, strict=True):
        half = effect.errors.half_width(level)
        bounds = (effect.difference - half, effect.difference + half)
        if level == 1 - statistics.CONFIDENCE:
            bounds = (effect.widest.low, effect.widest.high)
        result.append(effect._replace(p_holm=p_holm, corrected=bounds))
    return result
