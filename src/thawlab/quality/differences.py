"""What makes two near-duplicates differ, in words: "mirrored, shifted 8 % of the side, 12 % wider, paler"."""

import math

import torch

from thawlab.quality.registration import SIDE, Laid, grey

# What is smaller is not worth a word: pixels of the 32, per cent, degrees.
_PIXELS, _PER_CENT, _DEGREES = 0.75, 3.0, 1.5
# Ratios of brightness, contrast and colour, and of fine structure, from which they are.
_RATIO, _SHARPER = 1.12, 1.2
_AGREEING, _MOST_DETAIL = 0.9, 0.85


def differences(one: torch.Tensor, two: torch.Tensor, found: Laid, mirrored: bool) -> list[str]:
    """Return for each pair how the second image differs from the first.

    Args:
        one: the first images, float, n × 3 × 32 × 32.
        two: the second ones, mirrored back where that was done to them.
        found: how they lie over each other.
        mirrored: whether they were.
    """
    light = [(values.mean(dim=(1, 2, 3)) + 1).tolist() for values in (grey(one), grey(two))]
    spread = [(values.flatten(1).std(dim=1) + 1).tolist() for values in (grey(one), grey(two))]
    colour = [((values - grey(values)).abs().mean(dim=(1, 2, 3)) + 1).tolist() for values in (one, two)]
    edges = [(_edges(values) + 0.5).tolist() for values in (one, two)]
    result = []
    for k, affine in enumerate(found.maps.tolist()):
        words = ["mirrored"] if mirrored else []
        words += _moved(affine)
        if found.agreeing[k] < _AGREEING * found.overlap[k] and found.whole_detail[k] < _MOST_DETAIL:
            words.append("other surroundings, or partly covered")  # whose colours say nothing of the rest
        else:
            words += _more(light[0][k], light[1][k], _RATIO, "brighter", "darker")
            words += _more(spread[0][k] / light[0][k], spread[1][k] / light[1][k], 1.25, "more contrast", "less contrast")
            words += _more(colour[0][k], colour[1][k], 1.25, "more colourful", "paler")
            words += _more(edges[0][k] / spread[0][k], edges[1][k] / spread[1][k], _SHARPER, "sharper", "blurred")
        result.append(", ".join(words) or "saved anew")
    return result


def _edges(images: torch.Tensor) -> torch.Tensor:
    values = grey(images)
    across, down = values.diff(dim=3).abs(), values.diff(dim=2).abs()
    mean: torch.Tensor = (across.mean(dim=(1, 2, 3)) + down.mean(dim=(1, 2, 3))) / 2
    return mean


def _more(one: float, two: float, least: float, more: str, less: str) -> list[str]:
    return [more] if two > one * least else [less] if one > two * least else []


def _moved(affine: list[list[float]]) -> list[str]:
    """Return in words what an affine map from the second image to the first says of the second."""
    (a, b, across), (c, d, down) = affine
    words = []
    turn = math.degrees(math.atan2(b - c, a + d))
    wide, high = (100 * (1 / length - 1) for length in (math.hypot(a, c), math.hypot(b, d)))
    pixels = math.hypot(across, down) * SIDE / 2
    if pixels >= _PIXELS:
        words.append(f"shifted {100 * pixels / SIDE:.0f} % of the side")
    for change, more, less in ((wide, "wider", "narrower"), (high, "taller", "flatter")):
        if abs(change) >= _PER_CENT:
            words.append(f"{abs(change):.0f} % {more if change > 0 else less}")
    if abs(turn) >= _DEGREES:
        words.append(f"turned {abs(turn):.0f}°")
    return words
