from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thawlab.data.images import ArrayImages
from thawlab.data.listing import Listing
from thawlab.data.splits import Splits, absent_classes, class_ranks, held_out, make_splits, nested_subset
from thawlab.errors import UsageError

FRACTIONS = st.floats(0.01, 0.5)


def listing_of(labels: list[int] | np.ndarray, splits: list[str] | None = None, classes: int | None = None) -> Listing:
    numbers = np.asarray(labels, dtype=np.int64)
    count = classes or int(numbers.max()) + 1
    return Listing(
        name="pets",
        classes=tuple(f"class{k}" for k in range(count)),
        ids=tuple(map(str, range(len(numbers)))),
        labels=numbers,
        splits=np.array(splits or ["train"] * len(numbers)),
        images=ArrayImages(np.zeros((len(numbers), 1, 1, 3), np.uint8)),
    )


@st.composite
def listings(draw: st.DrawFn, least: int = 2) -> Listing:
    counts = draw(st.lists(st.integers(least, 30), min_size=2, max_size=6))
    labels = np.repeat(np.arange(len(counts)), counts)
    return listing_of(np.random.default_rng(draw(st.integers(0, 99))).permutation(labels))


def assert_disjoint(splits: Splits) -> None:
    together = np.concatenate([splits.train, splits.val, splits.test])
    assert len(np.unique(together)) == len(together)


@settings(max_examples=150, deadline=None)
@given(listings(), st.integers(0, 10**6), FRACTIONS, FRACTIONS)
def test_every_image_is_in_exactly_one_part_and_every_class_is_held_out(
    listing: Listing, seed: int, val: float, test: float
) -> None:
    splits = make_splits(listing, seed, None, val, test)
    assert_disjoint(splits)
    assert len(splits.train) + len(splits.val) + len(splits.test) == len(listing)
    assert absent_classes(splits.test, listing.labels, listing.classes) == []
    assert absent_classes(splits.train, listing.labels, listing.classes) == []
    learnt_from = np.bincount(listing.labels[np.concatenate([splits.train, splits.val])])
    for label in np.flatnonzero(learnt_from >= 2):
        assert label in listing.labels[splits.val]


@settings(max_examples=100, deadline=None)
@given(listings(least=6), st.integers(0, 10**6), FRACTIONS, FRACTIONS)
def test_every_part_is_stratified(listing: Listing, seed: int, val: float, test: float) -> None:
    splits = make_splits(listing, seed, None, val, test)
    total = np.bincount(listing.labels)
    tested = np.bincount(listing.labels[splits.test])
    judged = np.bincount(listing.labels[splits.val])
    assert np.array_equal(tested, np.ceil(total * test - 1e-6))
    assert np.array_equal(judged, np.ceil((total - tested) * val - 1e-6))


@settings(max_examples=150, deadline=None)
@given(listings(), st.integers(0, 10**6), st.floats(0.01, 0.4), st.data())
def test_the_parts_of_a_smaller_train_size_lie_inside_those_of_a_larger_one(
    listing: Listing, seed: int, val: float, data: st.DataObject
) -> None:
    available = len(listing) - len(make_splits(listing, seed, None, val, 0.2).test)
    # Each class must have one to learn from; how small that can be depends on how uneven the classes are.
    sizes = sorted(data.draw(st.lists(st.integers(2, available), min_size=2, max_size=4)))
    parts = []
    for size in sizes:
        try:
            parts.append(make_splits(listing, seed, size, val, 0.2))
        except UsageError as error:
            assert "no training images of" in str(error) and size < available
            continue
        assert_disjoint(parts[-1])
        assert len(parts[-1].train) + len(parts[-1].val) == size
    for small, large in pairwise(parts):
        assert set(small.train) <= set(large.train)
        assert set(small.val) <= set(large.val)
        assert np.array_equal(small.test, large.test)


@settings(max_examples=60, deadline=None)
@given(listings(), st.integers(0, 10**6), st.data())
def test_a_subset_has_the_exact_size_and_keeps_the_classes_in_proportion(
    listing: Listing, seed: int, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, len(listing)))
    chosen = nested_subset(listing.labels, class_ranks(listing.labels, seed), size)
    assert chosen.sum() == size
    share = np.bincount(listing.labels) * size / len(listing)
    assert np.all(np.abs(np.bincount(listing.labels[chosen], minlength=len(listing.classes)) - share) <= 1.5)


