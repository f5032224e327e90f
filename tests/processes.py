"""Several processes that find each other as those of `torchrun` do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def start(size: int, command: Sequence[str], **variables: str) -> list[subprocess.Popen[str]]:
    """Start a Python command in so many processes; their output is kept apart."""
    shared = {**os.environ, "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1", **variables}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def outputs(processes: Sequence[subprocess.Popen[str]], seconds: float = 120) -> list[str]:
    """Wait for processes that must succeed, and return what each printed."""
    ended = [process.communicate(timeout=seconds) for process in processes]
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors
    return [printed for printed, _ in ended]
