"""The wheel holds everything: installed in an empty virtual environment, it trains."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[1]


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Without PYTHONPATH: it would lead to this checkout.
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    return subprocess.run([python, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # From a copy of what git would hand out: a build in the checkout would leave its build/ there and could pick up an old one.
    source = tmp_path_factory.mktemp("source")
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "src", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if names.returncode:
        pytest.skip("no git checkout")
    for name in filter(None, names.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, whose dependencies lie where they are already: fetching torch again takes minutes.

    A .pth file adds this environment's packages behind the new one's own. Lines of .pth files in there are not read,
    so that the editable install of this checkout stays out.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    told = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    packages = Path(told.stdout.strip())
    pip = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    done = run(Path(sys.executable), *pip, cwd=folder)
    assert done.returncode == 0 and (packages / "thawlab").is_dir(), done.stdout + done.stderr
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    return python


def test_the_wheel_holds_what_is_no_code(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    here = {
        file.relative_to(ROOT / "src").as_posix()
        for file in (ROOT / "src" / "thawlab").rglob("*")
        if file.is_file() and file.suffix not in {".py", ".pyc"}
    }
    assert {"thawlab/py.typed", "thawlab/models/bundled/model.safetensors"} <= here
    assert {Path(name).suffix for name in here} >= {".html", ".css", ".safetensors", ".json"}
    assert here - names == set()
    assert not [name for name in names if not name.startswith(("thawlab/", "thawlab-"))]


def test_the_wheel_trains(python: Path, tmp_path: Path) -> None:
    told = run(python, "-c", "import thawlab; print(thawlab.__file__, thawlab.__version__)", cwd=tmp_path)
    place, number = told.stdout.split()
    assert Path(place).is_relative_to(python.parents[1]), "the code under test is not the wheel's"
    program = str(python.with_name("thawlab"))
    assert run(python, program, "--version", cwd=tmp_path).stdout == f"thawlab {number}\n"
    # The second run needs the bundled weights; both write a page with the templates and styles of the wheel.
    for source, backbone in (("digits", "cnn5"), ("shapes:200x16", "bundled")):
        runs = tmp_path / backbone
        settings = ["phases.0.epochs=1", *(["phases.1.epochs=1", "data.image_size=16"] if backbone == "bundled" else [])]
        done = run(python, program, "train", source, "--backbone", backbone, *settings, "--runs", str(runs), cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        [file] = runs.glob("*/results.json")
        results = json.loads(file.read_text(encoding="utf-8"))
        assert results["dataset"]["name"] == source.split(":")[0]
        assert results["test"]["n"] > 0
        assert (file.parent / "report.html").stat().st_size > 10_000
