"""What a result may depend on besides its recipe: the device, the number of threads, versions and the machine."""

import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from thawlab.cores import usable_cores
from thawlab.errors import UsageError, listed, nearest
from thawlab.heap import give_back_freed


def choose_device(name: str) -> torch.device:
    """Return the device with a name; "auto" is a GPU if there is one, else the CPU.

    Raises:
        UsageError: if the name is no device of this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    available = {"auto": False, "cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = name.split(":", maxsplit=1)[0]
    if kind not in available:
        known = nearest(kind, available) or f" (known: {listed(available)})"
        raise UsageError(f"system.device: there is no device '{name}'{known}")
    if not available[kind]:
        raise UsageError(f"system.device: '{name}' is not available on this machine; use auto or cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"system.device: '{name}' is not a device; a number may follow the colon, for example cuda:0") from None
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if device.index is not None and device.index >= count:
        raise UsageError(f"system.device: there is no '{name}'; this machine has {count} of the kind, numbered from 0")
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies matrices in bfloat16 itself; elsewhere that is emulated, and slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


@contextmanager
def deterministic(threads: int | None) -> Iterator[None]:
    """Make equal inputs give equal bits on this machine within; afterwards the process is as before, random state included.

    Computing takes as many `threads`, or as there are cores for this process if None.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, when CUDA's library starts
    before = torch.get_deterministic_debug_mode()
    fill, count = torch.utils.deterministic.fill_uninitialized_memory, torch.get_num_threads()  # type: ignore[attr-defined]
    torch.set_deterministic_debug_mode("error")  # `use_deterministic_algorithms`, which imports torch's compiler first
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # nothing here reads such memory
    torch.set_num_threads(threads or usable_cores())
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        torch.set_deterministic_debug_mode(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.set_num_threads(count)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Let torch compute on some threads within, and on as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there is too little memory, on the host or on a device."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "bad allocation")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


def free_memory(device: torch.device) -> int:
    """Return how many bytes this process can still take on a device.

    On the host that is what the system has available and what the limits of its control groups and of the process leave.
    """
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + idle
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    groups = _left_by_control_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return max(0, min(_available(), _left_by_limit(), *groups))


def _available() -> int:
    """Return the available memory of the system in bytes; half of all where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _left_by_control_groups(membership: Path, root: Path) -> list[int]:
    """Return what each limited control group above this process leaves in bytes: version 2, or the `memory` tree of version 1."""
    try:
        entries = [line.split(":", 2) for line in membership.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return []
    left = []
    for _, controllers, path in entries:
        if controllers not in ("", "memory"):
            continue
        top = root / controllers
        limit, usage = ("memory.max", "memory.current") if not controllers else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        place = top / path.lstrip("/")
        for folder in (place, *place.parents):
            left += _left_by(folder, limit, usage)
            if folder == top:
                break
    return left


def _left_by(folder: Path, limit: str, usage: str) -> list[int]:
    """Return limit minus usage of one control group, where it has a limit; pages of files that can be dropped count as free."""
    try:
        most, used = ((folder / name).read_text(encoding="ascii").strip() for name in (limit, usage))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return []
    droppable = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
    return [int(most) - int(used) + droppable] if most.isdecimal() else []


def _left_by_limit() -> int:
    """Return what `ulimit -v` leaves in bytes; as good as all where there is none."""
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return sys.maxsize
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return int(most)
    return int(most) - pages * resource.getpagesize()


def release_memory() -> None:
    """Give freed memory back to the system: reading data and trial steps leave behind what training never asks for."""
    if "pyarrow" in sys.modules:
        import pyarrow

        pyarrow.default_memory_pool().release_unused()
    give_back_freed()


def environment(system: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return what a result may depend on besides its recipe: versions, machine, device and threads."""
    from importlib.metadata import version

    packages = ["thawlab", "torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn", "safetensors"]
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "waiting": {name: os.environ[name] for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if name in os.environ},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "packages": {name: version(name) for name in packages},
        "system": dict(system),
    }


def device_name(device: torch.device) -> str:
    """Return the GPU's name, or the processor's with the instruction set that torch uses on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {processor_name()} {torch.backends.cpu.get_cpu_capability()}"


def processor_name() -> str:
    """Return the processor's name as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
