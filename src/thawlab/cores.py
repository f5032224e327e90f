"""How many cores there are for this process, which may be fewer than the machine has."""

import os


def usable_cores() -> int:
    """Return how many cores this process may keep busy.

    These are the ones it is pinned to, no more than its control group's quota (a container's limit), and no more than
    `OMP_NUM_THREADS` where that is a number. Threads beyond that take turns on a core and wait for each other in every step.
    """
    import joblib

    cores: int = joblib.cpu_count()
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(cores, int(wanted)) if wanted.isdecimal() and int(wanted) > 0 else cores
