"""What a result may depend on besides its recipe: the device, the number of threads, versions and the machine."""

import ctypes
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


@contextmanager
def deterministic(threads: int | None) -> Iterator[None]:
    """Make equal inputs give equal bits on this machine within; afterwards the process is as before, random state included.

    Computing takes as many `threads`, or as there are cores for this process if None.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, when CUDA's library starts
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill, count = torch.utils.deterministic.fill_uninitialized_memory, torch.get_num_threads()  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # nothing here reads such memory
    torch.set_num_threads(threads or usable_cores())
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.set_num_threads(count)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there is too little memory, on the host or on a device."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "bad allocation")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


def release_memory() -> None:
    """Give freed memory back to the system: reading data and trial steps leave behind what training never asks for."""
    if "pyarrow" in sys.modules:
        import pyarrow

        pyarrow.default_memory_pool().release_unused()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


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
