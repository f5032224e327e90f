"""Plug-ins as a newcomer writes them, from the entry point to results and report."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from thawlab.evaluation.diagnosis import diagnoses
from thawlab.evaluation.metrics import metrics
from thawlab.recipe import Recipe
from thawlab.report.page import write_report
from thawlab.results import read_results
from thawlab.runner import train

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Load the plug-ins as the entry points do, and take them out again."""
    kept = [(registry, dict(registry._entries)) for registry in (metrics, diagnoses)]
    monkeypatch.syspath_prepend(str(PLUGINS))
    names = [file.stem for file in PLUGINS.glob("thawlab_*.py")]
    for name in names:
        importlib.import_module(name)
    yield
    for registry, entries in kept:
        registry._entries.clear()
        registry._entries.update(entries)
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("plugins")
def test_a_metric_and_a_diagnosis_show_in_results_and_report(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    folder = train(recipe(), tmp_path)
    results = read_results(folder.results)
    value = results.test.metric("macro_specificity")
    low, high = results.test.intervals["macro_specificity"]
    assert value is not None and 0 < low <= value <= high < 1
    # By hand, from the confusion matrix: an oracle of its own.
    matrix, specificities = results.test.confusion, []
    for k, row in enumerate(matrix):
        others = results.test.n - sum(row)
        taken = sum(other[k] for i, other in enumerate(matrix) if i != k)
        specificities.append(1 - taken / others)
    assert value == pytest.approx(sum(specificities) / len(specificities))
    assert [entry.id for entry in results.diagnoses if entry.id == "few-test-images"] == ["few-test-images"]
    page = write_report(folder).read_text(encoding="utf-8")
    assert "macro specificity" in page and "Few test images" in page and "60 images only" in page


def test_results_of_a_plug_in_that_is_gone_are_still_shown(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    folder = train(recipe(), tmp_path)
    text = folder.results.read_text(encoding="utf-8").replace('"top2":', '"from_elsewhere": 0.125, "top2":')
    folder.results.write_text(text, encoding="utf-8")
    assert read_results(folder.results).test.metric("from_elsewhere") == 0.125
    assert "from elsewhere" in write_report(folder).read_text(encoding="utf-8")


def test_each_plug_in_is_small() -> None:
    assert all(len(file.read_text(encoding="utf-8").splitlines()) <= 25 for file in PLUGINS.glob("*.py"))
    assert len(list(PLUGINS.glob("*.py"))) >= 2
