"""Accuracy by properties of the pictures: on which a classifier is shown to be worse than on others of the same classes."""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thawlab.comparison.statistics import holm
from thawlab.data.dataset import Dataset
from thawlab.data.decode import decode, open_image
from thawlab.data.decoded import surely
from thawlab.data.listing import Listing
from thawlab.data.originals import AtOwnSize
from thawlab.data.parallel import in_threads
from thawlab.data.types import Indices, Labels
from thawlab.evaluation.metrics.measures import accuracy_interval
from thawlab.evaluation.predictions import Predictions
from thawlab.evaluation.properties import MEASURED_AT, PROPERTIES
from thawlab.robustness import Slice, Slices, worst_first
from thawlab.values import Interval

_BINS = 5  # of a property that is a number
_LEAST = 10  # images of a slice: of fewer nothing could be shown
_MOST_NAMES = 20  # values of a property that is a name, the most frequent ones
_LEVEL = 0.05
_SHAPES = {"size": ("smallest", "largest"), "aspect ratio": ("tallest", "widest")}

Numbers = npt.NDArray[np.float64]
Names = npt.NDArray[np.str_]


class _Group(NamedTuple):
    """Images that share a property: which of them (bool, one per image), and in words."""

    of: str
    name: str
    members: npt.NDArray[np.bool_]
    low: float | None = None
    high: float | None = None


def numbers_of(
    dataset: Dataset, listing: Listing, indices: Indices, grey: Interval | None, workers: int | None
) -> dict[str, Numbers]:
    """Measure images as they came: what `PROPERTIES` measures, the shorter side in pixels ("size") and width by height.

    Args:
        dataset: that the images are from.
        listing: access to their files, in the dataset's order.
        indices: of the images.
        grey: the values of black and white in grey images of more than 8 bits.
        workers: threads that decode; as many as cores if None.

    Returns:
        A value per image, by property.

    Raises:
        ThawlabError: if an image cannot be read or decoded any more.
    """
    own = AtOwnSize(MEASURED_AT, grey)

    def measure(index: int) -> list[float]:
        content = listing.images.read(index)
        pixels = decode(content, own)
        if isinstance(content, bytes):
            with open_image(content) as image:
                width, height = image.size
        else:
            height, width = content.shape[:2]
        if (width < height) != (pixels.shape[1] < pixels.shape[0]):
            width, height = height, width  # the camera noted that it was turned
        return [*(of.value(pixels) for of in PROPERTIES.values()), min(width, height), width / height]

    def measured(index: int) -> list[float]:
        return surely(lambda: measure(index), dataset.ids[index])

    rows = [row for _, part in in_threads(measured, indices, workers, "measuring pictures") for row in part]
    table = np.array(rows, dtype=np.float64).reshape(len(indices), -1)
    return {name: table[:, k] for k, name in enumerate([*PROPERTIES, *_SHAPES])}


def names_of(listing: Listing, indices: Indices) -> dict[str, Names]:
    """Return the folder of each image, and what a manifest says of it, by property."""
    chosen = indices.tolist()
    folders = np.array([PurePosixPath(listing.ids[index]).parent.as_posix() for index in chosen], dtype=np.str_)
    columns = {name: np.array([values[index] for index in chosen], dtype=np.str_) for name, values in listing.columns.items()}
    return {"folder": folders, **{f"column {name}": values for name, values in columns.items()}}


def slices_of(
    table: Predictions, numbers: Mapping[str, Numbers], names: Mapping[str, Names], split: str = "test", source: str = ""
) -> Slices:
    """Return the accuracy by property, and where it is shown to be worse than on the other images.

    A property that is a number makes up to five slices of about equally many images, one that is a name a slice per value. Each
    is compared with the other images of the same classes (`worse_p_value`), since a slice may be worse because its classes are
    hard. Holm's correction (1979) over all slices keeps the chance that any is named wrongly below 5 %. The intervals are
    Wilson's with Bonferroni's correction.

    Args:
        table: the predictions of the split.
        numbers: a value per image, by property; columns of names that are all numbers count as such.
        names: a text per image, by property.
        split: whose images they are, for the record.
        source: where they are from.
    """
    right = table.predicted == table.labels
    left_out: dict[str, str] = {}
    groups = list(_groups(table.labels, numbers, names, left_out))
    p_values = [worse_p_value(right, group.members, table.labels) for group in groups]
    level = _LEVEL / max(len(groups), 1)
    expected = _by_class(right, table.labels)
    slices = tuple(
        Slice(
            of=group.of,
            name=group.name,
            low=group.low,
            high=group.high,
            n=int(group.members.sum()),
            accuracy=float(right[group.members].mean()),
            accuracy_interval=accuracy_interval(int(right[group.members].sum()), int(group.members.sum()), 1 - level),
            rest=float(right[~group.members].mean()),
            expected=float(expected[group.members].mean()),
            p_value=p_value,
            p_corrected=corrected,
            shown=corrected < _LEVEL,
        )
        for group, p_value, corrected in zip(groups, p_values, holm(p_values), strict=True)
    )
    result = Slices(
        split=split,
        source=source,
        n=len(right),
        pictures="originals",
        accuracy=float(right.mean()) if len(right) else 0.0,
        accuracy_ci95=accuracy_interval(int(right.sum()), len(right)),
        looked_at=len(slices),
        left_out=left_out,
        slices=slices,
        words=(),
    )
    return result.model_copy(update={"words": tuple(_words(result))})


