"""Real servers, each a process of its own, over small real classifiers."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import thawlab

pytest.importorskip("fastapi")


@dataclass(frozen=True)
class Answered:
    """An answer of a server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """Of a refusal."""
        return str(self.json["error"]["message"])


@dataclass
class Server:
    """A server that runs."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    base: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, *, chunked: bool = False
    ) -> Answered:
        """Send one request and return the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {**self.base, **(headers or {})}, encode_chunked=chunked)
            response = connection.getresponse()
            found = {key.lower(): value for key, value in response.getheaders()}
            return Answered(response.status, found, response.read())
        finally:
            connection.close()

    def predict(self, pictures: Sequence[bytes], query: str = "") -> Answered:
        """Send pictures as a form."""
        body, kind = form(pictures)
        return self.ask("POST", f"/v1/predict{query}", body, {"Content-Type": kind})

    def logged(self, event: str = "request") -> list[dict[str, Any]]:
        """Return the log's lines of a kind."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]


def form(pictures: Sequence[bytes], name: str = "pictures", file: str = "photo") -> tuple[bytes, str]:
    """Return a multipart body and its content type."""
    head = f'--XX\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n\r\n'.encode()
    return b"".join(head + picture + b"\r\n" for picture in pictures) + b"--XX--\r\n", "multipart/form-data; boundary=XX"


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def picture(number: int, side: int = 48) -> bytes:
    """Return an encoded picture, another for every number."""
    noise = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return encoded(np.asarray(Image.fromarray(noise).resize((side, side + number % 7), Image.Resampling.BILINEAR)))


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two finished runs, `one` and `two`, of unlike sizes."""
    root = tmp_path_factory.mktemp("served")
    for name, size in (("one", 16), ("two", 24)):
        settings = {"phases.0.epochs": 2, "name": name, "cache_dir": str(root / "cache"), "phases.0.lr": 0.01}
        thawlab.train("shapes:240x24", backbone="bundled", size=size, runs=root / "runs", **settings)
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
