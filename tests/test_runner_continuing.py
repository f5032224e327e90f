"""Runs that were stopped, killed, damaged or asked for twice: the same command goes on, to the same bits."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import assert_same_run, small_phase

from thawlab.data.shards.writer import write_shards
from thawlab.data.sources import open_source
from thawlab.errors import ThawlabError
from thawlab.files import cache_root
from thawlab.plan.resolve import resolve
from thawlab.recipe import Recipe
from thawlab.results import read_rows
from thawlab.run import RunFolder, run_folder
from thawlab.runner import train

Make = Callable[..., Recipe]


def test_muon_with_rates_of_its_own_continues_to_the_same_bits_and_learns(recipe: Make, tmp_path: Path) -> None:
    phase = small_phase(
        optimizer="muon",
        lr=0.1,
        bias_lr=0.3,
        head_lr=0.3,
        schedule="linear",
        augment=["alternate-flip"],
        sizes=[16, 24],
        epochs=4,
    )
    whole = recipe("model.backbone=speednet", "data.image_size=24", phases=[phase])
    folder = train(whole, tmp_path / "a")
    rows = read_rows(folder.metrics)
    assert rows[-1].train_loss < 0.8 * rows[0].train_loss
    assert_same_run(folder, cut_short_and_continued(whole, tmp_path / "b", epochs=2))


def test_a_phase_continues_as_it_began_when_the_disk_fills_up(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = [{"name": "head", "train": "head", "epochs": 6, "lr": 0.01, "batch_size": 8, "ema": 0.9}]
    expected = train(recipe(phases=phases), tmp_path / "whole")
    monkeypatch.setattr("thawlab.training.state._YOUNG_SECONDS", 0.0)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("thawlab.training.loop._finish_phase", stop)
        train(recipe(phases=phases), tmp_path / "cut")
    monkeypatch.setattr("thawlab.inference.feature_cache.room_for_cache", lambda _: 0)
    assert_same_run(expected, train(recipe(phases=phases), tmp_path / "cut"))


def test_changed_data_refuse_to_continue(recipe: Make, photos: Path, tmp_path: Path) -> None:
    def start(epochs: int) -> RunFolder:
        return train(recipe(f"data.source={photos}", "data.image_size=16", f"phases.1.epochs={epochs}"), tmp_path / "runs")

    folder = start(2)
    folder.set_status("interrupted")
    image = photos / "red" / "00.png"
    shutil.copy(photos / "blue" / "00.png", image)
    with pytest.raises(ThawlabError, match="the data changed since this run began"):
        start(2)


def start_process(recipe_file: Path, runs: Path) -> subprocess.Popen[str]:
    program = "import sys; from thawlab.__main__ import run; run()"
    command = [sys.executable, "-c", program, "train", str(recipe_file), "--runs", str(runs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_the_same_command_continues_to_the_same_bits(
    recipe: Make, tmp_path: Path, number: int, code: int
) -> None:
    long = recipe("phases.1.epochs=6", "phases.1.batch_size=8")
    expected = train(long, tmp_path / "whole")
    file = tmp_path / "recipe.toml"
    file.write_text(long.to_toml())
    folder = RunFolder(tmp_path / "cut" / expected.path.name)
    process = start_process(file, tmp_path / "cut")
    wait_for(lambda: folder.metrics.is_file() and len(read_rows(folder.metrics)) >= 4, process)
    process.send_signal(number)
    asked = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert time.monotonic() - asked < 5
    assert "to resume" in errors
    assert "Traceback" not in errors
    assert folder.status == "interrupted"
    assert_same_run(expected, train(long, tmp_path / "cut"))


def killed(recipe_to_train: Recipe, expected: RunFolder, tmp_path: Path, kills: int, latest: float, seed: int) -> RunFolder:
    """Start a run again and again, each time killed at a random moment, and let the last start finish."""
    file = tmp_path / "recipe.toml"
    tmp_path.mkdir(exist_ok=True)
    file.write_text(recipe_to_train.to_toml())
    folder = RunFolder(tmp_path / "cut" / expected.path.name)
    rng = random.Random(seed)
    done = 0
    while done < kills and not (folder.path.is_dir() and folder.status == "finished"):
        process = start_process(file, tmp_path / "cut")
        wait_for(lambda: (folder.path / "state.json").is_file() and folder.status == "running", process)
        time.sleep(rng.uniform(0.0, latest))
        process.kill()
        process.communicate()
        done += 1
    assert done
    return train(recipe_to_train, tmp_path / "cut")


def test_killed_at_random_points_a_run_ends_in_the_same_bits(recipe: Make, tmp_path: Path) -> None:
    long = recipe("phases.1.epochs=5", "phases.1.batch_size=8")
    expected = train(long, tmp_path / "whole")
    assert_same_run(expected, killed(long, expected, tmp_path, kills=2, latest=0.8, seed=0))


def test_a_stream_from_shards_is_the_same_wherever_it_stopped_and_whatever_is_kept(recipe: Make, tmp_path: Path) -> None:
    write_shards(open_source("shapes:300x16"), tmp_path / "shards", 40_000)
    stream = (f"data.source={tmp_path / 'shards'}", "data.shuffle_buffer=60", "phases.1.epochs=5", "phases.1.batch_size=8")
    none = recipe(*stream, "data.cache=none")
    expected = train(none, tmp_path / "whole")
    assert_same_run(expected, train(recipe(*stream, "data.cache=decoded"), tmp_path / "kept"))
    assert_same_run(expected, killed(none, expected, tmp_path, kills=2, latest=0.8, seed=1))
    whole = train(recipe(*(part for part in stream if "buffer" not in part)), tmp_path / "unbuffered")
    assert whole.name != expected.name  # another order is another recipe
    assert read_rows(whole.metrics)[0].train_loss != read_rows(expected.metrics)[0].train_loss


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra", [[], ["phases.1.ema=0.9"], ["phases.0.augment=['flip']"], ["phases.1.train=stages:1", "phases.1.augment=[]"]]
)
def test_killed_at_twenty_random_points_a_run_ends_in_the_same_bits(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: list[str]
) -> None:
    # Every epoch saves, so that kills fall into saves too; latest reaches past the end of training into the evaluation.
    monkeypatch.setattr("thawlab.training.state._YOUNG_SECONDS", 0.0)
    long = recipe("phases.0.epochs=10", "phases.1.epochs=6", "phases.1.batch_size=8", *extra)
    started = time.monotonic()
    expected = train(long, tmp_path / "whole")
    latest = 1.3 * (time.monotonic() - started)
    for number in range(5):
        assert_same_run(expected, killed(long, expected, tmp_path / str(number), kills=1, latest=latest, seed=number))
        shutil.rmtree(cache_root(), ignore_errors=True)


def test_two_processes_with_the_same_recipe_do_not_mix(recipe: Make, tmp_path: Path) -> None:
    long = recipe("phases.1.epochs=50", "phases.1.batch_size=8")
    file = tmp_path / "recipe.toml"
    file.write_text(long.to_toml())
    folder = RunFolder(tmp_path / f"small-{resolve(long)[0].digest[:12]}")
    process = start_process(file, tmp_path)
    try:
        wait_for(folder.metrics.is_file, process)
        with pytest.raises(ThawlabError, match=f"being trained by process {process.pid}"):
            train(long, tmp_path)
    finally:
        process.kill()
        process.communicate()


def test_a_damaged_checkpoint_is_named_and_kept(recipe: Make, tmp_path: Path) -> None:
    folder = train(recipe(), tmp_path)
    folder.set_status("interrupted")
    folder.checkpoint.write_bytes(b"damaged")
    with pytest.raises(ThawlabError, match=r"last\.pt: this checkpoint cannot be read"):
        train(recipe(), tmp_path)
    assert folder.checkpoint.read_bytes() == b"damaged"


def cut_short_and_continued(long: Recipe, runs: Path, epochs: int) -> RunFolder:
    """Train in a process of its own, stop it after so many epochs, and go on from there."""
    runs.mkdir()
    file, closed = runs / "recipe.toml", resolve(long).recipe
    file.write_text(closed.to_toml())
    folder = run_folder(closed, runs)
    process = start_process(file, runs)
    wait_for(lambda: folder.metrics.is_file() and len(read_rows(folder.metrics)) >= epochs, process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert folder.status == "interrupted"
    return train(long, runs)


def test_an_averaged_phase_continues_to_the_same_bits(recipe: Make, tmp_path: Path) -> None:
    long = recipe("phases.1.epochs=4", "phases.1.batch_size=8", "phases.1.ema=0.95", "phases.1.optimizer=sgd")
    assert_same_run(train(long, tmp_path / "whole"), cut_short_and_continued(long, tmp_path / "cut", epochs=4))
