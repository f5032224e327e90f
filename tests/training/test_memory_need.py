from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from thawlab.errors import Interrupted, UsageError
from thawlab.recipe import Recipe
from thawlab.runner import range_test, train

Make = Callable[..., Recipe]
MIB = 2**20
PHASE = {"name": "all", "epochs": 1, "optimizer": "sgd", "lr": 0.05}
SMALL = ("model.backbone=cnn5", "data.source=shapes:150x16")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def log(folder: Path) -> str:
    return (folder / "log.txt").read_text(encoding="utf-8")


def has(monkeypatch: pytest.MonkeyPatch, mib: float) -> None:
    monkeypatch.setattr("thawlab.training.memory_need.free_memory", lambda _: int(mib * MIB))


def test_a_step_that_fits_is_computed_at_once(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, 1000)
    folder = train(recipe(*SMALL, phases=[PHASE | {"batch_size": "auto"}]), tmp_path / "a")
    whole = train(recipe(*SMALL, phases=[PHASE | {"batch_size": 64}]), tmp_path / "b")
    assert "batch_size = 64, computed at once, since 64 images at once take about" in log(folder.path)
    found, expected = weights(folder.path), weights(whole.path)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_less_memory_means_more_parts_and_the_same_steps(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    for number, mib in enumerate((1000, 5, 2.5, 0)):
        has(monkeypatch, mib)
        folder = train(recipe(*SMALL, phases=[PHASE | {"batch_size": "auto"}]), tmp_path / str(number))
        computed = next(line for line in log(folder.path).splitlines() if "batch_size = 64" in line).split("computed ")[1]
        parts.append(1 if computed.startswith("at once") else int(computed.split()[1]))
    assert parts[0] == 1 and parts == sorted(parts) and parts[1] > 1 and parts[-1] == 32
    explicit = train(recipe(*SMALL, phases=[PHASE | {"batch_size": 64, "accumulate": 32}]), tmp_path / "explicit")
    found, expected = weights(folder.path), weights(explicit.path)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_phase_is_resumed_in_the_parts_it_began_in(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = recipe(*SMALL, phases=[PHASE | {"batch_size": "auto"}])
    has(monkeypatch, 0)
    expected = train(wanted, tmp_path / "whole")

    def stop(*_: object) -> None:
        raise Interrupted("stopped by the test", 15)

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr("thawlab.training.fit.train_phase", stop)
        train(wanted, tmp_path / "cut")
    has(monkeypatch, 1000)  # by now there is room for a whole step
    folder = train(wanted, tmp_path / "cut")
    found = weights(folder.path)
    assert all(torch.equal(found[name], value) for name, value in weights(expected.path).items())


def test_a_learning_rate_is_found_with_such_batches(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, 1000)
    assert range_test(recipe(*SMALL, phases=[PHASE | {"batch_size": "auto"}])).suggestion > 0


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ({"batch_size": "auto", "accumulate": 2}, 'accumulate: is found by batch_size = "auto"'),
        ({"batch_size": "automatic"}, 'must be a whole number of at least 1, or "auto"'),
        ({"batch_size": 0}, 'must be a whole number of at least 1, or "auto"'),
        ({"batch_size": True}, 'must be a whole number of at least 1, or "auto"'),
        ({"batch_size": 1.5}, 'must be a whole number of at least 1, or "auto"'),
    ],
)
def test_what_is_no_batch_size_is_refused(recipe: Make, phase: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        recipe(*SMALL, phases=[PHASE | phase])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process's peak of memory afresh")
@pytest.mark.parametrize(
    ("network", "size", "count", "batch_norm"),
    [("efficientnet_lite0", 64, 16, "train"), ("efficientnet_lite0", 64, 16, "eval"), ("resnet18", 96, 16, "train")],
)
def test_what_the_backward_pass_keeps_is_what_a_step_takes(network: str, size: int, count: int, batch_norm: str) -> None:
    script = """
import ctypes, json, sys, timm, torch
from thawlab.inference.folding import foldable
from thawlab.models.quicker import quicker
from thawlab.training.freezing import set_modes
network, size, count, batch_norm = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.manual_seed(0)
model = timm.create_model(network, num_classes=10).to(memory_format=torch.channels_last)
model = quicker(model, [(3, size, size)], foldable(model) if batch_norm == "eval" else ())
set_modes(model, batch_norm)
optimizer = torch.optim.AdamW(model.parameters())
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
def step(count, pack):
    images = torch.rand(count, 3, size, size).contiguous(memory_format=torch.channels_last)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        torch.nn.functional.cross_entropy(model(images), torch.zeros(count, dtype=torch.long)).backward()
    optimizer.step()
def kept(count):
    seen = {}
    def pack(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor
    step(count, pack)
    return sum(seen.values())
per_image = (kept(4) - kept(2)) / 2
ctypes.CDLL(None).malloc_trim(0)  # what was freed before would be taken again, and not show
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
step(count, lambda tensor: tensor)
print(json.dumps([status("VmHWM") - before, per_image * count]))
"""
    command = [sys.executable, "-c", script, network, str(size), str(count), batch_norm]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    peak, kept = json.loads(done.stdout)
    assert kept < 1.3 * peak + 16 * MIB and peak < 1.5 * kept + 48 * MIB
