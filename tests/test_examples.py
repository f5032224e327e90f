"""The examples in the docstrings of the Python face run, and print what they say."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

import pytest

import thawlab

# How many examples the face has at least: raise it when one is added, so that none is lost unseen.
MINIMUM = 9


def examples() -> list[doctest.DocTest]:
    """Collect the examples of the modules in which the names of the face live, and of the package itself."""
    homes = sorted({"thawlab", *(getattr(thawlab, name).__module__ for name in thawlab.__all__)})
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for home in homes for test in finder.find(sys.modules[home], home) if test.examples]


EXAMPLES = examples()


def test_the_face_has_its_examples() -> None:
    print(f"{len(EXAMPLES)} examples: {', '.join(test.name for test in EXAMPLES)}")
    assert len(EXAMPLES) >= MINIMUM


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_example(example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    example.globs = {**example.globs, "thawlab": thawlab, "Path": Path}
    failed, _ = runner.run(example, out=output.append)
    assert not failed, "".join(output)
