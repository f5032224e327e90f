"""Short forms of what results/serve/ holds: hostile requests of every kind, and requests drawn from the schema."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from asking import Server, picture

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="memory is read from Linux' /proc")
def test_hostile_requests_are_refused_within_bounded_memory(runs: Path, names: Sequence[str], tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(picture(0))
    tool = [sys.executable, str(ROOT / "tools" / "hostile_requests.py"), names[0], "--runs", str(runs)]
    options = ["--picture", str(tmp_path / "good.png"), "--out", str(tmp_path / "out.json"), "--count", "90", "--alone", "3"]
    subprocess.run([*tool, *options], check=True, capture_output=True)
    found = json.loads((tmp_path / "out.json").read_text())
    may_be_fine = {"mutated picture", "picture made to exhaust"}  # some of both are pictures
    for kind, outcomes in found["outcomes"].items():
        allowed = {"closed", *(str(status) for status in range(400, 500)), "503", "501"} | (
            {"200"} if kind in may_be_fine else set()
        )
        assert set(outcomes) <= allowed, kind
    assert found["memory_mib"]["rise"] < 300


def test_requests_drawn_from_the_schema_find_nothing(server: Server, tmp_path: Path) -> None:
    schemathesis = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if schemathesis is None:
        pytest.skip("schemathesis is not installed")
    address = f"http://127.0.0.1:{server.port}/openapi.json"
    options = [
        "--max-examples",
        "40",
        "--seed",
        "1",
        "--exclude-checks",
        "positive_data_acceptance",
    ]  # no schema says what a picture is
    done = subprocess.run([schemathesis, "run", address, *options], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
