"""Work on hostile input in processes of their own, with limits: what kills one, hangs it or fills it is known by its number.

A child works through numbers in several threads, notes each before it begins, and prints what it saw as JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
# Seconds without progress after which a child is killed: well over what is a find, since other work may share the machine.
_DEAD = 60.0
_SLOT = struct.Struct("qd")
# Memory that a child may ask for beside what it starts with; what is a find is far below it.
_ADDRESSES = 12 << 30
_NOTED = 48 << 20


class Trials(NamedTuple):
    """What became of hostile input.

    Attributes:
        tried: how many.
        outcomes: how many ended how.
        wrong: number and what went wrong: an error that is not ours, a crash, a hang.
        seconds: the worst one's, by the clock of its thread, with its number.
        rise: the most that memory rose above its start, in bytes.
        finds: numbers at work whenever memory rose by 48 MiB and more, with the rise.
    """

    tried: int
    outcomes: Counter[str]
    wrong: list[tuple[int, str]]
    seconds: tuple[float, int]
    rise: int
    finds: list[tuple[list[int], int]]


def joined(parts: Sequence[Trials]) -> Trials:
    """Return several trials as one."""
    outcomes: Counter[str] = Counter()
    for part in parts:
        outcomes += part.outcomes
    return Trials(
        sum(part.tried for part in parts),
        outcomes,
        [item for part in parts for item in part.wrong],
        max((part.seconds for part in parts), default=(0.0, -1)),
        max((part.rise for part in parts), default=0),
        [item for part in parts for item in part.finds],
    )


def memory(key: str) -> int:
    """Return a figure of this process's memory in bytes: VmRSS, VmHWM (Linux)."""
    with Path("/proc/self/status").open() as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(key))


def work(task: Callable[[int], str], numbers: Sequence[int], threads: int, slots: mmap.mmap | None = None) -> Trials:
    """Do the task for all numbers in this process; it returns how one ended, and raises only what is wrong."""
    pending, lock = iter(numbers), threading.Lock()
    result = Trials(len(numbers), Counter(), [], (0.0, -1), 0, [])
    at_work, worst, risen = {}, [(0.0, -1)], [0]
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
    start = memory("VmRSS")

    def run(place: int) -> None:
        while True:
            with lock:
                number = next(pending, None)
                at_work[place] = number
            if slots is not None:
                _SLOT.pack_into(slots, place * _SLOT.size, -1 if number is None else number, time.time())
            if number is None:
                return
            began = time.thread_time()
            try:
                outcome = task(number)
            except BaseException as error:
                outcome = "wrong"
                result.wrong.append((number, f"{type(error).__name__}: {str(error)[:200]}"))
            seconds, rise = time.thread_time() - began, memory("VmHWM") - start
            with lock:
                result.outcomes[outcome] += 1
                worst[0] = max(worst[0], (seconds, number))
                if rise > risen[0] + _NOTED:
                    result.finds.append(([one for one in at_work.values() if one is not None], rise))
                risen[0] = max(risen[0], rise)

    workers = [threading.Thread(target=run, args=(place,)) for place in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return result._replace(seconds=worst[0], rise=risen[0])


def children(task: str, numbers: Sequence[int], threads: int, portion: int = 2500, argument: str = "") -> Iterator[Trials]:
    """Have the numbers worked through by children, one after the other, and yield what each saw.

    Args:
        task: "module:function" beside this file; given `argument`, the function returns the task of a child.
        numbers: of the hostile inputs.
        threads: of a child.
        portion: numbers of one child.
        argument: for the function.
    """
    left = list(numbers)
    while left:
        batch, left = left[:portion], left[portion:]
        found, lost = _child(task, batch, threads, argument)
        if found is not None:
            yield found
            continue
        if len(batch) == 1:
            yield Trials(1, Counter(wrong=1), [(batch[0], lost[0])], (0.0, -1), 0, [])
            continue
        suspects = lost[1]
        yield from children(task, suspects, 1, 1, argument)  # which of them was it?
        left = [number for number in batch if number not in suspects] + left


def _child(task: str, batch: Sequence[int], threads: int, argument: str) -> tuple[Trials | None, tuple[str, list[int]]]:
    """Return what a child saw or, where it died, how, and the numbers that it was at work on."""
    with tempfile.TemporaryDirectory() as folder:
        order, slots = Path(folder, "order.json"), Path(folder, "slots")
        order.write_text(json.dumps({"task": task, "numbers": list(batch), "threads": threads, "argument": argument}))
        slots.write_bytes(_SLOT.pack(-1, 0.0) * threads)
        command = [sys.executable, str(HERE / "ordeal.py"), str(order), str(slots)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
        told: list[str] = []
        reader = threading.Thread(target=lambda: told.extend(child.communicate()))
        reader.start()
        hung = False
        while reader.is_alive():
            reader.join(0.5)
            began = [at for number, at in _SLOT.iter_unpack(slots.read_bytes()) if number >= 0]
            if began and time.time() - min(began) > _DEAD:
                hung = True
                child.kill()
        suspects = [number for number, _ in _SLOT.iter_unpack(slots.read_bytes()) if number >= 0]
    if child.returncode == 0:
        plain = json.loads(told[0].splitlines()[-1])
        return Trials(**{**plain, "outcomes": Counter(plain["outcomes"]), "wrong": [(k, why) for k, why in plain["wrong"]]}), (
            "",
            [],
        )
    how = f"hung for {_DEAD:.0f} s" if hung else f"the process ended with {child.returncode}: {told[1][-200:]}"
    if not suspects:
        raise RuntimeError(f"{task}: a child failed before it began: {told[1][-2000:]}")
    return None, (how, suspects)


def main(order: dict[str, Any], slots: Path) -> None:
    """Be a child."""
    import resource

    from thawlab import process

    process.prepare()  # as the program does, before anything large is imported
    sys.path.insert(0, str(HERE))
    module, _, function = order["task"].partition(":")
    task: Callable[[int], str] = getattr(importlib.import_module(module), function)(order["argument"])
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _ADDRESSES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with slots.open("r+b") as file, mmap.mmap(file.fileno(), 0) as shared:
        found = work(task, order["numbers"], order["threads"], shared)
    print(json.dumps(found._asdict()), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
