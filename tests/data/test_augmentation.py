from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from thawlab.data.augmentation import Augmentation, Draws, Pipeline, _resample, augmentations, parse_augmentation
from thawlab.errors import UsageError

# Two images of 3 × 3 pixels, all values different.
PAIR = (torch.arange(54, dtype=torch.uint8) * 4).view(2, 3, 3, 3)
LABELS = torch.tensor([1, 0])
ONE_HOT = torch.eye(2)
SEEDS = range(60)

Golden = Callable[[], None]
GOLDENS: dict[str, Golden] = {}


def golden(name: str) -> Callable[[Golden], Golden]:
    def add(check: Golden) -> Golden:
        GOLDENS[name] = check
        return check

    return add


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(augmentation: Augmentation, seed: int, images: torch.Tensor = PAIR) -> torch.Tensor:
    result, targets = augmentation.apply(images, LABELS, seeded(seed))
    assert torch.equal(targets, LABELS)
    return result


def which(image: torch.Tensor, candidates: list[np.ndarray]) -> int:
    """Return which of the candidates an image is, bit for bit."""
    matches = [k for k, candidate in enumerate(candidates) if np.array_equal(image.numpy(), candidate)]
    assert len(matches) == 1
    return matches[0]


def sampled(images: torch.Tensor, matrices: torch.Tensor) -> np.ndarray:
    """Sample through affine maps the slow way: bilinear, with mirrored edges; what `_resample` must agree with."""
    values, (count, channels, height, width) = images.numpy().astype(np.float64), images.shape
    result = np.zeros(values.shape)

    def weights(place: float, length: int) -> list[tuple[int, float]]:
        place = (place + 0.5) % (2 * length)  # mirrored at the outer edges of the outermost pixels
        place = min(max((place if place <= length else 2 * length - place) - 0.5, 0.0), length - 1.0)
        low = min(int(place), length - 1)
        return [(low, 1 - (place - low)), (min(low + 1, length - 1), place - low)]

    for n in range(count):
        for row in range(height):
            for column in range(width):
                out = np.array([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1, 1.0])
                x, y, _ = matrices[n].double().numpy() @ out
                for r, a in weights(((y + 1) * height - 1) / 2, height):
                    for c, b in weights(((x + 1) * width - 1) / 2, width):
                        result[n, :, row, column] += a * b * values[n, :, r, c]
    assert channels == 3
    return result


def matrices_of(augmentation: Augmentation) -> torch.Tensor:
    """Return the matrices drawn for two images from each seed, after checking that the images follow them."""
    assert augmentation.affine is not None
    drawn = []
    for seed in SEEDS:
        matrices = augmentation.affine(2, Draws(seeded(seed)))
        drawn.append(matrices)
        if seed < 8:
            assert np.abs(changed(augmentation, seed).numpy() - sampled(PAIR, matrices)).max() < 0.01
    together = torch.stack(drawn)
    assert not torch.allclose(together[:, 0], together[:, 1])  # each image has a draw of its own
    assert torch.equal(together[..., 2, :], torch.tensor([0.0, 0.0, 1.0]).expand(len(SEEDS), 2, 3))
    return together


@golden("flip")
def _() -> None:
    flip = parse_augmentation("flip")
    patterns = set()
    for seed in SEEDS:
        result = changed(flip, seed)
        patterns.add(tuple(which(result[n], [PAIR[n].numpy(), PAIR[n].numpy()[:, :, ::-1]]) for n in range(2)))
        if patterns == {(1, 0)}:  # the width is mirrored, of the first image only
            assert result[0, 0].tolist() == [[8, 4, 0], [20, 16, 12], [32, 28, 24]]
            assert torch.equal(result[1], PAIR[1])
    assert patterns == {(0, 0), (0, 1), (1, 0), (1, 1)}


@golden("alternate-flip")
def _() -> None:
    # Within a pipeline it is `flip`; the alternation itself is in how training takes its rows (test_train.py).
    for seed in SEEDS:
        assert torch.equal(changed(parse_augmentation("alternate-flip"), seed), changed(parse_augmentation("flip"), seed))


