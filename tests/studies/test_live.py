from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from thawlab import progress
from thawlab.runner import train
from thawlab.studies.design import Design
from thawlab.studies.folder import StudyFolder, begin
from thawlab.studies.live import Table, duration

Designs = Callable[..., Design]


def drawn(table: Table) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table._drawing())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_table_counts_cells_and_shows_validation_only(
    design_of: Designs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    design, study, said = design_of(), StudyFolder(tmp_path / "rates"), list[str]()
    monkeypatch.setattr(progress, "say", said.append)
    record = begin(study, design.name, design.question, design.cells(), 1, False)
    second = record.entries[1]
    train(design.cells()[0].recipe, study.path)
    table = Table(study, record)
    text = drawn(table)
    assert "rates: 1 done, 3 to come" in text and "lr 0.01" in text and "1/2" in text and "★" in text
    said.clear()
    table.started(second)
    assert "1 running" in drawn(table) and "starting" in drawn(table)
    run = train(design.cells()[1].recipe, study.path)
    assert "head 2" in drawn(table)
    said.clear()
    table.ended(second, {"status": "finished"})
    [line] = said
    val = Table(study, record)._val[second.run]
    assert line.startswith(f"2/4 lr 0.01, seed 1: val accuracy {val:.4f}; ") and line.endswith(" left")
    test = run.results.read_text()
    assert val != pytest.approx(0) and "test" not in line and test
    table.ended(record.entries[2], {"status": "failed", "reason": "no room"})
    assert said[-1].startswith("2/4 lr 0.03, seed 0: no room") and "1 failed" in drawn(table)


def test_many_variants_are_cut(design_of: Designs, tmp_path: Path) -> None:
    design = design_of(vary={"phases.0.lr": [0.001 * (1 + i) for i in range(30)]})
    study = StudyFolder(tmp_path / "rates")
    record = begin(study, design.name, "", design.cells(), 1, False)
    assert "and 6 more variants" in drawn(Table(study, record))


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (89, "89 s"), (120, "2 min"), (7200, "2.0 h")])
def test_times_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
