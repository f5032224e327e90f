"""Figures that another process draws are those that would be drawn here, and its failure costs nothing but time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from thawlab.report import drawn
from thawlab.report.drawn import artist, draw_all
from thawlab.report.page import write_report
from thawlab.report.sources import read_sources
from thawlab.run import RunFolder
from thawlab.runner import train


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine, and the tests that run at once, have."""
    monkeypatch.setattr(drawn, "usable_cores", lambda: 2)


def test_another_process_draws_the_same_figures(plain_run: RunFolder) -> None:
    with artist() as beside:
        assert beside is not None
        beside.begin(plain_run)
        assert beside.finish() == draw_all(read_sources(plain_run))


def test_a_report_is_the_same_however_its_figures_are_drawn(run_copy: RunFolder) -> None:
    here = write_report(run_copy).read_bytes()
    with artist() as beside:
        assert write_report(run_copy, beside).read_bytes() == here


def test_a_process_that_was_killed_is_done_without(run_copy: RunFolder) -> None:
    here = write_report(run_copy).read_bytes()
    with artist() as beside:
        assert beside is not None
        os.kill(beside._process.pid, signal.SIGKILL)
        beside._process.wait()
        run_copy.report.unlink()
        assert write_report(run_copy, beside).read_bytes() == here


def test_nobody_is_left_where_nothing_was_drawn() -> None:
    with pytest.raises(KeyboardInterrupt), artist() as beside:
        assert beside is not None
        raise KeyboardInterrupt
    assert beside._process.returncode == -signal.SIGKILL


def test_one_core_draws_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "usable_cores", lambda: 1)
    with artist() as beside:
        assert beside is None


def test_a_training_that_is_asked_for_a_report_writes_it(run_copy: RunFolder) -> None:
    folder = train(run_copy.recipe, run_copy.path.parent / "runs", report=True)
    written = folder.report.read_bytes()
    assert write_report(folder).read_bytes() == written


def test_what_draws_a_report_needs_no_torch() -> None:
    program = "import sys, thawlab.report.page, thawlab.studies.folder; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
