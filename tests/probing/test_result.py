from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from thawlab.comparison.paired import PairedComparison
from thawlab.evaluation.metrics.measures import accuracy_interval
from thawlab.probing.result import ProbedBackbone, ProbedHead, Verdict, draws_interval, images_interval


def head(name: str, size: int = 32, val: float = 0.8, parameters: int = 100, tests: tuple[float, ...] = (0.7,)) -> ProbedHead:
    of = ProbedBackbone(name, size, parameters, 8, 100, 100, 1.0)
    return ProbedHead(of, "linear", None, 50, tests, (val,) * len(tests), ({},) * len(tests), (0.6, 0.8), 0.1)


def test_the_interval_over_draws_is_students() -> None:
    values = (0.5, 0.6, 0.65)
    expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert draws_interval(values) == pytest.approx(expected)
    assert draws_interval([0.5]) is None
    assert draws_interval([0.0, 1.0]) == (0.0, 1.0)


def test_the_interval_over_images_is_wilsons_for_one_draw_and_a_bootstrap_for_several() -> None:
    right = np.random.default_rng(0).random((3, 400)) < 0.7
    assert images_interval(right[:1]) == accuracy_interval(int(right[0].sum()), 400)
    rng, means = np.random.default_rng(1), right.mean(axis=0)
    resampled = [means[rng.integers(0, 400, 400)].mean() for _ in range(4000)]
    assert images_interval(right) == pytest.approx(tuple(np.percentile(resampled, [2.5, 97.5])), abs=0.004)
    # Draws that answer alike add nothing, unlike as many more images.
    alike = images_interval(np.repeat(right[:1], 3, axis=0))
    assert alike == pytest.approx(accuracy_interval(int(right[0].sum()), 400), abs=0.01)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (
            PairedComparison(100, 6, 5, 1.0),
            "No difference shown on 100 test images (exact McNemar p = 1); small at 32 px has fewer",
        ),
        (PairedComparison(100, 30, 5, 1e-5), "It is better by 25.00 points on 100 test images (exact McNemar p = 1e-05)."),
        (PairedComparison(100, 5, 30, 1e-5), "small at 32 px is better by 25.00 points: val does not decide between the two."),
    ],
)
def test_the_verdict_claims_what_is_shown(pair: PairedComparison, said: str) -> None:
    verdict = Verdict(head("timm/large.x", val=0.9, parameters=200), head("local-dir:/weights/small"), pair)
    assert verdict.text.startswith(
        "large.x at 32 px has the best val accuracy (90.00 %, head: linear), before small at 32 px (80.00 %"
    )
    assert said in verdict.text and verdict.shown == (pair.p_value < 0.05)
    assert verdict.as_json()["paired"]["difference"] == pair.difference


def test_the_verdict_on_a_single_backbone_compares_nothing() -> None:
    verdict = Verdict(head("bundled"))
    assert "the only one that was probed" in verdict.text and "70.00 % right" in verdict.text
    assert verdict.as_json()["paired"] is None and verdict.as_json()["runner_up"] is None


def test_a_verdict_on_few_shots_says_which_draw_was_tested() -> None:
    pair = PairedComparison(100, 6, 5, 1.0)
    assert "first of 3 draws" in Verdict(head("a", tests=(0.1, 0.2, 0.3)), head("b"), pair).text