def _groups(
    labels: Labels, numbers: Mapping[str, Numbers], names: Mapping[str, Names], left_out: dict[str, str]
) -> Iterator[_Group]:
    """Yield the slices to look at; what makes none is noted in `left_out` with the reason."""
    for of, texts in names.items():
        values = _as_numbers(texts)
        found = list(_named(of, texts) if values is None else _binned(of, values))
        if _says_the_class(texts, labels):
            left_out[of] = "says the class, which the report judges"
        elif not found:
            left_out[of] = f"has no two values with {_LEAST} images each"
        else:
            yield from found
    for of, measured in numbers.items():
        found = list(_binned(of, measured))
        yield from found
        if not found:
            left_out[of] = "is the same for all, or the images are too few"


def _binned(of: str, values: Numbers) -> Iterator[_Group]:
    bins = min(_BINS, len(values) // _LEAST)
    if bins < 2:
        return
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    place = np.searchsorted(edges, values, side="left")
    for number in np.unique(place).tolist():
        members = place == number
        if _LEAST <= members.sum() < len(values):
            low, high = float(values[members].min()), float(values[members].max())
            which = "least" if number == place.min() else "most" if number == place.max() else ""
            yield _Group(of, _name(of, which, low, high, float(members.mean())), members, low, high)


def _name(of: str, which: str, low: float, high: float, share: float) -> str:
    """Return in words which images a slice of a property that is a number holds."""
    form = ",.0f" if high >= 1000 else ".3g"
    between = f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"
    if not which:
        return f"{of} {between}"
    measured = PROPERTIES.get(of)
    ends = (measured.least, measured.most) if measured else _SHAPES.get(of, ("lowest", "highest"))
    called = ends[which == "most"]
    return f"the {called} {100 * share:.0f} % ({of} {between})"


def _named(of: str, texts: Names) -> Iterator[_Group]:
    values, counts = np.unique(texts, return_counts=True)
    for place in np.argsort(-counts, kind="stable")[:_MOST_NAMES].tolist():
        if _LEAST <= counts[place] < len(texts):
            yield _Group(of, f"{of} {values[place] or 'left empty'}", texts == values[place])


def _as_numbers(texts: Names) -> Numbers | None:
    """Return texts as numbers where all are finite ones, of more than a few values; None else."""
    try:
        values = texts.astype(np.float64)
    except ValueError:
        return None
    return values if len(np.unique(values)) > _BINS and np.isfinite(values).all() else None


def _says_the_class(texts: Names, labels: Labels) -> bool:
    """Return whether a property has one value within each class, and not the same one in all."""
    pairs = len(np.unique(np.rec.fromarrays([texts, labels])))
    return pairs == len(np.unique(labels)) and len(np.unique(texts)) > 1


def worse_p_value(right: npt.NDArray[np.bool_], members: npt.NDArray[np.bool_], labels: Labels) -> float:
    """Return the one-sided p-value of the exact test that fewer of some images are right than chance within classes would give.

    Given how many of each class are right, and how many are in the slice, the right ones in it are a sum of independent
    hypergeometric numbers; of a single class this is Fisher's exact test. Where a slice holds the whole of a class, or none, or a
    class is always right or always wrong, that class tells nothing.

    Args:
        right: bool, one per image.
        members: bool, whether the image is in the slice.
        labels: the class of each image.
    """
    from scipy.special import gammaln

    classes = int(labels.max()) + 1
    sizes, hits = np.bincount(labels, minlength=classes), np.bincount(labels[right], minlength=classes)
    inside = np.bincount(labels[members], minlength=classes)
    telling = np.flatnonzero((inside > 0) & (inside < sizes) & (hits > 0) & (hits < sizes))
    observed = int(np.bincount(labels[members & right], minlength=classes)[telling].sum())
    shares, least = np.ones(1), 0

    def ways(n: npt.NDArray[np.int64] | int, k: npt.NDArray[np.int64]) -> Numbers:
        logarithm: Numbers = gammaln(np.add(n, 1)) - gammaln(k + 1) - gammaln(np.subtract(n, k) + 1)
        return logarithm

    for n, good, drawn in zip(sizes[telling].tolist(), hits[telling].tolist(), inside[telling].tolist(), strict=True):
        first, last = max(0, drawn - (n - good)), min(drawn, good)
        k = np.arange(first, last + 1)
        chances = np.exp(ways(good, k) + ways(n - good, drawn - k) - ways(n, np.array([drawn])))
        shares, least = np.convolve(shares, chances), least + first
    return float(min(1.0, shares[: observed - least + 1].sum()))


def _by_class(right: npt.NDArray[np.bool_], labels: Labels) -> Numbers:
    """Return for each image the accuracy of its class."""
    counts = np.bincount(labels)
    accuracies: Numbers = (np.bincount(labels, weights=right) / np.maximum(counts, 1))[labels]
    return accuracies


def _words(result: Slices) -> list[str]:
    """Return what the classifier is bad at, the worst first, or that nothing of the kind is shown."""
    looked = f"{result.looked_at} slices of {result.n:,} {result.split} images were looked at"
    worst = worst_first([part for part in result.slices if part.shown])
    if not worst:
        return [f"no kind of picture is shown to be worse than others of the same classes; {looked}"]
    return [f"{looked}, and all that follows is corrected for their number", *map(_said, worst)]


def _said(part: Slice) -> str:
    low, high = part.accuracy_interval
    return (
        f"bad at {part.name}: {100 * part.accuracy:.1f} % of {part.n:,} are right ({100 * low:.1f} to {100 * high:.1f} %), where "
        f"its classes would give {100 * part.expected:.1f} %; of all others {100 * part.rest:.1f} %"
    )
