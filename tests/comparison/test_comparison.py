from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from thawlab.comparison.comparison import compare_runs, differences
from thawlab.errors import UsageError
from thawlab.recipe import Recipe
from thawlab.report.comparison_page import write_comparison
from thawlab.run import RunFolder
from thawlab.runner import train

Make = Callable[..., Recipe]


@pytest.fixture
def folders(recipe: Make, tmp_path: Path) -> list[RunFolder]:
    return [
        train(recipe(*overrides), tmp_path)
        for overrides in ((), ("phases.0.lr=0.03",), ("phases.0.lr=0.03", "model.dropout=[0.5]", "name=two"))
    ]


def test_recipes_differ_in_what_was_changed(recipe: Make) -> None:
    found = differences([recipe(), recipe("phases.0.lr=0.5", "name=other"), recipe("seed=3")])
    assert found == {"seed": [0, 0, 3], "phases.0.lr": [recipe().phases[0].lr, 0.5, recipe().phases[0].lr]}


def test_a_phase_more_is_a_difference_with_nothing_on_the_other_side(recipe: Make) -> None:
    base = recipe()
    longer = base.model_copy(update={"phases": (*base.phases, base.phases[0].model_copy(update={"name": "more"}))})
    found = differences([base, longer])
    assert found[f"phases.{len(base.phases)}.name"] == [None, "more"] and all(values[0] is None for values in found.values())


def test_runs_are_compared_image_by_image_with_what_cannot_be_shown(folders: list[RunFolder], tmp_path: Path) -> None:
    comparison = compare_runs(folders)
    first, second, third = comparison.runs
    assert first.paired is None and first.differs == {}
    for run in (second, third):
        gained = run.results.test.accuracy - first.results.test.accuracy
        assert run.paired is not None and run.not_comparable == ""
        assert run.paired.difference == pytest.approx(gained)
        assert (run.paired.only_first - run.paired.only_second) / run.results.test.n == pytest.approx(gained)
    assert list(second.differs) == ["phases.0.lr"] and set(third.differs) == {"phases.0.lr", "model.dropout"}
    assert any("differs from" in line and "2 settings" in line for line in comparison.caveats)
    assert any("another seed" in line for line in comparison.caveats)
    document = comparison.as_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["warnings"] == comparison.caveats and document["differences"] == comparison.differences
    assert document["runs"][0]["against_first"] is None and document["runs"][0]["differs"] == {}
    for row in document["runs"][1:]:
        pair = row["against_first"]
        gained = row["test"]["accuracy"] - document["runs"][0]["test"]["accuracy"]
        assert pair["difference"] == pytest.approx(gained)
        assert (pair["only_this"] - pair["only_first"]) / row["test"]["n"] == pytest.approx(gained)
    page = write_comparison(comparison, tmp_path / "c.html").read_text("utf-8")
    assert ("phases.0.lr" in page and "no difference shown" in page) or "points" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("https://matplotlib.org", "")


def test_runs_of_other_seeds_have_no_paired_test_and_are_no_warning_of_one_seed(recipe: Make, tmp_path: Path) -> None:
    comparison = compare_runs([train(recipe(f"seed={seed}"), tmp_path) for seed in (0, 1)])
    assert list(comparison.differences) == ["seed"]
    assert comparison.runs[1].paired is None and "not tested on the same images" in comparison.runs[1].not_comparable
    assert "not_comparable" in comparison.as_json()["runs"][1]
    assert not any("another seed" in line for line in comparison.caveats)


def test_a_run_is_not_compared_with_itself(recipe: Make, tmp_path: Path) -> None:
    folder = train(recipe(), tmp_path)
    with pytest.raises(UsageError, match="two different runs"):
        compare_runs([folder, folder])


def test_a_setting_with_one_seed_beside_others_with_several_is_warned_of(recipe: Make, tmp_path: Path) -> None:
    """B20: two seeds of one setting and one of another say nothing of how that other would do with another seed."""
    runs = [train(recipe(*overrides), tmp_path) for overrides in ((), ("seed=1",), ("phases.0.lr=0.03",))]
    [line] = [line for line in compare_runs(runs).caveats if "another seed" in line]
    assert runs[2].name in line and runs[0].name not in line
    assert not any("another seed" in line for line in compare_runs(runs[:2]).caveats)
