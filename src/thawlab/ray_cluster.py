"""Ray clusters: how one is reached, and how a folder travels to a machine that does not see it."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thawlab.cores import usable_cores
from thawlab.errors import ThawlabError, first_line
from thawlab.registry import optional

_CONNECT_SECONDS = 10.0


def connect(address: str) -> Any:
    """Connect this process to a Ray cluster, and return Ray's module.

    Args:
        address: of the cluster, as Ray takes it ("auto", "HOST:6379", "ray://…"), or "local" for one on this machine.

    Raises:
        UsageError: if Ray is not installed.
        ThawlabError: if there is no such cluster.
    """
    ray = optional("ray", "ray", "--ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # GPUs are left as they are where none is asked for
    _check_reachable(address)
    own: dict[str, Any] = {"address": "local", "num_cpus": usable_cores(), "include_dashboard": False}
    try:
        ray.init(**(own if address == "local" else {"address": address}), logging_level="error", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ThawlabError(f"--ray {address}: there is no such cluster ({first_line(error)})") from None
    return ray


def _check_reachable(address: str) -> None:
    """Refuse an address at which nobody listens, for which Ray itself would wait for minutes.

    Raises:
        ThawlabError: if so.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ThawlabError(f"--ray {address}: there is no such cluster ({first_line(error)})") from None


def archived(folder: Path, only: Sequence[str] = ("",)) -> bytes:
    """Return a folder, or some of what is in it, as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name in only:
            archive.add(folder / name, arcname=f"{folder.name}/{name}".rstrip("/"))
    return buffer.getvalue()


def unpacked(archive: bytes, parent: Path) -> None:
    """Write a folder that came as an archive into another one; what is there already stays.

    Raises:
        OSError: if it cannot be written.
        TarError: if it is damaged, or holds anything but files within a folder.
        EOFError: if it was cut off.
    """
    with tempfile.TemporaryDirectory(prefix=".coming-", dir=parent) as place:
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            opened.extractall(place, filter="data")
        for folder in Path(place).iterdir():
            if not (parent / folder.name).exists():
                folder.rename(parent / folder.name)
