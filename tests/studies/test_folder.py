from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from thawlab.errors import ThawlabError, UsageError
from thawlab.recipe import Recipe
from thawlab.runner import train
from thawlab.studies.design import Design
from thawlab.studies.folder import StudyFolder, begin, find_runs, notes_on, study_or_error

Designs = Callable[..., Design]
Make = Callable[..., Recipe]


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    return StudyFolder(tmp_path / "runs" / "rates")


def begun(study: StudyFolder, design: Design, extend: bool = False, threads: int = 1):  # type: ignore[no-untyped-def]
    return begin(study, design.name, design.question, design.cells(), threads, extend)


def test_a_study_records_its_cells_and_writes_their_recipes(study: StudyFolder, design_of: Designs) -> None:
    record = begun(study, design_of(), threads=3)
    assert study.read() == record and record.threads == 3 and record.question == "Which rate?"
    assert [(entry.variant, entry.seed) for entry in record.entries] == [
        ("lr 0.01", 0),
        ("lr 0.01", 1),
        ("lr 0.03", 0),
        ("lr 0.03", 1),
    ]
    assert all("threads = 3" in study.recipe(entry).read_text() for entry in record.entries)
    assert all(study.status(entry) == "new" for entry in record.entries)


def test_the_same_study_goes_on_with_the_threads_it_began_with(study: StudyFolder, design_of: Designs) -> None:
    record = begun(study, design_of(), threads=3)
    lost = study.recipe(record.entries[0])
    lost.unlink()
    assert begun(study, design_of(), threads=1) == record
    assert "threads = 3" in lost.read_text()


def test_other_cells_are_refused_and_nothing_is_lost(study: StudyFolder, design_of: Designs) -> None:
    record = begun(study, design_of())
    before = study.record_file.read_bytes()
    more, fewer, other = ({"vary": {"phases.0.lr": rates}} for rates in ([0.01, 0.03, 0.1], [0.01], [0.01, 0.1]))
    for changes, says in (
        (more, "lr 0.1, seed 0: only in the new one"),
        (fewer, "lr 0.03, seed 0: only there"),
        (other, "only there"),
    ):
        with pytest.raises(UsageError, match=says) as caught:
            begun(study, design_of(**changes))
        assert "--name" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="only there"):
        begun(study, design_of(**fewer), extend=True)
    assert study.record_file.read_bytes() == before
    extended = begun(study, design_of(**more), extend=True)
    assert extended.entries[:4] == record.entries and len(extended.entries) == 6
    assert any("added after the study had begun (2)" in line for line in notes_on(study, extended))


def test_a_damaged_record_is_said(study: StudyFolder, design_of: Designs) -> None:
    begun(study, design_of())
    content = json.loads(study.record_file.read_text())
    for broken, says in (({**content, "schema": 9}, "has schema 9"), ({"schema": 1}, "is damaged")):
        study.record_file.write_text(json.dumps(broken))
        with pytest.raises(ThawlabError, match=says):
            study.read()


def test_runs_are_found_by_study_pattern_and_name(study: StudyFolder, design_of: Designs, recipe: Make, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    record = begun(study, design_of())
    with pytest.raises(UsageError, match="none of its 4 cells has finished"):
        find_runs(["rates"], runs)
    for entry in record.entries[:2]:
        train(design_of().cells()[record.entries.index(entry)].recipe, study.path)
    found = find_runs(["rates"], runs)
    assert [folder.name for folder in found.folders] == [entry.run for entry in record.entries[:2]]
    assert set(found.names.values()) == {"lr 0.01"} and found.question == "Which rate?"
    assert any(line.startswith("2 of 4 cells are missing, the first is lr 0.03, seed 0: new") for line in found.notes)
    single = train(recipe("phases.1.epochs=1", "phases.0.epochs=1"), runs)
    assert [f.name for f in find_runs([str(study.path / "lr-0.01*")], runs).folders] == sorted(f.name for f in found.folders)
    assert [f.name for f in find_runs(["rates/lr*", single.name], runs).folders][-1] == single.name
    with pytest.raises(UsageError, match=r"'nothing\*' fits no finished run"):
        find_runs(["nothing*"], runs)
    with pytest.raises(UsageError, match="there is no run 'absent'"):
        find_runs(["absent"], runs)
    assert study_or_error("rates", runs) == study
    with pytest.raises(UsageError, match=r"there is no study 'ratse' .*did you mean 'rates'"):
        study_or_error("ratse", runs)


def test_a_run_that_has_not_finished_is_not_compared(recipe: Make, tmp_path: Path) -> None:
    folder = train(recipe("phases.1.epochs=1", "phases.0.epochs=1"), tmp_path)
    folder.results.unlink()
    folder.set_status("interrupted")
    with pytest.raises(UsageError, match="is not finished"):
        find_runs([folder.name], tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", '{"schema": 1, "name": "x", "question": "", "threads": 1, "cells": [{"a": 1}]}']
)
def test_a_damaged_record_can_be_moved_away_and_nothing_is_lost(
    study: StudyFolder, design_of: Designs, content: str, tmp_path: Path
) -> None:
    record = begun(study, design_of())
    train(design_of().cells()[0].recipe, study.path)
    study.record_file.write_text(content)
    with pytest.raises(ThawlabError, match="move it away and run the study again") as caught:
        begun(study, design_of())
    assert "\n" not in str(caught.value) and str(study.record_file) in str(caught.value)
    study.record_file.rename(tmp_path / "away.json")
    assert begun(study, design_of()) == record and study.status(record.entries[0]) == "finished"


def test_a_study_does_not_move_into_a_run(design_of: Designs, recipe: Make, tmp_path: Path) -> None:
    run = train(recipe("phases.1.epochs=1", "phases.0.epochs=1"), tmp_path)
    with pytest.raises(UsageError, match="is a run; give the study another name"):
        begun(StudyFolder(run.path), design_of())
    assert not (run.path / "study.json").exists()
