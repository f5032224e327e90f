"""Processes that train together: what each takes, and what they tell one another."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import outputs, start

from thawlab.errors import UsageError
from thawlab.training.world import World, device_of, world_of


@given(st.integers(1, 9), st.integers(1, 100))
def test_the_shares_are_all_rows_once_and_differ_by_one_at_most(size: int, count: int) -> None:
    shares = [World(rank, size).share(count) for rank in range(size)]
    counted = [row for share in shares for row in range(count)[share.rows][: share.counted]]
    assert counted == list(range(count))
    assert max(share.counted for share in shares) - min(share.counted for share in shares) <= 1
    assert all(share.last > share.first for share in shares)  # nobody is without a row to compute with
    assert all(share.counted == share.last - share.first for share in shares if share.counted)


def test_one_process_exchanges_nothing() -> None:
    world, layer = World(), torch.nn.BatchNorm1d(3)
    assert world.total([1.5, 2.0]) == [1.5, 2.0]
    assert world.agreed("a") == "a"
    assert world.largest(3) == 3
    assert world.parallel(layer) is layer
    world.copy_buffers(layer)
    world.wait()


def test_torchrun_says_who_a_process_is() -> None:
    assert world_of({}) == World()
    variables = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert world_of(variables) == World(3, 4, 1, 2)
    assert not world_of(variables).writes


@pytest.mark.parametrize("wrong", [{"RANK": "4"}, {"RANK": "one"}, {"LOCAL_RANK": None}])
def test_variables_that_do_not_fit_are_refused(wrong: dict[str, str | None]) -> None:
    variables = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", **wrong}
    with pytest.raises(UsageError, match="torchrun's variables do not fit together"):
        world_of({name: value for name, value in variables.items() if value is not None})


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert device_of(World(5, 8, 1, 2), torch.device("cuda")) == torch.device("cuda", 1)
    assert chosen == [1]
    with pytest.raises(UsageError, match="this machine has 2 GPUs"):
        device_of(World(2, 3, 2, 3), torch.device("cuda"))
    assert device_of(World(2, 3, 2, 3), torch.device("cpu")) == torch.device("cpu")


EXCHANGE = """
import json, numpy as np, torch
from thawlab.training.world import joined, world_of
world = world_of()
with joined(world, torch.device("cpu")):
    layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    norm = torch.nn.BatchNorm2d(4)
    torch.nn.init.constant_(layer.weight, float(world.rank))
    layer.weight.data[0, 1, 2, 2] = 7.0 + world.rank
    norm.running_mean += world.rank + 1
    world.copy_tensors(layer)
    world.copy_buffers(norm)
    rows = {count: np.arange(2.0 * count, dtype=np.float32).reshape(count, 2) for count in (1, 2, 7, 9)}
    gathered = {count: world.gathered(all_rows[world.share(count).rows], count).tolist() for count, all_rows in rows.items()}
    print(json.dumps({
        "total": world.total([world.rank, 1.0]), "agreed": world.agreed(["of", world.rank]),
        "largest": world.largest(5 * world.rank),
        "weights": layer.weight.sum().item(), "corner": layer.weight[0, 1, 2, 2].item(), "mean": norm.running_mean.tolist(),
        "gathered": gathered,
    }))
"""


def test_three_processes_tell_one_another_what_they_have() -> None:
    said = [json.loads(text) for text in outputs(start(3, ["-c", EXCHANGE]))]
    for one in said:
        assert one["total"] == [3.0, 3.0]
        assert one["agreed"] == ["of", 0]
        assert one["largest"] == 10
        assert one["weights"] == one["corner"] == 7.0
        assert one["mean"] == [1.0] * 4
        for count, rows in one["gathered"].items():
            assert rows == [[2.0 * k, 2.0 * k + 1] for k in range(int(count))]


SYNCED = """
import json, torch
from torch import nn
from thawlab.training.synced import SyncedBatchNorm
from thawlab.training.world import joined, world_of

def trained(images, counts, synced):
    torch.manual_seed(0)
    maps = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten())
    network = nn.Sequential(maps, nn.Linear(5 * 16, 4), nn.BatchNorm1d(4)).double()
    inputs = images.clone().requires_grad_()
    if synced:
        with SyncedBatchNorm(counts):
            outputs = network(inputs)
    else:
        outputs = network(inputs)
    (outputs.square() * torch.arange(4.0, dtype=torch.float64)).sum().mul(float(counts)).backward()
    return outputs, inputs.grad, network

world = world_of()
images = torch.rand(7, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
with joined(world, torch.device("cpu")):
    worst = 0.0
    for count in (7, world.size - 1):
        share = world.share(count)
        whole, gradient, single = trained(images[:count], True, synced=False)
        own, own_gradient, network = trained(images[:count][share.rows], share.counted > 0, synced=True)
        for parameter in network.parameters():
            torch.distributed.all_reduce(parameter.grad)
        pairs = [(a.grad, b.grad) for a, b in zip(network.parameters(), single.parameters())]
        pairs += list(zip(network.buffers(), single.buffers()))
        if share.counted:
            pairs += [(own, whole[share.rows]), (own_gradient, gradient[share.rows])]
        worst = max([worst, *(float((a - b).abs().max() / b.abs().max().clamp_min(1e-3)) for a, b in pairs)])
    print(json.dumps(worst))
"""


def test_batch_norm_over_all_processes_is_that_of_one_large_batch() -> None:
    """Outputs, gradients of images and weights, and running statistics; also where one process has no share of the batch."""
    assert max(json.loads(text) for text in outputs(start(3, ["-c", SYNCED]))) < 1e-6
