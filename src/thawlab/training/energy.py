"""The processor's energy counters, where the system lets them be read (Linux's powercap, RAPL)."""

from __future__ import annotations

from pathlib import Path

_COUNTERS = Path("/sys/class/powercap")


def read_counters(root: Path = _COUNTERS) -> dict[str, tuple[int, int]]:
    """Return each processor package's counter in microjoules with the value at which it starts again; nothing where unreadable.

    Parts of a package have counters of their own, named like `intel-rapl:0:1`; they are in the package's already.
    """
    found = {}
    for zone in sorted(root.glob("*-rapl:*")):
        if zone.name.count(":") == 1:
            try:
                found[zone.name] = (
                    int((zone / "energy_uj").read_text()),
                    int((zone / "max_energy_range_uj").read_text()),
                )
            except (OSError, ValueError):
                continue
    return found


def joules_between(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float | None:
    """Return the joules that all packages took between two readings, each of which may have started again once."""
    shared = before.keys() & after.keys()
    if not shared:
        return None
    return sum((after[name][0] - before[name][0]) % max(after[name][1], 1) for name in shared) / 1e6