def test_the_10_000_of_cifar10_lie_inside_its_50_000_with_their_val_parts() -> None:
    labels = np.concatenate([np.arange(50_000) % 10, np.arange(10_000) % 10])
    listing = listing_of(labels, ["train"] * 50_000 + ["test"] * 10_000)
    small, large = (make_splits(listing, 0, size, 0.1, 0.2) for size in (10_000, None))
    assert (len(small.train), len(small.val), len(small.test)) == (9_000, 1_000, 10_000)
    assert (len(large.train), len(large.val), len(large.test)) == (45_000, 5_000, 10_000)
    assert np.isin(small.train, large.train).all() and np.isin(small.val, large.val).all()
    for part, each in ((small.train, 900), (small.val, 100), (large.train, 4500), (large.val, 500)):
        assert np.bincount(labels[part]).tolist() == [each] * 10
    assert (large.test >= 50_000).all()


def test_one_image_per_class_is_learnt_from_and_stays_so_in_a_larger_subset() -> None:
    listing = listing_of(np.repeat(np.arange(4), 10), ["train"] * 36 + ["test"] * 4)
    one, two = (make_splits(listing, 0, size, 0.1, 0.2) for size in (4, 8))
    assert (len(one.train), len(one.val), len(two.train), len(two.val)) == (4, 0, 4, 4)
    assert np.array_equal(one.train, two.train)


@settings(max_examples=60, deadline=None)
@given(listings(), st.integers(0, 10**6))
def test_splits_are_a_function_of_labels_and_seed(listing: Listing, seed: int) -> None:
    first, second = (make_splits(listing, seed, None, 0.1, 0.2) for _ in range(2))
    for part in ("train", "val", "test"):
        assert np.array_equal(getattr(first, part), getattr(second, part))


def test_another_seed_splits_otherwise() -> None:
    listing = listing_of(np.arange(100) % 2)
    assert not np.array_equal(make_splits(listing, 0, None, 0.1, 0.2).test, make_splits(listing, 1, None, 0.1, 0.2).test)


def test_the_splits_of_the_source_are_kept() -> None:
    kinds = ["train"] * 8 + ["val"] * 4 + ["test"] * 4
    splits = make_splits(listing_of(np.arange(16) % 2, kinds), 0, None, 0.3, 0.3)
    assert (splits.train.tolist(), splits.val.tolist(), splits.test.tolist()) == ([*range(8)], [*range(8, 12)], [*range(12, 16)])


def test_train_size_leaves_the_val_split_of_the_source_whole() -> None:
    kinds = ["train"] * 8 + ["val"] * 4 + ["test"] * 4
    splits = make_splits(listing_of(np.arange(16) % 2, kinds), 0, 4, 0.1, 0.2)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (4, 4, 4)


def test_val_zero_means_none_and_a_train_size_that_is_all_means_all() -> None:
    splits = make_splits(listing_of(np.arange(20) % 2), 0, 16, 0.0, 0.2)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (16, 0, 4)


def test_a_class_of_one_image_is_learnt_from_and_never_held_out() -> None:
    listing = listing_of([0] * 10 + [1])
    splits = make_splits(listing, 0, None, 0.1, 0.2)
    assert 10 in splits.train
    assert absent_classes(splits.test, listing.labels, listing.classes) == ["class1"]


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.25, 0.5, 1 / 3])
def test_every_prefix_holds_out_the_same_fraction(fraction: float) -> None:
    held = np.cumsum(held_out(np.arange(1000), fraction))
    assert np.abs(held - fraction * np.arange(1, 1001)).max() < 1
    assert held[0] == 1


def test_ranks_number_each_class_by_itself() -> None:
    labels = np.array([0, 1, 0, 0, 1])
    ranks = class_ranks(labels, 5)
    assert sorted(ranks[labels == 0]) == [0, 1, 2] and sorted(ranks[labels == 1]) == [0, 1]


