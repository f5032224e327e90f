"""One training on two devices: the same steps as on one, and no trace of it where a process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import outputs, start
from safetensors.torch import load_file

from thawlab import api
from thawlab.errors import UsageError
from thawlab.evaluation.predictions import load_predictions
from thawlab.files import read_json
from thawlab.plan.resolve import resolve
from thawlab.recipe import Recipe
from thawlab.results import EpochRow, read_results, read_rows
from thawlab.run import RunFolder, run_folder
from thawlab.runner import train

Make = Callable[..., Recipe]

# What could depend on a sample's place among the processes: augmentation, dropout, a last batch of an odd size.
BOTH = ("model.dropout=[0.3]", "model.head=[16]", 'phases.1.augment=["flip","crop:2","brightness:0.1"]', "phases.1.epochs=3")
# Adam divides by the size of a gradient: one that is all rounding then moves a weight as far as any other.
BOTH = (*BOTH, "phases.1.optimizer=sgd", "phases.1.lr=0.01")
FROM_SCRATCH = {
    "model": {"backbone": "resnet20"},
    "phases": [{"name": "all", "epochs": 3, "lr": 0.005, "batch_size": 48, "optimizer": "sgd", "augment": ["flip"]}],
}


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # each process has one of them
    monkeypatch.setattr("thawlab.launch.usable_cores", lambda: 2)


def losses(folder: RunFolder) -> np.ndarray:
    rows: list[EpochRow] = read_rows(folder.metrics)
    return np.array([[row.train_loss, row.val_loss or 0.0] for row in rows])


def both(one: Recipe, runs: Path) -> tuple[RunFolder, RunFolder]:
    alone = train(one, runs / "alone")
    together = api.train(one, runs=runs / "together", devices=2)
    return alone, together.folder


def test_two_processes_take_the_steps_of_one(recipe: Make, tmp_path: Path) -> None:
    """Without BatchNorm's own statistics all that is left are other orders of adding up."""
    alone, together = both(recipe(*BOTH), tmp_path)
    np.testing.assert_allclose(losses(together), losses(alone), rtol=1e-5, atol=1e-5)
    first, second = (read_rows(folder.metrics) for folder in (alone, together))
    places = [[(row.phase, row.epoch, row.step, row.lr) for row in rows] for rows in (first, second)]
    assert places[0] == places[1]
    for split in ("val", "test"):
        tables = [load_predictions(folder.predictions(split)) for folder in (alone, together)]
        assert tables[0].ids.tolist() == tables[1].ids.tolist()
        np.testing.assert_allclose(tables[1].logits, tables[0].logits, atol=2e-3)
    log = (together.path / "log.txt").read_text()
    assert "2 processes train together and share every batch" in log
    assert log.count("resuming") == 0
    assert log.count("all: 3 epochs") == 1  # one process writes


@pytest.mark.parametrize(
    "more",
    [
        ('phases.1.augment=["mixup:0.4"]',),
        ('phases.1.augment=["erase:0.5"]',),
        ('phases.1.class_weights="balanced"', "phases.1.clip=0.5", "phases.1.l2_backbone=1e-4", "phases.1.ema=0.9"),
        ("phases.1.accumulate=2", "model.dropout=[]"),
        ('phases.1.train="stages:1"', 'phases.1.augment=["flip"]'),
        ("phases.1.optimizer=muon", 'phases.1.sampling="balanced"'),
    ],
    ids=["mixed", "whole-batches", "losses", "parts", "cached-part", "muon"],
)
@pytest.mark.slow
def test_the_steps_are_those_of_one_process_whatever_a_phase_asks_for(
    recipe: Make, tmp_path: Path, more: tuple[str, ...]
) -> None:
    alone, together = both(recipe("model.dropout=[0.3]", "model.head=[16]", "phases.0.epochs=1", *more), tmp_path)
    np.testing.assert_allclose(losses(together), losses(alone), rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_batch_norm_over_all_processes_makes_them_one(recipe: Make, tmp_path: Path) -> None:
    alone, together = both(recipe('phases.0.batch_norm="sync"', **FROM_SCRATCH), tmp_path)
    np.testing.assert_allclose(losses(together), losses(alone), rtol=1e-3)
    weights = [load_file(folder.model / "model.safetensors") for folder in (alone, together)]
    assert all((weights[0][name].float() - weights[1][name].float()).abs().max() < 1e-2 for name in weights[0])
    assert "over the images of all" in (together.path / "log.txt").read_text()


@pytest.mark.slow
def test_batch_norm_of_each_process_is_the_default_and_it_is_said(recipe: Make, tmp_path: Path) -> None:
    alone, together = both(recipe(**FROM_SCRATCH), tmp_path)
    found = [read_results(folder.results).test.accuracy for folder in (alone, together)]
    assert abs(found[0] - found[1]) < 0.25
    assert losses(alone).tolist() != losses(together).tolist()
    assert "each takes BatchNorm's statistics over its own images" in (together.path / "log.txt").read_text()


@pytest.mark.slow
def test_torchrun_trains_the_same_run(recipe: Make, tmp_path: Path) -> None:
    one = recipe(*BOTH)
    (tmp_path / "recipe.toml").write_text(one.to_toml(), encoding="utf-8")
    alone = train(one, tmp_path / "alone")
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "thawlab", "train"]
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path / "recipe.toml"), "--runs", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    [path] = (tmp_path / "runs").iterdir()
    np.testing.assert_allclose(losses(RunFolder(path)), losses(alone), rtol=1e-5, atol=1e-5)


