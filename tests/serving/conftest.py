"""Real servers, each a process of its own, over small real classifiers."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from asking import Server
from PIL import Image

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
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start servers, of the runs above unless others are given; all are stopped in the end."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, verb: str = "serve", models: Sequence[str] = ("one", "two")) -> Server:
        log = tmp_path_factory.mktemp("log") / "log.txt"
        program = "import sys; sys.argv[0] = 'thawlab'; from thawlab.__main__ import run; run()"
        own = () if "--runs" in arguments else ("--runs", str(request.getfixturevalue("runs")))
        command = [sys.executable, "-c", program, verb, *models, *own, "--port", "0", *arguments]
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


@pytest.fixture(scope="session")
def trained_on_noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `photos` of noise in three classes, and `runs` with three finished runs on it, which are often wrong."""
    root, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for name in ("ant", "bee", "cat"):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(24):
            Image.fromarray(rng.integers(0, 256, (20, 16, 3), dtype=np.uint8)).save(root / "photos" / name / f"{number:02d}.png")
    with contextlib.chdir(root):
        for name, settings in (("plain", {}), ("faster", {"phases.0.lr": 0.2}), ("alike", {"seed": 1})):
            more = {"phases.0.epochs": 2, "cache_dir": str(root / "cache"), "data.val": 0.25, "data.test": 0.25, **settings}
            thawlab.train("photos", backbone="cnn5", size=16, name=name, runs="runs", **more)
    return root


@pytest.fixture
def studio_folder(trained_on_noise: Path, tmp_path: Path) -> Path:
    """A copy of it, which a test may change."""
    for name in ("photos", "runs"):
        shutil.copytree(trained_on_noise / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def studio(studio_folder: Path, start: Callable[..., Server]) -> Server:
    """A studio of the copy's runs."""
    return start("--runs", str(studio_folder / "runs"), verb="studio", models=())
