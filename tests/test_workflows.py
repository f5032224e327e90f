"""The project's own files agree with each other: versions, Python versions, bounds, targets, packages."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import thawlab

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


def load(file: Path) -> dict[str, Any]:
    return yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # BaseLoader: "on" and "3.10" stay words


def jobs() -> list[tuple[str, dict[str, Any]]]:
    return [(f"{file.stem}: {name}", job) for file in WORKFLOWS for name, job in load(file)["jobs"].items()]


def pins(name: str) -> dict[str, Version]:
    lines = [Requirement(line) for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    return {line.name.lower().replace("_", "-"): Version(next(iter(line.specifier)).version) for line in lines}


def declared(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


# Workflows


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.github-issue-forms", FORMS),
        ("vendor.github-issue-config", [ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"]),
    ],
)
def test_github_would_read_it(schema: str, files: list[Path]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert files and done.returncode == 0, done.stdout + done.stderr


def test_the_first_and_the_last_declared_python_are_tested_on_both_systems() -> None:
    prefix = "Programming Language :: Python :: "
    known = sorted((line.removeprefix(prefix) for line in PROJECT["classifiers"] if line.startswith(prefix)), key=Version)
    allowed = SpecifierSet(PROJECT["requires-python"])
    matrix = load(ROOT / ".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix == {"os": ["ubuntu-latest", "macos-latest"], "python": [known[0], known[-1]]}
    first = Version(known[0])
    assert first in allowed and Version(f"{first.major}.{first.minor - 1}") not in allowed
    for name, job in jobs():
        for step in job["steps"]:
            wanted = step.get("with", {}).get("python-version", known[0])
            assert wanted in {*known, "${{ matrix.python }}"}, name


def test_the_oldest_versions_are_tested_on_the_oldest_python() -> None:
    steps = load(ROOT / ".github/workflows/ci.yml")["jobs"]["oldest"]["steps"]
    assert any("CONSTRAINTS=constraints-oldest.txt" in step.get("run", "") for step in steps)
    [setup] = [step["with"] for step in steps if "setup-python" in step.get("uses", "")]
    assert PROJECT["requires-python"] == f">={setup['python-version']}"


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_may_little(file: Path) -> None:
    workflow = load(file)
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow["concurrency"]) == {"group", "cancel-in-progress"}
    for name, job in workflow["jobs"].items():
        assert job.get("permissions", {}) in ({}, {"id-token": "write"}), name
        assert int(job["timeout-minutes"]) <= 90, name
        for action in (step["uses"] for step in job["steps"] if "uses" in step):
            assert re.fullmatch(r"(actions|pypa)/[\w-]+@(v\d+|release/v1)", action), action


@pytest.mark.parametrize("file", [*WORKFLOWS, ROOT / ".ci" / "run"], ids=lambda file: file.name)
def test_what_a_script_calls_exists(file: Path) -> None:
    text = "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in file.read_text(encoding="utf-8").splitlines())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
    for path in re.findall(r"\b(?:tests|tools)/\S+\.py|\bconstraints[\w-]*\.txt", text):
        assert (ROOT / path).is_file(), path


# Versions


def test_the_oldest_pins_are_the_declared_lower_bounds() -> None:
    bounds = {line.name: Version(next(iter(line.specifier)).version) for line in declared("dev")}
    assert pins("constraints-oldest.txt") == bounds


def test_the_newest_pins_hold_what_is_declared() -> None:
    newest = pins("constraints.txt")
    for line in declared("dev", "docs", "browser", "tensorboard", "mlflow", "search"):
        assert newest[line.name] in line.specifier, line


def test_the_version_is_the_packages_and_the_changelog_knows_it() -> None:
    fallback = PYPROJECT["tool"]["setuptools_scm"]["fallback_version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert thawlab.__version__ == version("thawlab")
    assert re.findall(r"^## \[(.+?)\]", changelog, flags=re.MULTILINE)[:2] == ["Unreleased", fallback]
    assert load(ROOT / "CITATION.cff")["version"] == fallback


def test_asking_for_no_version_costs_nothing() -> None:
    code = "import sys, thawlab; sys.exit('importlib.metadata' in sys.modules)"
    assert subprocess.run([sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, check=False).returncode == 0
