"""The benchmarks run from their start to their table; what they measure is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_the_quick_form_compares_with_the_pytorch_loop(cifar10: Path, tmp_path: Path) -> None:
    out = tmp_path / "quick.json"
    folders = ["--cifar10", str(cifar10), "--work-dir", str(tmp_path / "work"), "--out", str(out)]
    subprocess.run([sys.executable, str(BENCHMARKS / "run.py"), "--quick", *folders], check=True, timeout=1800)
    told = json.loads(out.read_text())
    assert told["share of the material"] == 0.1
    works = {work["work"]: work for work in told["works"]}
    assert {"head", "head-again", "input-first", "predict"} <= works.keys()
    for work in works.values():
        assert work["ratio"] > 0
        assert {"thawlab"} < {row["variant"] for row in work["rows"]}
    table = subprocess.run([sys.executable, str(BENCHMARKS / "table.py"), str(out)], capture_output=True, text=True, check=True)
    assert "a tenth of the images" in table.stdout


@pytest.mark.slow
def test_training_beside_other_work_is_compared_with_itself(cifar10: Path, tmp_path: Path) -> None:
    out = tmp_path / "beside.json"
    folders = ["--cifar10", str(cifar10), "--work-dir", str(tmp_path / "work"), "--out", str(out)]
    subprocess.run([sys.executable, str(BENCHMARKS / "beside.py"), "--repetitions", "1", *folders], check=True, timeout=1800)
    shares = json.loads(out.read_text())["share of alone"]
    assert shares.keys() == {"thawlab", "torch loop"}
    assert all(0 < share < 1.5 for program in shares.values() for share in program.values())