@golden("rotate90")
def _() -> None:
    turn = parse_augmentation("rotate90")
    seen = set()
    for seed in SEEDS:
        result = changed(turn, seed)
        seen.add(tuple(which(result[n], [np.rot90(PAIR[n].numpy(), k, (1, 2)) for k in range(4)]) for n in range(2)))
    assert {first for first, _ in seen} == {second for _, second in seen} == {0, 1, 2, 3}
    assert any(first != second for first, second in seen)


@golden("crop")
def _() -> None:
    cut = parse_augmentation("crop:1")
    padded = np.pad(PAIR.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    crops = [[padded[n, :, y : y + 3, x : x + 3] for y in range(3) for x in range(3)] for n in range(2)]
    seen = set()
    for seed in range(200):
        result = changed(cut, seed)
        seen.add((which(result[0], crops[0]), which(result[1], crops[1])))
    assert {first for first, _ in seen} == {second for _, second in seen} == set(range(9))
    assert any(first != second for first, second in seen)


@golden("shift")
def _() -> None:
    matrices = matrices_of(parse_augmentation("shift:0.3"))
    moves = matrices[..., :2, 2] / 2  # a whole side is 2 in these coordinates
    assert torch.equal(matrices[..., :2, :2], torch.eye(2).expand(len(SEEDS), 2, 2, 2))
    assert moves.abs().max() <= 0.3 and moves.min() < -0.25 and moves.max() > 0.25
    assert not torch.allclose(moves[..., 0], moves[..., 1])  # across and down are drawn apart


@golden("rotate")
def _() -> None:
    matrices = matrices_of(parse_augmentation("rotate:90"))
    turns = matrices[..., :2, :2]
    assert torch.allclose(turns @ turns.transpose(-1, -2), torch.eye(2).expand_as(turns), atol=1e-6)
    assert (matrices[..., :2, 2] == 0).all()
    degrees = torch.rad2deg(torch.atan2(turns[..., 1, 0], turns[..., 0, 0]))
    assert degrees.abs().max() <= 90 and degrees.min() < -75 and degrees.max() > 75


@golden("zoom")
def _() -> None:
    matrices = matrices_of(parse_augmentation("zoom:0.5"))
    factors = 1 / matrices[..., 0, 0]
    assert torch.equal(matrices, torch.diag_embed(torch.stack([1 / factors, 1 / factors, torch.ones_like(factors)], -1)))
    assert factors.min() >= 0.5 and factors.max() <= 1.5 and factors.min() < 0.6 and factors.max() > 1.4


def factors_of(name: str, images: torch.Tensor, about: torch.Tensor) -> list[float]:
    """Return the factor by which each image's distance from `about` was multiplied, after checking that it is one."""
    factors = []
    for seed in SEEDS:
        result = changed(parse_augmentation(f"{name}:0.1"), seed, images)
        ratio = (result - about) / (images.float() - about)
        for n in range(2):
            known = ratio[n][(images[n] - about[n]).abs() > 1]
            assert known.max() - known.min() < 1e-3
            factors.append(float(known.mean()))
    assert min(factors) >= 0.9 - 1e-4 and max(factors) <= 1.1 + 1e-4
    assert min(factors) < 0.92 and max(factors) > 1.08
    assert factors[0::2] != pytest.approx(factors[1::2])
    return factors


@golden("brightness")
def _() -> None:
    factors_of("brightness", PAIR, torch.zeros(2, 1, 1, 1))
    bright = torch.stack([changed(parse_augmentation("brightness:1"), seed, torch.full_like(PAIR, 200)) for seed in SEEDS])
    assert bright.max() == 255 and bright.min() >= 0 and bright.min() < 40


@golden("contrast")
def _() -> None:
    middling = PAIR // 2 + 60
    factors_of("contrast", middling, middling.float().mean(dim=(1, 2, 3), keepdim=True))
    ends = PAIR.where(PAIR > 100, 0).where(PAIR < 150, 255)
    strong = torch.stack([changed(parse_augmentation("contrast:1"), seed, ends) for seed in SEEDS])
    assert strong.min() == 0 and strong.max() == 255


def as_torchvision(operation: torch.nn.Module, images: torch.Tensor, seed: int) -> torch.Tensor:
    """Run torchvision's own operation with the seed that our generator gives it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(0, 2**62, (1,), generator=seeded(seed))))
        return torch.stack([operation(image) for image in images])


@golden("randaugment")
def _() -> None:
    for specification, operation in (("randaugment", v2.RandAugment(2, 9)), ("randaugment:3:20", v2.RandAugment(3, 20))):
        for seed in range(10):
            result = changed(parse_augmentation(specification), seed)
            assert result.dtype == torch.uint8 and torch.equal(result, as_torchvision(operation, PAIR, seed))
    floats = changed(parse_augmentation("randaugment"), 3, PAIR.float() + 0.3)
    assert torch.equal(floats, changed(parse_augmentation("randaugment"), 3))


@golden("erase")
def _() -> None:
    images = (torch.arange(2 * 3 * 12 * 12) % 100).view(2, 3, 12, 12).to(torch.uint8)
    colour = torch.tensor([124.0, 116.0, 104.0]).view(3, 1, 1)
    erased = []
    for seed in SEEDS:
        for before, after in zip(images.float(), changed(parse_augmentation("erase:0.5"), seed, images), strict=True):
            mask = (after != before).any(dim=0)
            erased.append(bool(mask.any()))
            if erased[-1]:
                rows, columns = torch.nonzero(mask, as_tuple=True)
                top, left = int(rows.min()), int(columns.min())
                height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
                assert int(mask.sum()) == height * width  # a full rectangle, in one colour
                assert (after[:, mask] == colour.view(3, 1)).all()
    assert 0.3 < np.mean(erased) < 0.7
    assert {(erased[k], erased[k + 1]) for k in range(0, len(erased), 2)} >= {(True, False), (False, True)}


@golden("mixup")
def _() -> None:
    mix = parse_augmentation("mixup:1")
    shares = []
    for seed in SEEDS:
        images, targets = mix.apply(PAIR, ONE_HOT, seeded(seed))
        share = float(targets[0, 0])
        shares.append(share)
        assert torch.allclose(targets, torch.tensor([[share, 1 - share], [1 - share, share]]))
        assert torch.allclose(images, share * PAIR + (1 - share) * PAIR.flip(0), atol=1e-3)
    assert min(shares) < 0.1 and max(shares) > 0.9


@golden("cutmix")
def _() -> None:
    mix = parse_augmentation("cutmix")
    shares = set()
    for seed in SEEDS:
        images, targets = mix.apply(PAIR, ONE_HOT, seeded(seed))
        own, other = (images == PAIR).all(dim=1), (images == PAIR.flip(0)).all(dim=1)
        assert torch.equal(own, ~other) and torch.equal(own[0], own[1])
        rows, columns = torch.nonzero(other[0], as_tuple=True)
        if len(rows):
            box = other[0][rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert box.all() and box.sum() == other[0].sum()
        share = float(own[0].float().mean())
        shares.add(round(share, 3))
        assert torch.allclose(targets, torch.tensor([[share, 1 - share], [1 - share, share]]), atol=1e-6)
    assert len(shares) > 3


@pytest.mark.parametrize("name", list(augmentations))
def test_every_augmentation_does_what_its_golden_says(name: str) -> None:
    assert name in GOLDENS, f"'{name}' is new: write a golden for it"
    GOLDENS[name]()


@pytest.mark.parametrize("name", list(augmentations))
def test_every_augmentation_is_a_function_of_the_generator_alone(name: str) -> None:
    augmentation = parse_augmentation(name)
    images = torch.randint(0, 256, (4, 3, 12, 12), generator=seeded(0), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.eye(4) if augmentation.mixes else torch.arange(4)
    kept, kept_targets, state = images.clone(), targets.clone(), torch.get_rng_state()
    results = []
    for seed in [*range(12), 0]:
        result, changed_targets = augmentation.apply(images, targets, seeded(seed))
        results.append((result, changed_targets))
        assert result.shape == images.shape and result.min() >= 0 and result.max() <= 255
        if augmentation.mixes:
            assert torch.allclose(changed_targets.sum(dim=1), torch.ones(4)) and (changed_targets >= 0).all()
        else:
            assert torch.equal(changed_targets, targets)
    assert torch.equal(results[0][0], results[-1][0]) and torch.equal(results[0][1], results[-1][1])
    assert any(not torch.equal(results[0][0], other) for other, _ in results)
    assert torch.equal(images, kept) and torch.equal(targets, kept_targets)  # what was given is not changed
    assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn from the global generator


@pytest.mark.parametrize("name", list(augmentations))
def test_every_augmentation_is_described(name: str) -> None:
    assert augmentations.get(name).__doc__


@pytest.mark.parametrize(("across", "down"), [(1, 0), (-1, 0), (0, 1), (0, -1), (2, -1)])
def test_a_shift_by_whole_pixels_moves_pixels_and_mirrors_the_edge(across: int, down: int) -> None:
    matrices = torch.eye(3).repeat(2, 1, 1)
    matrices[:, 0, 2], matrices[:, 1, 2] = 2 * across / 3, 2 * down / 3
    padded = np.pad(PAIR.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="symmetric")
    expected = padded[:, :, 2 + down : 5 + down, 2 + across : 5 + across]
    assert np.abs(_resample(PAIR, matrices).numpy() - expected).max() < 1e-3


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_turn_by_right_angles_moves_whole_pixels(turns: int) -> None:
    angle = turns * math.pi / 2
    matrix = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    expected = torch.rot90(PAIR, turns, (-2, -1)).float()
    assert torch.allclose(_resample(PAIR, matrix.repeat(2, 1, 1)), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("specification", "expected"),
    [
        ("flpi", "phases.0.augment: there is no augmentation named 'flpi' (did you mean 'flip'?)"),
        ("flip:0.5", "augment: 'flip' takes no argument, but '0.5' was given"),
        ("rotate90:2", "augment: 'rotate90' takes no argument, but '2' was given"),
        ("shift:far", "augment: 'shift:far': 'far' is not a number"),
        ("shift:0", "augment: 'shift:0': must be above 0 and at most 1"),
        ("shift:1.5", "augment: 'shift:1.5': must be above 0 and at most 1"),
        ("rotate:nan", "augment: 'rotate:nan': must be above 0 and at most 180"),
        ("zoom:1", "augment: 'zoom:1': must be above 0 and at most 0.9"),
        ("crop:0.5", "augment: 'crop:0.5': must be a whole number"),
        ("crop:-1", "augment: 'crop:-1': must be above 0 and at most 256"),
        ("randaugment:2:9.5", "augment: 'randaugment:9.5': must be a whole number"),
        ("randaugment:2:31", "augment: 'randaugment:31': must be above 0 and at most 30"),
        ("erase:2", "augment: 'erase:2': must be above 0 and at most 1"),
        ("mixup:0", "augment: 'mixup:0': must be above 0 and at most 100"),
    ],
)
def test_a_wrong_specification_is_refused_in_one_line(specification: str, expected: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_augmentation(specification, "phases.0.augment")
    assert str(error.value) == expected


def test_a_crop_that_pads_more_than_there_is_to_mirror_is_refused() -> None:
    with pytest.raises(UsageError, match="'crop:3' pads by more than the images' 3 pixels"):
        changed(parse_augmentation("crop:3"), 0)
    assert changed(parse_augmentation("crop:2"), 0).shape == PAIR.shape


# Several in a row


def blob() -> torch.Tensor:
    """Make two smooth images, on which resampling once and resampling twice look nearly alike."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 96), indexing="ij")
    spot = 255 * torch.exp(-((x - 0.25) ** 2 + 2 * (y + 0.1) ** 2) * 12)
    return torch.stack([spot, spot.T]).unsqueeze(1).repeat(1, 3, 1, 1)


@pytest.mark.parametrize("names", [("rotate:60", "shift:0.2"), ("shift:0.2", "zoom:0.4"), ("zoom:0.2", "rotate:60", "shift:0.1")])
def test_affine_changes_in_a_row_are_resampled_once_and_in_order(names: tuple[str, ...]) -> None:
    merged, _ = Pipeline(names)(blob(), LABELS, seeded(3))
    generator, single = seeded(3), blob()
    for name in names:
        single, _ = parse_augmentation(name).apply(single, LABELS, generator)
    inner = slice(24, 72)  # away from what came in over the mirrored edges
    assert (merged - single)[..., inner, inner].abs().max() < 4
    assert (merged - blob())[..., inner, inner].abs().max() > 40
    assert merged.max() > single.max()  # sampling once keeps more of the peak


def test_a_pipeline_applies_its_steps_in_the_order_they_are_written() -> None:
    names = ["crop:1", "flip", "brightness:0.3"]
    images, targets = Pipeline(names)(PAIR, LABELS, seeded(5))
    expected, generator = PAIR, seeded(5)
    for name in names:
        expected, _ = parse_augmentation(name).apply(expected, LABELS, generator)
    assert torch.equal(images, expected) and torch.equal(targets, LABELS)


def test_an_empty_pipeline_changes_nothing() -> None:
    pipeline = Pipeline([])
    images, targets = pipeline(PAIR, LABELS, seeded(0))
    assert not pipeline.mixes and torch.equal(images, PAIR) and torch.equal(targets, LABELS)


def test_of_several_ways_to_mix_each_batch_takes_one() -> None:
    pipeline = Pipeline(["mixup:1", "flip", "cutmix"])
    assert pipeline.mixes
    still = torch.stack([torch.zeros(3, 6, 6), torch.full((3, 6, 6), 200.0)])  # flipping changes nothing here
    kinds = set()
    for seed in range(40):
        images, targets = pipeline(still, ONE_HOT, seeded(seed))
        assert torch.allclose(targets.sum(dim=1), torch.ones(2))
        values = images[0].unique()
        kinds.add("cutmix" if len(values) == 2 else "mixup" if 0 < values[0] < 200 else "either")
    assert {"cutmix", "mixup"} <= kinds


def test_a_wrong_step_is_named_with_its_place_in_the_list() -> None:
    with pytest.raises(UsageError, match=r"phases\.1\.augment\[1\]: there is no augmentation named 'rotat'"):
        Pipeline(["flip", "rotat:15"], "phases.1.augment")


BY_IMAGE = [
    "flip",
    "rotate90",
    "crop:1",
    "shift:0.2",
    "rotate:30",
    "zoom:0.2",
    "brightness:0.3",
    "contrast:0.3",
    "alternate-flip",
]


@pytest.mark.parametrize("names", [*([name] for name in BY_IMAGE), BY_IMAGE])
def test_a_part_of_a_batch_is_changed_as_it_is_in_the_whole_batch(names: list[str]) -> None:
    images = torch.randint(0, 256, (7, 3, 8, 8), dtype=torch.uint8, generator=seeded(1))
    targets = torch.arange(7)
    pipeline = Pipeline(names)
    assert pipeline.by_image
    whole, _ = pipeline(images, targets, seeded(2))
    for first, last in ((0, 4), (4, 7), (6, 7), (0, 7)):
        part, kept = pipeline.part(images[first:last], targets[first:last], Draws(seeded(2), first, len(images)))
        assert torch.equal(part, whole[first:last])
        assert torch.equal(kept, targets[first:last])


@pytest.mark.parametrize("name", ["mixup", "cutmix", "randaugment", "erase"])
def test_what_draws_for_one_image_after_another_or_mixes_them_takes_whole_batches(name: str) -> None:
    assert not Pipeline(["flip", name]).by_image
