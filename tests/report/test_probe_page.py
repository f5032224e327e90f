from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from thawlab.probing.result import Probe
from thawlab.report.probe_page import accuracy_by_seconds, accuracy_by_shots, write_probe


def test_the_page_says_what_was_found_and_loads_nothing(probed: Probe, tmp_path: Path) -> None:
    text = write_probe(probed, tmp_path / "probe.html").read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)=\"http", text) == []
    assert "5 images a class are left out" in text and "&lt;img" in text
    assert text.count("<svg") == 2
    shown = re.sub(r"<[^>]*>", "", text).replace("&nbsp;", " ").replace("&lt;", "<").replace("&gt;", ">")
    assert all(f"{100 * row.test:.2f} %" in shown for row in probed.heads)
    assert "No difference shown on 60 test images" in shown


def test_without_seconds_or_several_shots_there_are_no_figures_of_them(probed: Probe, tmp_path: Path) -> None:
    unmeasured = tuple(of._replace(seconds=None) for of in probed.backbones)
    rows = tuple(row._replace(of=unmeasured[probed.backbones.index(row.of)]) for row in probed.heads if row.shots is None)
    bare = type(probed)(**{**vars(probed), "backbones": unmeasured, "heads": rows})
    text = write_probe(bare, tmp_path / "probe.html").read_text(encoding="utf-8")
    assert "<svg" not in text and "not measured" in text


@pytest.mark.parametrize("draw", [accuracy_by_shots, accuracy_by_seconds])
def test_figures_name_each_backbone(probed: Probe, draw: object) -> None:
    svg = draw(probed)  # type: ignore[operator]
    words = "".join(ElementTree.fromstring(svg).itertext())
    assert "bundled at 32 px" in words and "large at 64 px" in words
