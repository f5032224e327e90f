"""The Containerfile: its commands without an engine, and the whole where there is one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from asking import Server, picture

ROOT = Path(__file__).resolve().parents[2]
ENGINE = next((found for name in ("podman", "docker") if (found := shutil.which(name))), None)
SECRET = "a-secret-of-many-letters"


def instructions() -> dict[str, str]:
    """Return the last argument of each instruction."""
    text = re.sub(r"\\\n", " ", (ROOT / "Containerfile").read_text())
    return dict(line.split(" ", 1) for line in text.splitlines() if re.match(r"[A-Z]+ ", line))


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.rglob("*"))}


def test_it_copies_only_what_is_there() -> None:
    text = (ROOT / "Containerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for name in line.split()[:-1]]
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == let_in and all((ROOT / name).exists() for name in copied)
    assert instructions()["USER"] not in {"0", "root"}


def test_its_commands_serve_a_folder_that_is_only_read(runs: Path, names: Sequence[str], tmp_path: Path) -> None:
    """Runs what the container would, with an empty home and the health check as it is written."""
    shutil.copytree(runs / names[0], tmp_path / "model")
    (tmp_path / "token").write_text(SECRET)
    before = contents(tmp_path / "model")
    found = instructions()
    words = [*json.loads(found["ENTRYPOINT"]), *json.loads(found["CMD"])]
    places = {"/model": str(tmp_path / "model"), "/run/secrets/token": str(tmp_path / "token"), "8000": "0", "0.0.0.0": "0.0.0.0"}
    command = [sys.executable, "-m", "thawlab", *(places.get(word, word) for word in words[1:])]
    (tmp_path / "tmp").mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "tmp"), "THAWLAB_CACHE": str(tmp_path / "tmp/cache")}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd="/")
    try:
        assert process.stdout is not None
        port = process.stdout.readline().rsplit(":", 1)[1].split()[0]
        check = [word.replace(":8000", f":{port}") for word in json.loads(found["HEALTHCHECK"].split("CMD ", 1)[1])]
        deadline = time.monotonic() + 60
        while subprocess.run([sys.executable, *check[1:]], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        server = Server(process, int(port), tmp_path / "log")
        assert server.predict([picture(0)]).status == 401
        server.base["Authorization"] = f"Bearer {SECRET}"
        assert server.predict([picture(0)]).status == 200
    finally:
        process.terminate()
        process.wait(timeout=10)
    assert contents(tmp_path / "model") == before


@pytest.mark.slow
@pytest.mark.skipif(ENGINE is None, reason="there is no container engine on this machine")
def test_the_container_serves(runs: Path, names: Sequence[str], tmp_path: Path) -> None:
    assert ENGINE is not None
    (tmp_path / "token").write_text(SECRET)
    subprocess.run([ENGINE, "build", "-t", "thawlab-test", str(ROOT), "-f", str(ROOT / "Containerfile")], check=True)
    options = ["--rm", "-d", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "-p", "127.0.0.1:18000:8000"]
    volumes = ["-v", f"{runs / names[0]}:/model:ro", "-v", f"{tmp_path / 'token'}:/run/secrets/token:ro"]
    started = subprocess.run([ENGINE, "run", *options, *volumes, "thawlab-test"], check=True, capture_output=True, text=True)
    try:
        server = Server(None, 18000, tmp_path / "log", {"Authorization": f"Bearer {SECRET}"})  # type: ignore[arg-type]
        deadline = time.monotonic() + 120
        while True:
            try:
                assert server.predict([picture(0)]).status == 200
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(1)
    finally:
        subprocess.run([ENGINE, "rm", "-f", started.stdout.strip()], check=False, capture_output=True)
