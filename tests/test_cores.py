from __future__ import annotations

import os
import subprocess
import sys

import pytest

from thawlab.cores import usable_cores

COUNT = "from thawlab.cores import usable_cores; print(usable_cores())"


def _count(before: str = "", **environment: str) -> int:
    program = [sys.executable, "-c", f"import os\n{before}\n{COUNT}"]
    clean = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(program, env={**clean, **environment}, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process")
def test_a_process_that_is_pinned_to_one_core_uses_one() -> None:
    assert _count("os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})") == 1


def test_no_more_than_the_user_asks_of_openmp_and_no_more_than_there_are() -> None:
    everything = _count()
    assert 1 <= everything <= (os.cpu_count() or 1)
    assert _count(OMP_NUM_THREADS="1") == _count(OMP_NUM_THREADS="1,4") == 1
    assert _count(OMP_NUM_THREADS="4096") == everything


@pytest.mark.parametrize("nonsense", ["", "many", "0", "-3", "1.5"])
def test_what_is_no_number_of_threads_is_ignored(nonsense: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    everything = usable_cores()
    monkeypatch.setenv("OMP_NUM_THREADS", nonsense)
    assert usable_cores() == everything
