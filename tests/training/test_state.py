"""A checkpoint is whole at every moment: a process that dies after any system call of a save leaves one that loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn

from thawlab.errors import Interrupted, ThawlabError
from thawlab.recipe import Phase
from thawlab.results import EpochRow, PhaseResult
from thawlab.run import RunFolder
from thawlab.training.context import Context
from thawlab.training.interruption import Interruption
from thawlab.training.state import Best, OptimizerState, TrainingState, load_checkpoint, save_checkpoint, save_if_due
from thawlab.training.world import ALONE

# Saves twice; during the second save the process dies right after its n-th event that touches the file system.
DYING = """
import os, sys
from pathlib import Path
from torch import nn
from thawlab.training.state import TrainingState, save_checkpoint
path, deadly = Path(sys.argv[1]), int(sys.argv[2])
model = nn.Linear(300, 300)
nn.init.constant_(model.weight, 1.0)
save_checkpoint(path, TrainingState(epoch=1), model, None)
nn.init.constant_(model.weight, 2.0)
events = 0
def count(name, original):
    def wrapped(*arguments, **options):
        global events
        result = original(*arguments, **options)
        events += 1
        if events == deadly:
            os._exit(9)
        return result
    return wrapped
import pathlib, io, thawlab.run
os.fsync = count("fsync", os.fsync)
os.open = count("open", os.open)
os.close = count("close", os.close)
os.replace = count("replace", os.replace)
pathlib.Path.replace = count("replace", pathlib.Path.replace)
original_open = pathlib.Path.open
class File:
    def __init__(self, file): self.file = file
    def write(self, data): return count("write", self.file.write)(data)
    def __getattr__(self, name): return getattr(self.file, name)
    def __enter__(self): self.file.__enter__(); return self
    def __exit__(self, *error): return count("close", self.file.__exit__)(*error)
pathlib.Path.open = lambda self, *a, **k: File(count("open", original_open)(self, *a, **k))
save_checkpoint(path, TrainingState(epoch=2), model, None)
print("events", events)
"""


@pytest.mark.slow
def test_a_process_that_dies_anywhere_in_a_save_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    seen = set()
    for deadly in range(1, 200):
        path = tmp_path / str(deadly) / "last.pt"
        command = [sys.executable, "-c", DYING, str(path), str(deadly)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        model = nn.Linear(300, 300)
        state, _ = load_checkpoint(path, model)
        assert state.epoch in {1, 2}
        assert torch.all(model.weight == float(state.epoch))
        seen.add(state.epoch)
        if done.returncode == 0:
            break
        assert done.returncode == 9, done.stderr
    assert deadly > 6  # open, writes, sync, close, rename and the folder's sync were all deadly once
    assert seen == {1, 2}


def test_a_full_disk_keeps_the_last_good_checkpoint_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, model = tmp_path / "last.pt", nn.Linear(2, 2)
    save_checkpoint(path, TrainingState(epoch=1), model, None)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        ThawlabError, match=r"last\.pt: cannot be written: No space left on device; the version before it is untouched"
    ):
        save_checkpoint(path, TrainingState(epoch=2), model, None)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    row = EpochRow(phase="all", epoch=1, step=9, seconds=0.5, train_loss=0.7, val_loss=None, val_accuracy=None, lr=0.1)
    phase = PhaseResult(
        name="head",
        trainable_parameters=8,
        epochs_run=3,
        best_epoch=2,
        best_val_accuracy=0.5,
        seconds=1.5,
        stopped="epochs",
        lr=0.01,
    )
    state = TrainingState(
        phase=1,
        epoch=2,
        step=3,
        loss_sum=0.1,
        seconds=4.5,
        best=Best(0.5, 1.25, 2, model.state_dict()),
        rows=[row],
        phases=[phase],
        found_lr={0: 0.01},
        found_precision={0: "bfloat16"},
        cached=True,
    )
    save_checkpoint(tmp_path / "last.pt", state, model, OptimizerState(optimizer, None))
    other = nn.Linear(3, 2)
    loaded, resumed = load_checkpoint(tmp_path / "last.pt", other)
    assert torch.equal(other.weight, model.weight)
    assert (loaded.phase, loaded.epoch, loaded.step, loaded.loss_sum, loaded.seconds) == (1, 2, 3, 0.1, 4.5)
    assert (loaded.rows, loaded.phases) == ([row], [phase])
    assert (loaded.found_lr, loaded.found_precision, loaded.cached) == ({0: 0.01}, {0: "bfloat16"}, True)
    assert loaded.best is not None
    assert (loaded.best.accuracy, loaded.best.loss, loaded.best.epoch) == (0.5, 1.25, 2)
    assert torch.equal(loaded.best.weights["weight"], model.weight)
    again = torch.optim.Adam(other.parameters())
    assert resumed is not None
    OptimizerState(again, None).load_state_dict(resumed)
    assert torch.equal(again.state[other.weight]["exp_avg"], optimizer.state[model.weight]["exp_avg"])


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", TrainingState(), nn.Linear(3, 2), None)
    with pytest.raises(ThawlabError, match="this checkpoint cannot be read"):
        load_checkpoint(tmp_path / "last.pt", nn.Linear(4, 2))


def test_nothing_that_runs_code_is_ever_loaded(tmp_path: Path) -> None:
    torch.save({"format": 1, "state": {}, "model": {}, "moving": Phase}, tmp_path / "last.pt")
    with pytest.raises(ThawlabError, match="cannot be read"):
        load_checkpoint(tmp_path / "last.pt", nn.Linear(1, 1))


def test_a_checkpoint_is_written_when_due_and_a_signal_is_obeyed_only_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("thawlab.training.state.time.monotonic", lambda: now)
    model, interruption, folder = nn.Linear(1, 1), Interruption(), RunFolder(tmp_path)
    optimizer, state = OptimizerState(torch.optim.SGD(model.parameters(), lr=0.1), None), TrainingState(saved=0.0)
    context = cast(Context, SimpleNamespace(world=ALONE, folder=folder, classifier=model, interruption=interruption))

    def at(moment: float, within_epoch: bool) -> bool:
        """Return whether a checkpoint is written at a moment, and remove it."""
        nonlocal now
        now = moment
        save_if_due(context, state, optimizer, within_epoch=within_epoch)
        written = folder.checkpoint.exists()
        folder.checkpoint.unlink(missing_ok=True)
        return written

    assert not at(4.0, within_epoch=False)
    assert not at(6.0, within_epoch=True)
    assert at(6.0, within_epoch=False)
    assert state.saved == 6.0
    assert at(97.0, within_epoch=True)
    assert not at(97.0, within_epoch=True)
    interruption.requested = 15
    with pytest.raises(Interrupted, match="to resume") as raised:
        at(97.0, within_epoch=True)
    assert raised.value.exit_code == 143
    assert folder.checkpoint.exists()
