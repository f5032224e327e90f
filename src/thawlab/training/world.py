"""The processes that train one run together, each on a device of its own: what each takes, and what they tell one another.

`torchrun` (or `thawlab train --devices N`) starts them; they find each other through its environment variables. A batch of the
recipe is shared out among them, so that neither the order of samples nor a step depends on how many there are.
"""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, final

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from thawlab.errors import Interrupted, ThawlabError, UsageError
from thawlab.training.interruption import Interruption

T = TypeVar("T")
# A process that ends is noticed at once; one that is alive may take long, as the one that judges while the others wait.
_PATIENCE = timedelta(days=7)
_DDP_KEYS = inspect.signature(DistributedDataParallel).parameters
Floats = npt.NDArray[np.float32]


class Share(NamedTuple):
    """What one process takes of some rows: at least one; where there are fewer rows than processes, one may count nothing."""

    first: int
    last: int
    counted: int

    @property
    def rows(self) -> slice:
        """The rows."""
        return slice(self.first, self.last)


@final
@dataclass(frozen=True)
class World:
    """The processes that train together; by default this one alone, for which nothing is exchanged.

    Attributes:
        rank: number of this process; that of number 0 writes the run.
        size: how many there are.
        local_rank: number of this process on its machine.
        local_size: how many are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes the run."""
        return self.rank == 0

    def share(self, count: int) -> Share:
        """Return which of `count` rows this process takes; the shares differ by at most one row."""
        first, last = (number * count // self.size for number in (self.rank, self.rank + 1))
        return Share(first, last, last - first) if last > first else Share(min(first, count - 1), min(first, count - 1) + 1, 0)

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sums of some numbers over all processes."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(value) for value in sums]

    def agreed(self, value: T) -> T:
        """Return what process 0 gave; the others may have found something else."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0)
        agreed: T = values[0]
        return agreed

    def largest(self, value: int) -> int:
        """Return the largest of the numbers that the processes give."""
        if self.size == 1:
            return value
        most = torch.tensor(value)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)

    def gathered(self, own: Floats, count: int) -> Floats:
        """Return `count` rows, of which each process gives its share, in order; a row that counts nothing is left out.

        Args:
            own: the rows of this process's share, float32.
            count: of all rows.
        """
        if self.size == 1:
            return own
        padded = torch.zeros(-(-count // self.size), *own.shape[1:])
        counted = self.share(count).counted
        padded[:counted] = torch.from_numpy(own[:counted])
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        counts = (World(rank, self.size).share(count).counted for rank in range(self.size))
        return torch.cat([part[:counted] for part, counted in zip(parts, counts, strict=True)]).numpy()

    def copy_buffers(self, module: nn.Module) -> None:
        """Give all processes the buffers of process 0: statistics that each has from its own images."""
        self._copy(module.buffers())

    def copy_tensors(self, module: nn.Module) -> None:
        """Give all processes the parameters and buffers of process 0."""
        self._copy(itertools.chain(module.parameters(), module.buffers()))

    @torch.no_grad()
    def _copy(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors if self.size > 1 else ():
            sent = tensor.contiguous()  # a channels-last tensor is sent in the order of its dimensions
            dist.broadcast(sent, src=0)
            if sent is not tensor:
                tensor.copy_(sent)

    def parallel(self, module: nn.Module) -> nn.Module:
        """Return a module whose gradients are averaged over all processes as they are computed; itself where there is one."""
        if self.size == 1:
            return module
        # Statistics are copied once an epoch, before they are used; to copy them in every step would change nothing.
        key = "forward_sync_buffers" if "forward_sync_buffers" in _DDP_KEYS else "broadcast_buffers"  # its earlier name
        options: dict[str, Any] = {key: False}
        return DistributedDataParallel(module, **options)

    def unfinished(self, module: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Return a context in which gradients add up in each process, unless they are the last of a step."""
        return nullcontext() if last or not isinstance(module, DistributedDataParallel) else module.no_sync()

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


def world_of(variables: Mapping[str, str] = os.environ) -> World:
    """Return what `torchrun` says of this process in its environment variables.

    Raises:
        UsageError: if only some of them are set, or they are no numbers.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    values = [variables.get(name) for name in names]
    if values[1] is None:
        return World()
    if not all(value is not None and value.isdecimal() for value in values) or int(values[0] or 0) >= int(values[1] or 0):
        said = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        raise UsageError(f"torchrun's variables do not fit together ({said}); start with torchrun, or unset WORLD_SIZE")
    return World(*(int(value or 0) for value in values))


def device_of(world: World, device: torch.device) -> torch.device:
    """Return the device of one process: on a machine with several GPUs, each has its own.

    Raises:
        UsageError: if there are fewer GPUs than processes.
    """
    if world.size == 1 or device.type != "cuda":
        return device
    if world.local_rank >= (count := torch.cuda.device_count()):
        raise UsageError(f"{world.size} processes train together, but this machine has {count} GPUs; start one for each")
    torch.cuda.set_device(world.local_rank)
    return torch.device("cuda", world.local_rank)


class LeftAloneError(ThawlabError):
    """Another of the processes that train together ended."""


@contextmanager
def joined(world: World, device: torch.device) -> Iterator[None]:
    """Let the processes of a world find each other, and part at the end.

    Raises:
        ThawlabError: if they cannot.
    """
    if world.size == 1:
        yield
        return
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ThawlabError(f"the {world.size} processes that should train together do not find each other: {first}") from None
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def noticing(interruption: Interruption) -> Iterator[None]:
    """Say in words where another of the processes that train together ended.

    Raises:
        Interrupted: if it stopped for a signal that reached this one, too.
        LeftAloneError: if it ended otherwise.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_broken_connection(error):
            raise
        if interruption.requested is not None:  # it stopped for the same signal, a moment earlier
            raise Interrupted("saved by another process; run the same command to resume", interruption.requested) from None
        raise LeftAloneError(
            "another process of this training ended; nothing up to the last checkpoint is lost, and the same command continues"
        ) from error


def _is_broken_connection(error: RuntimeError) -> bool:
    words = ("gloo", "connection closed by peer", "connection reset by peer", "nccl", "broken pipe", "connection refused")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)
