"""What the program does to its process, and that nothing else does it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from thawlab import process
from thawlab.heap import glibc

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


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, 0),
        ({"RANK": "1"}, 0),  # some schedulers set it for purposes of their own
        ({"RANK": "1", "WORLD_SIZE": "2"}, 1),
        ({"RANK": "0", "WORLD_SIZE": "2"}, 0),
        ({"RANK": "7", "WORLD_SIZE": "2"}, 0),  # what is wrong must be said
        ({"RANK": "x", "WORLD_SIZE": "2"}, 0),
        ({"RANK": "1", "WORLD_SIZE": "two"}, 0),
    ],
)
def test_only_one_of_several_processes_speaks_for_all(
    variables: dict[str, str], rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert process.rank() == rank


@pytest.mark.skipif(sys.platform != "linux", reason="a system call of Linux")
def test_a_process_ends_with_its_parent() -> None:
    child = (
        "import os, signal, sys, time; from thawlab import process\n"
        "process.end_with(int(sys.argv[1]), signal.SIGKILL); print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())]); time.sleep(60)"
    )
    started = subprocess.Popen([sys.executable, "-c", parent, child], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    number = int(started.stdout.readline())
    started.kill()
    started.wait()
    end = time.monotonic() + 10
    while Path(f"/proc/{number}/stat").exists() and Path(f"/proc/{number}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < end, "it goes on without its parent"
        time.sleep(0.05)
    orphan = subprocess.run([sys.executable, "-c", child, "1234567"], capture_output=True, check=False)  # not its parent's number
    assert orphan.returncode == -9


@pytest.mark.skipif(glibc() is None, reason="another C library")
def test_large_blocks_stay_where_the_program_computes_and_only_there() -> None:
    program = """
import ctypes, resource
from thawlab import heap, process
process.prepare()
import torch
class Info(ctypes.Structure):  # of malloc.h
    _fields_ = [(name, ctypes.c_int) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]
mallinfo = heap.glibc().mallinfo
mallinfo.restype = Info
def apart(mebibytes):  # from the heap, so that it is given back when freed
    before = mallinfo().hblks
    block = torch.empty(mebibytes << 20, dtype=torch.uint8)
    return mallinfo().hblks > before
def new_pages():
    for _ in range(9):  # what the first ones leave between them is not joined at once
        torch.zeros(16 << 20)  # 64 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(apart(64))
with heap.keeping_large(), heap.keeping_large():
    print(apart(64), new_pages() < 1000)
print(apart(4000))  # more than what has stayed in the heap, which is used again
"""
    assert python(program).stdout.split() == ["True", "False", "True", "True"]
    assert python(program.replace("process.prepare()", "")).stdout.split() == ["True", "True", "False", "True"]
