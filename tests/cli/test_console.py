"""Printing on terminals that lack characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_terminal_without_a_character_gets_another_one_and_json_keeps_it(encoding: str) -> None:
    program = (
        "from thawlab import process; process.prepare()\n"
        "from thawlab.cli.console import print_json, print_table\n"
        "print('train − test'); print_table('−', ['a', '日本'], [['−1', '日本']]); print('&&'); print_json({'−': '日本'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, check=False
    )
    assert done.returncode == 0, done.stderr
    shown, document = done.stdout.decode(encoding).split("&&")
    assert shown.startswith("train − test" if encoding == "utf-8" else "train ? test")
    assert json.loads(document) == {"−": "日本"}
