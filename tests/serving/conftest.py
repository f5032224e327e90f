"""Real servers, each a process of its own, over small real classifiers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from asking import Server

import thawlab

pytest.importorskip("fastapi")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two finished runs, `one` and `two`, of unlike sizes."""
    root = tmp_path_factory.mktemp("served")
    for name, size in (("one", 16), ("two", 24)):
        settings = {"phases.0.epochs": 2, "name": name, "cache_dir": str(root / "cache"), "phases.0.lr": 0.01}
        thawlab.train("shapes:160x24", backbone="bundled", size=size, runs=root / "runs", **settings)
    return root / "runs"


@pytest.fixture(scope="session")
def names(runs: Path) -> list[str]:
    return sorted(folder.name for folder in runs.iterdir())


@pytest.fixture(scope="session")
def start(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start servers; all are stopped in the end."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, verb: str = "serve", models: Sequence[str] = ("one", "two")) -> Server:
        log = tmp_path_factory.mktemp("log") / "log.txt"
        program = "import sys; sys.argv[0] = 'thawlab'; from thawlab.__main__ import run; run()"
        command = [sys.executable, "-c", program, verb, *models, "--runs", str(runs), "--port", "0", *arguments]
        with log.open("w") as file:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env={**os.environ})
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " on http://" in line, log.read_text()
        server = Server(process, int(line.split(" on http://")[1].split()[0].rsplit(":", 1)[1]), log)
        for _ in range(300):
            try:
                if server.ask("GET", "/readyz").status == 200:
                    return server
            except OSError:
                pass
            time.sleep(0.1)
        raise AssertionError(log.read_text())

    yield run
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def server(start: Callable[..., Server]) -> Server:
    """A server of both runs."""
    return start()
