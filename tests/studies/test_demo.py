"""The demonstration: what its variants share, that it stays what was measured, and that it keeps its promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thawlab.comparison.settings import differing, settings
from thawlab.studies.design import demo_design
from thawlab.studies.study import run_study

RECORD = Path(__file__).resolve().parents[2] / "results" / "demo"


def test_the_variants_see_the_same_images_and_two_of_them_the_same_network() -> None:
    design = demo_design()
    scratch, pretrained, bundled = (design.cell(variant, 0).recipe for variant in design.variants)
    assert scratch.data == pretrained.data and scratch.data.train_size == 100
    assert {key for key in differing(settings(scratch), settings(bundled)) if key.startswith("data")} == {"data.image_size"}
    assert scratch.model == pretrained.model.model_copy(update={"pretrained": False})
    assert scratch.phases[0].epochs == pretrained.phases[-1].epochs == bundled.phases[-1].epochs
    assert [phase.train for phase in pretrained.phases] == ["head", "all"] and len(design.seeds) == 5


def test_the_demo_is_what_was_measured() -> None:
    recorded = json.loads((RECORD / "study.json").read_text(encoding="utf-8"))
    assert [cell["run"] for cell in recorded["cells"]] == [cell.run for cell in demo_design().cells()]


@pytest.mark.slow
def test_pretrained_weights_are_shown_to_help(tmp_path: Path) -> None:
    outcome = run_study(demo_design(), tmp_path)
    [first] = [whole for whole in outcome.comparison.wholes if whole.name == "from scratch → ImageNet, two phases"]
    assert first.is_shown and first.difference > 0
    assert outcome.comparison.verdict.startswith("from scratch → ImageNet, two phases: changes test accuracy by +")
