from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import thawlab
from thawlab.comparison.comparison import NO_CREDIT, Comparison, compare_runs
from thawlab.comparison.paired import compare_predictions
from thawlab.errors import ThawlabError, UsageError
from thawlab.evaluation.predictions import load_predictions
from thawlab.recipe import Recipe
from thawlab.run import RunFolder
from thawlab.runner import train

Make = Callable[..., Recipe]
ONE_PHASE = ("phases.0.epochs=2", "phases.1.epochs=1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def make(recipe: Make, runs: Path) -> Callable[..., RunFolder]:
    """Train a run, or return it where it has been trained already."""
    return lambda *overrides: train(recipe(*ONE_PHASE, *overrides), runs)


def test_two_runs_of_one_seed_have_a_paired_test_over_images_only(make: Callable[..., RunFolder]) -> None:
    first, second = make(), make("phases.0.lr=0.03")
    comparison = compare_runs([first, second])
    [effect] = comparison.pairs
    test = [load_predictions(folder.predictions("test")) for folder in (first, second)]
    paired = compare_predictions(test[1], test[0])
    assert effect.difference == pytest.approx(paired.difference) and effect.over_images.p_value == paired.p_value
    assert (effect.only_second, effect.only_first) == (paired.only_first, paired.only_second)
    assert effect.over_seeds is None and effect.over_both is None and effect.sign_flip is None
    assert effect.keys == ("phases.0.lr",) and effect.name == "lr 0.01 → 0.03" and comparison.refusals == ()
    assert any("one seed only of every variant" in line for line in comparison.caveats)


def test_several_settings_at_once_are_credited_to_none(make: Callable[..., RunFolder]) -> None:
    comparison = compare_runs([make(), make("phases.0.lr=0.03", "model.dropout=[0.5]", "name=two")])
    [refusal] = comparison.refusals
    assert (
        refusal.keys == ("model.dropout", "phases.0.lr") and "which of them makes the difference cannot be told" in refusal.reason
    )
    assert comparison.pairs == () and comparison.verdict.endswith(NO_CREDIT)
    assert any("2 settings" in line for line in comparison.caveats)
    assert comparison.effects == comparison.wholes == (refusal.whole,) and comparison.wholes[0].kind == "whole"
    assert comparison.verdict == f"{comparison.wholes[0].verdict}. {NO_CREDIT}" and comparison.lines()[0] in comparison.verdict


def test_where_nothing_can_be_paired_no_difference_is_said(make: Callable[..., RunFolder]) -> None:
    other_seed = make("phases.0.lr=0.03", "model.dropout=[0.5]", "seed=1")
    comparison = compare_runs([make(), other_seed], unpaired=True)
    assert comparison.effects == () and comparison.verdict == NO_CREDIT


def test_a_grid_has_interactions_before_main_effects(make: Callable[..., RunFolder]) -> None:
    cells = [
        make(f"phases.0.lr={lr}", f"model.dropout={rate}", f"seed={seed}")
        for lr in (0.01, 0.03)
        for rate in ("[]", "[0.5]")
        for seed in (0, 1)
    ]
    comparison = compare_runs(cells, question="Which?")
    assert [effect.kind for effect in comparison.factorial] == ["interaction", "main", "main"]
    assert len(comparison.pairs) == 4 and comparison.refusals == ()
    mean = {(v.values["phases.0.lr"], bool(v.values["model.dropout"])): np.mean(v.accuracies) for v in comparison.variants}
    interaction, *mains = comparison.factorial
    expected = (mean[0.03, True] - mean[0.03, False]) - (mean[0.01, True] - mean[0.01, False])
    assert interaction.difference == pytest.approx(expected)
    by_key = {effect.keys: effect.difference for effect in mains}
    assert by_key["phases.0.lr",] == pytest.approx(np.mean([mean[0.03, d] - mean[0.01, d] for d in (True, False)]))
    assert by_key["model.dropout",] == pytest.approx(np.mean([mean[lr, True] - mean[lr, False] for lr in (0.01, 0.03)]))
    document = comparison.as_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["question"] == "Which?" and document["warnings"] == comparison.caveats
    assert [row["seeds"] for row in document["variants"]] == [2, 2, 2, 2]
    assert document["smallest_detectable"]["difference"] > 0
    assert repr(comparison).count("\n") >= 5 and comparison._repr_html_().count("<tr>") == 5
    assert comparison.best is not None and comparison.best.among == 4 and math.isfinite(comparison.best.optimism)


def test_images_of_each_seeds_own_are_compared_within_the_seed(make: Callable[..., RunFolder]) -> None:
    """Drawn shapes have no test split of their own: every seed holds out others."""
    comparison = compare_runs([make(f"phases.0.lr={lr}", f"seed={seed}") for lr in (0.01, 0.03) for seed in (0, 1)])
    [effect] = comparison.pairs
    assert effect.seeds == (0, 1) and effect.over_both is not None and effect.over_seeds is None
    assert comparison.needed(0.01) is None and comparison.plan(0.01) == ""


def test_runs_of_several_seeds_are_one_variant(make: Callable[..., RunFolder]) -> None:
    comparison = compare_runs([make("seed=0"), make("seed=1")])
    [variant] = comparison.variants
    assert list(variant.runs) == [0, 1] and comparison.pairs == () and comparison.differences == {}
    assert not any("another seed" in line for line in comparison.caveats)


def test_a_setting_with_one_seed_beside_others_with_several_is_warned_of(make: Callable[..., RunFolder]) -> None:
    """B20: two seeds of one setting and one of another say nothing of how that other would do with another seed."""
    found = [make(*overrides) for overrides in ((), ("seed=1",), ("phases.0.lr=0.03",))]
    [line] = [line for line in compare_runs(found).caveats if "another seed" in line]
    assert "lr 0.03" in line and "lr 0.01" not in line


def test_a_run_is_not_compared_with_itself(make: Callable[..., RunFolder]) -> None:
    with pytest.raises(UsageError, match="is named twice"):
        compare_runs([make(), make()])
    with pytest.raises(UsageError, match="two different runs"):
        compare_runs([make()])


def test_runs_that_were_tested_on_other_images_are_refused(make: Callable[..., RunFolder]) -> None:
    runs = [make(), make("data.source=shapes:280x16")]
    with pytest.raises(UsageError, match="were not tested on the same images") as caught:
        compare_runs(runs)
    assert "\n" not in str(caught.value)
    # A study over several data sets has its page all the same, which credits nothing.
    side_by_side = compare_runs(runs, unpaired=True)
    assert side_by_side.pairs == () and "not tested on the same images" in side_by_side.refusals[0].reason


@pytest.mark.parametrize("lost", ["results.json", "predictions/test.npz", "predictions/val.npz", "data.json", "recipe.toml"])
def test_a_run_that_lost_a_file_is_named(make: Callable[..., RunFolder], lost: str) -> None:
    import shutil

    first, second = make(), make("phases.0.lr=0.03")
    broken = RunFolder(second.path.with_name(f"broken-{lost.replace('/', '-')}"))
    shutil.copytree(second.path, broken.path)
    (broken.path / lost).unlink()
    with pytest.raises(ThawlabError, match=lost) as caught:
        compare_runs([first, broken])
    assert str(broken.path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_would_show_a_difference_is_said(make: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = compare_runs([make(), make("phases.0.lr=0.03")])
    needed = {"seeds": 4, "with_test_images": 10000, "test_images": None, "with_seeds": 3}
    monkeypatch.setattr(Comparison, "needed", lambda _self, difference: {"difference": difference, **needed})
    assert comparison.plan(0.005) == (
        "to find 0.5 points in four of five studies: 4 seeds with 10,000 test images, or no number of test images with 3 seeds"
    )


def test_a_comparison_is_what_the_package_offers() -> None:
    assert thawlab.Comparison is Comparison
