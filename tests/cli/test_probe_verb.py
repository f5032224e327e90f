"""`thawlab probe` as users meet it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from thawlab.cli.main import app

ASK = ["probe", "shapes:200x16", "--backbones", "bundled", "--sizes", "16", "--shots", "all"]


def test_a_table_a_verdict_and_a_page(tmp_path: Path) -> None:
    page = tmp_path / "probe.html"
    done = CliRunner().invoke(app, [*ASK, "--page", str(page)])
    assert done.exit_code == 0, done.output
    assert "shapes: 10 classes (train 140, val 20, test 40)" in done.stdout
    assert "best head" in done.stdout and "is the only one that was probed" in done.stdout
    assert done.stdout.rstrip().endswith(f"page: {page}")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    again = CliRunner().invoke(app, [*ASK, "--page", str(page)])
    assert again.exit_code == 2 and "exists already" in again.stderr


def test_json_is_one_document() -> None:
    done = CliRunner().invoke(app, [*ASK, "--json"])
    document = json.loads(done.stdout)
    assert document["schema"] == 1 and len(document["heads"]) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--backbones": "bundeld"}, "did you mean 'bundled'?"),
        ({"--backbones": "resnet20"}, "has no pretrained weights"),
        ({"--backbones": ","}, "backbones: the list is empty"),
        ({"--sizes": "4"}, "sizes = 4: 'bundled' cannot take this size"),
        ({"--sizes": "small"}, "sizes: 'small' is not a number"),
        ({"--shots": "99"}, "shots = 99: no class has so many training images"),
        ({"--shots": "few"}, "shots: 'few' is not a number of at least 1 or all"),
    ],
)
def test_bad_input_is_one_line_and_exits_with_2(change: dict[str, str], said: str) -> None:
    [(option, value)] = change.items()
    arguments = list(ASK)
    arguments[arguments.index(option) + 1] = value
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 and done.stdout == ""
    [line] = done.stderr.splitlines()
    assert re.match("thawlab: ", line) and said in line
