from __future__ import annotations

import doctest
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import thawlab
from thawlab import api
from thawlab.errors import UsageError
from thawlab.recipe import Recipe
from thawlab.results import Results
from thawlab.run import RunFolder

FIGURES = ["confusion", "curves", "reliability", "distribution", "declining"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> thawlab.Run:
    root = tmp_path_factory.mktemp("api")
    settings = {"data.val": 0.2, "data.test": 0.3, "phases.0.epochs": 2, "system.threads": 1}
    return thawlab.train("shapes:200x16", runs=root, backbone="cnn5", size=16, cache_dir=root / "cache", seed=3, **settings)


def test_importing_the_package_and_looking_at_a_run_is_cheap(run: thawlab.Run) -> None:
    program = (
        "import sys, thawlab; heavy = {'torch', 'timm', 'numpy', 'pydantic'}; assert not heavy & set(sys.modules)\n"
        f"print(repr(thawlab.open_run({str(run.path)!r}))); assert not {{'torch', 'timm'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == repr(run), done.stderr


def test_every_name_is_there_and_says_what_it_does() -> None:
    assert (
        {"train", "open_run", "load", "compare", "evaluate", "check_data", "find_lr", "probe"}
        <= set(thawlab.__all__)
        <= set(dir(thawlab))
    )
    assert all(getattr(thawlab, name).__doc__ for name in thawlab.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        thawlab.trian  # noqa: B018


def test_every_verb_of_the_face_has_an_example() -> None:
    rooms = [f"thawlab.api.{module.name}" for module in pkgutil.iter_modules(api.__path__)]
    finder, modules = doctest.DocTestFinder(recurse=True), (*rooms, "thawlab.opened")
    tests = [test for module in modules for test in finder.find(import_module(module), "face")]
    with_example = {test.name.removeprefix("face.") for test in tests if test.examples}
    assert {"train", "find_lr", "open_run", "load", "evaluate", "compare", "check_data", "probe", "Run"} <= with_example


def test_a_run_is_read_from_its_folder(run: thawlab.Run) -> None:
    assert isinstance(run.results, Results)
    assert run.results.test.n == len(run.predictions("test").labels) == 60
    assert (run.recipe.seed, run.recipe.model.backbone) == (3, "cnn5")
    assert thawlab.open_run(run.path.name, runs=run.path.parent) == thawlab.open_run(run.path) == run
    accuracy, (low, high) = run.results.test.accuracy, run.results.test.accuracy_ci95
    expected = f"test accuracy {100 * accuracy:.2f} % ({100 * low:.2f} to {100 * high:.2f})"
    assert repr(run) == f"Run('{run.path.name}', {expected})"
    html = run._repr_html_()
    assert expected in html and "<svg" in html and html.count("<li>") == len(run.results.diagnoses)
    assert run.report().read_text(encoding="utf-8").startswith("<!doctype html>")


def test_predictions_of_training_are_not_kept_and_the_message_tells_the_way(run: thawlab.Run) -> None:
    with pytest.raises(UsageError, match=r"only predictions of val and test are kept; evaluate\(run, 'train'\) judges"):
        run.predictions("train")
    with pytest.raises(UsageError, match=r"no split 'tset' \(did you mean 'test'\?\)"):
        run.predictions("tset")
    assert thawlab.evaluate(run, "train").measured.accuracy == run.results.train.accuracy


@pytest.mark.parametrize("name", FIGURES)
def test_figures_show_themselves(run: thawlab.Run, name: str) -> None:
    figure = run.figure(name)
    assert repr(figure) == f"Figure('{name}')"
    assert ElementTree.fromstring(figure._repr_svg_()).tag.endswith("svg")


def test_a_wrong_figure_gets_the_nearest_name(run: thawlab.Run) -> None:
    with pytest.raises(UsageError, match=r"no figure 'confusoin' \(did you mean 'confusion'\?\)"):
        run.figure("confusoin")


def test_the_pairs_that_are_confused_most_have_names(run: thawlab.Run) -> None:
    pairs = run.most_confused(3)
    confusion, names = np.array(run.results.test.confusion), run.results.dataset.classes
    assert 1 <= len(pairs) <= 3
    for truth, predicted, count in pairs:
        assert truth != predicted and confusion[names.index(truth), names.index(predicted)] == count
    assert [count for *_, count in pairs] == sorted((count for *_, count in pairs), reverse=True)


def test_a_run_that_is_not_finished_or_damaged_says_so(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "small-0123456789ab")
    folder.path.mkdir()
    folder.recipe_file.write_text(recipe().to_toml())
    opened = thawlab.open_run("small", tmp_path)
    assert repr(opened) == "Run('small-0123456789ab', new)"
    folder.set_status("interrupted")
    assert repr(opened) == "Run('small-0123456789ab', interrupted)"
    assert opened._repr_html_() == "<p><b>small-0123456789ab</b>: interrupted</p>"
    folder.results.write_text("{")
    assert repr(opened) == "Run('small-0123456789ab', damaged)"
    assert "damaged" in opened._repr_html_()


def test_runs_are_compared_in_a_table(run: thawlab.Run, tmp_path: Path) -> None:
    twin = RunFolder(tmp_path / "twin-0123456789ab")
    shutil.copytree(run.path, twin.path)
    compared = thawlab.compare([run, twin.path], page=tmp_path / "page.html")
    assert compared.page == tmp_path / "page.html" and compared.page.is_file()
    lines = repr(compared).splitlines()
    assert lines[0].split()[0] == "variant" and lines[1].startswith(run.path.name) and lines[2].startswith("twin-")
    assert compared._repr_html_().count("<tr>") == 3
    assert run.against(thawlab.open_run(twin.path)).difference == 0
    with pytest.raises(UsageError, match=r"page\.html: exists already"):
        thawlab.compare([run, twin.path], page=tmp_path / "page.html")
    before = (twin.path / "results.json").read_bytes()
    with pytest.raises(UsageError, match=r"results\.json: is also read by this command"):
        thawlab.compare([run, twin.path], page=twin.path / "results.json", force=True)
    assert (twin.path / "results.json").read_bytes() == before


def test_other_images_have_no_split_of_the_run(run: thawlab.Run) -> None:
    with pytest.raises(UsageError, match=r"split = 'val' is one of the run's own splits, and shapes:100x16 are other images"):
        thawlab.evaluate(run, "val", "shapes:100x16")


def test_files_images_and_pixels_are_predicted_alike(run: thawlab.Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = run.predictor
    assert predictor is run.predictor
    file = photos / "red" / "00.png"
    ways = [file, Image.open(file).convert("RGB"), np.asarray(Image.open(file).convert("RGB"))]
    assert len({predictor.predict(way).probabilities for way in ways}) == 1
    monkeypatch.setenv("HOME", str(run.path.parent))
    assert thawlab.load(run.path.name, runs="~").predict(file) == predictor.predict(file)


def test_a_users_notebook_is_left_alone() -> None:
    program = (
        "import gc, os, random, sys, numpy as np, torch, rich.style\n"  # rich draws a random number when it is imported
        "def state(): return (gc.get_threshold(), [os.environ.get(k) for k in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')],\n"
        "    torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), torch.get_rng_state().tolist(),\n"
        "    random.getstate(), np.random.get_state()[1].tolist(), sys.stdout.errors)\n"
        "before = state(); import thawlab\n"
        "run = thawlab.train('shapes:100x16', backbone='cnn5', size=16, **{'phases.0.epochs': 1}); run.report(); repr(run)\n"
        "run._repr_html_(); run.predictor.predict_many([np.zeros((16, 16, 3), np.uint8)])\n"
        "print([a == b for a, b in zip(before, state())])"
    )
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, check=False)
    assert done.stdout.strip() == str([True] * 8), done.stderr
