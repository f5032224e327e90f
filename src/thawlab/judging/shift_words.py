"""What the accuracies under corruptions say, in sentences."""

from collections.abc import Sequence

from thawlab.evaluation.corruptions import STRENGTHS
from thawlab.robustness import Shift
from thawlab.values import Interval


def in_words(shift: Shift) -> list[str]:
    """Return the mean over corruptions, the one that costs most, and from which strength on how much is lost; a sentence each."""
    return [_on_average(shift), *_fastest(shift), _thresholds(shift)]


def _on_average(shift: Shift) -> str:
    strengths = shift.strengths
    which = f"at strength {strengths[0]} of {STRENGTHS[-1]}" if len(strengths) == 1 else f"at {len(strengths)} strengths"
    return (
        f"{shift.n:,} of {shift.n_split:,} {shift.split} images, corrupted in {len(shift.corruptions)} ways {which}: "
        f"{_percent(shift.accuracy)} are right on average ({_between(shift.accuracy_ci95)}), against "
        f"{_percent(shift.clean_accuracy)} of the same images as they are ({_points(shift.drop, shift.drop_ci95)} lost)"
    )


def _fastest(shift: Shift) -> list[str]:
    fastest = next((one for one in shift.corruptions if one.corruption == shift.fastest), None)
    if fastest is None:
        return []
    on_average = "" if len(shift.strengths) == 1 else " on average"
    known = "" if shift.fastest_shown else "; these images do not tell it from the next ones"
    lost = _points(fastest.drop, fastest.drop_ci95)
    return [f"the accuracy falls fastest under {fastest.corruption}: {lost} lost{on_average}{known}"]


def _thresholds(shift: Shift) -> str:
    """Return from which strength on the accuracy is lower by the stated amount."""
    lower = f"{100 * shift.fall:.0f} points or more are lost under"
    fallen = {strength: [one.corruption for one in shift.corruptions if one.falls_at == strength] for strength in shift.strengths}
    never = [one.corruption for one in shift.corruptions if one.falls_at is None]
    if len(never) == len(shift.corruptions):
        return f"{lower} no corruption"
    if len(shift.strengths) == 1:
        return f"{lower} {_listed(next(iter(fallen.values())))}"
    parts = [f"{_listed(names)} from strength {strength} on" for strength, names in fallen.items() if names]
    return f"{lower} {'; '.join([*parts, *([f'at no strength of {_listed(never)}'] if never else [])])}"


def _points(drop: float, interval: Interval) -> str:
    return f"{100 * drop:.1f} points ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _between(interval: Interval) -> str:
    return f"{100 * interval[0]:.1f} to {_percent(interval[1])}"
