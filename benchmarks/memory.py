"""Peak memory of a program and the processes it starts: proportional set size, from Linux's /proc."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *_children(int(child))]
    return found


def _held(pid: int) -> dict[str, float]:
    """Return the MiB that a process holds; shared pages are divided equally among the processes that share them."""
    held = {"Pss": 0.0, "Pss_Anon": 0.0, "Pss_File": 0.0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in held:
            held[key] = int(rest.split()[0]) / 1024
    return held


def peak_of(command: list[str], seconds: float) -> dict[str, float]:
    """Run a command for a number of seconds, then end it.

    Returns:
        MiB at the moment it held most: in all, and of that anonymous memory and pages of mapped files.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    peak = {"Pss": 0.0, "Pss_Anon": 0.0, "Pss_File": 0.0}
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        total = {"Pss": 0.0, "Pss_Anon": 0.0, "Pss_File": 0.0}
        try:
            for pid in [process.pid, *_children(process.pid)]:
                for key, value in _held(pid).items():
                    total[key] += value
        except (FileNotFoundError, ProcessLookupError):
            continue  # a process has just ended
        peak = max(peak, total, key=lambda held: held["Pss"])
        time.sleep(0.25)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    elif process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{process.stderr.read().decode()[-2000:]}")  # type: ignore[union-attr]
    process.wait()
    return {
        "peak_mib": round(peak["Pss"], 1),
        "peak_anonymous_mib": round(peak["Pss_Anon"], 1),
        "peak_mapped_mib": round(peak["Pss_File"], 1),
    }