LONG = ("phases.0.epochs=1", "phases.1.epochs=14", "data.source=shapes:500x16")


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def long_run(recipe: Make, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """What is undisturbed training on two processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THAWLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "2")
        patch.setattr("thawlab.launch.usable_cores", lambda: 2)
        yield api.train(recipe(*LONG), runs=tmp_path_factory.mktemp("runs"), devices=2).folder


def within_second_phase(one: Recipe, runs: Path) -> RunFolder:
    """Return the run of a recipe once it is there."""
    folder = run_folder(resolve(one).recipe, runs)
    wait_until(lambda: folder.metrics.is_file() and len(read_rows(folder.metrics)) >= 3)
    return folder


def begun(one: Recipe, runs: Path, tmp_path: Path) -> tuple[list[subprocess.Popen[str]], RunFolder]:
    """Start two processes and return when they are within the second phase."""
    (tmp_path / "recipe.toml").write_text(one.to_toml(), encoding="utf-8")
    processes = start(2, ["-m", "thawlab", "train", str(tmp_path / "recipe.toml"), "--runs", str(runs)])
    return processes, within_second_phase(one, runs)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_takes_the_other_along_and_the_same_command_continues(
    recipe: Make, tmp_path: Path, long_run: RunFolder, killed: int
) -> None:
    one = recipe(*LONG)
    processes, folder = begun(one, tmp_path / "runs", tmp_path)
    processes[killed].kill()
    start_of_end = time.monotonic()
    _, said = processes[1 - killed].communicate(timeout=10)
    assert time.monotonic() - start_of_end < 10
    assert processes[1 - killed].returncode == 1
    assert (
        said.strip()
        .splitlines()[-1]
        .endswith(
            "another process of this training ended; nothing up to the last checkpoint is lost, and the same command continues"
        )
    )
    again = api.train(one, runs=tmp_path / "runs", devices=2).folder
    assert again.path == folder.path
    assert (again.model / "model.safetensors").read_bytes() == (long_run.model / "model.safetensors").read_bytes()
    assert losses(again).tolist() == losses(long_run).tolist()


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_after_saving_and_another_number_of_them_may_go_on(
    recipe: Make, tmp_path: Path, long_run: RunFolder
) -> None:
    one = recipe(*LONG)
    processes, folder = begun(one, tmp_path / "runs", tmp_path)
    processes[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=20)[1] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], said
    assert read_json(folder.path / "state.json")["status"] == "interrupted"
    resumed = train(one, tmp_path / "runs")  # alone
    assert "trained by 1 process from here on, by 2 before" in (folder.path / "log.txt").read_text()
    np.testing.assert_allclose(losses(resumed), losses(long_run), rtol=0.05)  # rounding grows from epoch to epoch


def launched(one: Recipe, place: Path) -> tuple[subprocess.Popen[str], RunFolder]:
    """Start `thawlab train --devices 2` and return when it is within the second phase."""
    (place / "recipe.toml").write_text(one.to_toml(), encoding="utf-8")
    command = ["-m", "thawlab", "train", str(place / "recipe.toml"), "--devices", "2", "--runs", str(place / "runs")]
    launcher = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return launcher, within_second_phase(one, place / "runs")


@pytest.mark.slow
def test_the_launcher_says_in_a_line_which_process_was_killed(recipe: Make, tmp_path: Path) -> None:
    launcher, folder = launched(recipe(*LONG), tmp_path)
    writer = read_json(folder.path / "state.json")["pid"]
    os.kill(writer, signal.SIGKILL)
    _, said = launcher.communicate(timeout=20)
    assert launcher.returncode == 1
    assert "process 0 of this training was killed by signal 9" in said.strip().splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_at_the_launcher_saves(recipe: Make, tmp_path: Path) -> None:
    launcher, folder = launched(recipe(*LONG), tmp_path)
    launcher.send_signal(signal.SIGINT)
    _, said = launcher.communicate(timeout=30)
    assert launcher.returncode == 130, said
    assert folder.status == "interrupted"
    assert folder.checkpoint.is_file()


def test_what_is_wrong_is_said_once(tmp_path: Path, recipe: Make) -> None:
    with pytest.raises(UsageError, match="--devices 3: this machine has 2 cores"):
        api.train(recipe(), runs=tmp_path, devices=3)
    with pytest.raises(UsageError, match="--devices 0: must be at least 1"):
        api.train(recipe(), runs=tmp_path, devices=0)
    with pytest.raises(UsageError, match="no-such-folder"):
        api.train(recipe("data.source=no-such-folder/"), runs=tmp_path, devices=2)
    with pytest.raises(UsageError, match='"sync" takes the statistics of whole batches'):
        recipe('phases.1.batch_norm="sync"', "phases.1.accumulate=2")


def test_processes_that_see_different_run_folders_are_refused(recipe: Make, tmp_path: Path) -> None:
    one = recipe()
    (tmp_path / "recipe.toml").write_text(one.to_toml(), encoding="utf-8")
    text = (
        "import os, sys\nfrom thawlab.cli.main import app\n"
        "sys.argv = ['thawlab', 'train', sys.argv[1], '--runs', sys.argv[2] + os.environ['RANK']]\napp()"
    )
    folder = train(one, tmp_path / "other")
    half = tmp_path / "runs0" / folder.path.name
    (half / "checkpoints").mkdir(parents=True)
    (half / "checkpoints" / "last.pt").write_bytes(folder.checkpoint.read_bytes())
    processes = start(2, ["-c", text, str(tmp_path / "recipe.toml"), str(tmp_path / "runs")])
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1], said
    assert "do not see the same run folder" in said[0]


def test_outputs_tells_why_a_process_failed() -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        outputs(start(1, ["-c", "1 / 0"]))
