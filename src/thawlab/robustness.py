"""What was measured of a classifier's robustness: the values of `shift.json` and `slices.json`, frozen and versioned."""

from collections.abc import Sequence
from typing import Literal, final

from pydantic import Field

from thawlab.values import Interval, Value

# What the corrupted, or measured, pictures were: the files as they came, or the decoded rows at working size.
Pictures = Literal["originals", "decoded rows"]


@final
class Strength(Value):
    """Accuracy under a corruption of one strength (1 to 5), and by how much it is below that on the clean images.

    Attributes:
        accuracy_ci95: Wilson interval.
        drop: fraction; below zero where the accuracy rose.
        drop_ci95: interval of the paired difference over images.
    """

    strength: int
    accuracy: float
    accuracy_ci95: Interval
    drop: float
    drop_ci95: Interval


@final
class UnderCorruption(Value):
    """Accuracy under one corruption, by strength and on average over the strengths.

    Attributes:
        falls_at: the least strength at which the accuracy has fallen by `Shift.fall`; None where none does that.
        fall_shown: whether the interval of the drop at that strength lies above zero.
    """

    corruption: str
    about: str
    accuracy: float
    drop: float
    drop_ci95: Interval
    falls_at: int | None
    fall_shown: bool
    strengths: tuple[Strength, ...]


@final
class Shift(Value):
    """Accuracy on corrupted images, each compared with the clean ones of the same ids: the content of `shift.json`.

    Attributes:
        n: images that were corrupted, a sample that depends on their names alone.
        n_split: images of the split that they are from.
        pictures: what was corrupted.
        clean_accuracy: of the same images, through the same steps without a corruption.
        accuracy: mean over all corruptions and strengths; its interval, as that of the drop, is one over images.
        fall: the drop that `falls_at` is about.
        fastest: the corruption with the largest mean drop; None where no accuracy fell.
        fastest_shown: whether it is shown to fall faster than each other one, corrected for the choice.
        words: what that means, a sentence each.
    """

    schema_version: int = Field(default=1, alias="schema")
    split: str
    source: str
    n: int
    n_split: int
    pictures: Pictures
    clean_accuracy: float
    clean_accuracy_ci95: Interval
    accuracy: float
    accuracy_ci95: Interval
    drop: float
    drop_ci95: Interval
    fall: float
    fastest: str | None
    fastest_shown: bool
    corruptions: tuple[UnderCorruption, ...]
    words: tuple[str, ...]

    @property
    def strengths(self) -> tuple[int, ...]:
        """The strengths that were measured."""
        return tuple(cell.strength for cell in self.corruptions[0].strengths) if self.corruptions else ()


@final
class Slice(Value):
    """Accuracy on the images that share a property, against that on the rest.

    Attributes:
        of: the property, such as "brightness" or "folder".
        name: which images they are, in words.
        low: the least value among them, of a property that is a number; None of others, as `high`.
        accuracy_interval: Wilson interval that holds for all slices together with 95 %.
        rest: accuracy on all other images.
        expected: accuracy that the classes of its images would give, each at its accuracy on the whole split.
        p_value: of the exact test that the slice is worse than the other images of its classes (one-sided).
        p_corrected: for the number of slices that were looked at (Holm 1979).
        shown: whether that is below 0.05.
    """

    of: str
    name: str
    low: float | None = None
    high: float | None = None
    n: int
    accuracy: float
    accuracy_interval: Interval
    rest: float
    expected: float
    p_value: float
    p_corrected: float
    shown: bool


@final
class Slices(Value):
    """Accuracy by properties of the pictures: the content of `slices.json`.

    Attributes:
        n: images of the split.
        pictures: what the properties were measured on.
        looked_at: how many slices were tested, which all intervals and p-values are corrected for.
        left_out: properties that were not looked at, with the reason.
        slices: by property, in rising order of its values.
        words: what the classifier is bad at, a sentence each, or that nothing is shown.
    """

    schema_version: int = Field(default=1, alias="schema")
    split: str
    source: str
    n: int
    pictures: Pictures
    accuracy: float
    accuracy_ci95: Interval
    looked_at: int
    left_out: dict[str, str]
    slices: tuple[Slice, ...]
    words: tuple[str, ...]


def worst_first(slices: Sequence[Slice]) -> list[Slice]:
    """Return slices in the order of what they lose against the other images, the shown ones before all others."""
    return sorted(slices, key=lambda part: (not part.shown, part.accuracy - part.rest))
