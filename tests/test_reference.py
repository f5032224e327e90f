"""The reference has a block for every name of the Python face, and every block leads to something."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import thawlab

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"


def test_the_reference_documents_the_face() -> None:
    blocks = re.findall(r"^::: ([\w.]+)\.(\w+)$", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    documented = {name: getattr(import_module(module), name) for module, name in blocks}
    missing = [name for name in thawlab.__all__ if documented.get(name) is not getattr(thawlab, name)]
    assert missing == [], "docs/reference.md lacks a block ::: module.name, or has it for something else"