@pytest.mark.parametrize(
    ("listing", "train_size", "expected"),
    [
        (listing_of([0, 0, 0, 0]), None, "pets: has one class only ('class0'); a classifier needs at least two"),
        (listing_of([0, 1, 2]), None, "pets: has 3 images for 3 classes; each class needs a few"),
        (listing_of([0, 1] * 10), 17, "data.train_size = 17: pets has 16 images to train on; take fewer, or omit the key"),
        (listing_of([0, 1] * 10, classes=3), None, "pets: no training images of class2; add some, raise data.train_size"),
        (listing_of([0, 1, 0, 1, 2, 2], ["train"] * 4 + ["test"] * 2), None, "pets: no training images of class2"),
        (listing_of([0] * 30 + [1] * 2), 2, "pets: no training images of class1; add some, raise data.train_size"),
    ],
)
def test_what_cannot_be_split_is_said_in_one_line(listing: Listing, train_size: int | None, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        make_splits(listing, 0, train_size, 0.1, 0.2)
    assert str(error.value).startswith(expected) and "\n" not in str(error.value)


@pytest.mark.parametrize("groups", [None, np.arange(8) // 2])
def test_a_source_with_test_images_only_is_refused_in_one_line(groups: np.ndarray | None) -> None:
    listing = replace(listing_of(np.arange(8) % 2, ["test"] * 8), groups=groups)
    with pytest.raises(UsageError, match="no training images of"):
        make_splits(listing, 0, None, 0.1, 0.2)


def counts_of_cao_et_al(largest: int, classes: int, ratio: float) -> list[int]:
    """Return what `get_img_num_per_cls` of LDAM-DRW gives for imb_type "exp"; its imb_factor is 1 / ratio."""
    return [int(largest * ((1 / ratio) ** (index / (classes - 1.0)))) for index in range(classes)]


def test_cifar10_with_a_long_tail_of_100_is_that_of_cao_et_al() -> None:
    labels = np.concatenate([np.arange(50_000) % 10, np.arange(10_000) % 10])
    listing = listing_of(labels, ["train"] * 50_000 + ["test"] * 10_000)
    splits = make_splits(listing, 0, None, 0.1, 0.2, 100.0)
    kept = np.bincount(labels[np.concatenate([splits.train, splits.val])])
    assert kept.tolist() == counts_of_cao_et_al(5000, 10, 100.0) and kept.sum() == 12_406 and kept[-1] == 50
    assert np.array_equal(np.bincount(labels[splits.val]), np.ceil(kept * 0.1))
    assert len(splits.test) == 10_000


@settings(max_examples=100, deadline=None)
@given(listings(), st.integers(0, 10**6), st.floats(0.0, 0.4), st.lists(st.floats(1, 300), min_size=2, max_size=4))
def test_a_longer_tail_lies_inside_a_shorter_one_and_leaves_the_test_split_alone(
    listing: Listing, seed: int, val: float, ratios: list[float]
) -> None:
    whole = make_splits(listing, seed, None, val, 0.2)
    parts = [make_splits(listing, seed, None, val, 0.2, ratio) for ratio in (1.0, *sorted(ratios))]
    had = np.bincount(listing.labels[np.concatenate([whole.train, whole.val])])
    for splits, ratio in zip(parts, (1.0, *sorted(ratios)), strict=True):
        assert_disjoint(splits)
        assert np.array_equal(splits.test, whole.test)
        assert absent_classes(splits.train, listing.labels, listing.classes) == []
        wanted = had.max() * ratio ** (-np.arange(len(had)) / (len(had) - 1))
        kept = np.bincount(listing.labels[np.concatenate([splits.train, splits.val])])
        assert np.array_equal(kept, np.minimum(had, np.maximum(np.floor(wanted + 1e-6), 2)))
    for short, long in pairwise(parts):
        assert set(long.train) <= set(short.train) and set(long.val) <= set(short.val)


def test_a_long_tail_leaves_the_val_split_of_the_source_whole() -> None:
    kinds = ["train"] * 40 + ["val"] * 4 + ["test"] * 4
    splits = make_splits(listing_of(np.arange(48) % 2, kinds), 0, None, 0.1, 0.2, 10.0)
    assert (len(splits.train), splits.val.tolist(), len(splits.test)) == (22, [*range(40, 44)], 4)
