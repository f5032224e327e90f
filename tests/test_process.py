"""What the program does to its process, and that nothing else does it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_SHOW = "import gc, os, warnings; print(gc.get_threshold()[0], os.environ.get('GOMP_SPINCOUNT'), len(warnings.filters))"
_CLEAN = {key: value for key, value in os.environ.items() if key not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**_CLEAN, **environment}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def test_using_the_library_leaves_the_process_as_it_was() -> None:
    use = "import thawlab; thawlab.Recipe; thawlab.Run; import thawlab.cli.main; "
    assert python(use + _SHOW).stdout == python("import pydantic, typer.core; " + _SHOW).stdout


def test_threads_that_wait_spin_for_a_while_only_unless_the_user_says_otherwise() -> None:
    prepare = "from thawlab import process; process.prepare(); "
    assert python(prepare + _SHOW).stdout.split()[:2] == ["100000", "1000"]
    assert python(prepare + _SHOW, GOMP_SPINCOUNT="7").stdout.split()[1] == "7"
    assert python(prepare + _SHOW, OMP_WAIT_POLICY="active").stdout.split()[1] == "None"


def test_openmp_reads_the_setting() -> None:
    shown = python("from thawlab import process; process.prepare(); import torch", OMP_DISPLAY_ENV="verbose").stderr
    if "GOMP_SPINCOUNT" not in shown:
        pytest.skip("torch computes with another OpenMP here")
    assert "GOMP_SPINCOUNT = '1000'" in shown


@pytest.mark.parametrize(("code", "status"), [("None", 0), ("0", 0), ("3", 3), ("'a message'", 1)])
def test_leaving_keeps_the_exit_code_and_the_output(code: str, status: int) -> None:
    program = f"from thawlab import process; print('kept', end=''); process.leave({code})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "kept")
    assert done.stderr == ("a message\n" if status == 1 else "")
