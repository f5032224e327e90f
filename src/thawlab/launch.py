"""One training on several devices of this machine: a process for each, started and watched by torch's own launcher.

Each process runs this module: it reads the recipe and the folder of all runs, takes its share, and tells in a file how it failed.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thawlab import process
from thawlab.cores import usable_cores
from thawlab.errors import Interrupted, ThawlabError, UsageError, first_line

if TYPE_CHECKING:
    from thawlab.plan.resolve import Plan

_WATCH_SECONDS = 0.1
_RECIPE = "recipe.toml"


def train_on(devices: int, plan: Plan, runs: Path) -> None:
    """Train a plan with a process for each of so many devices; the first of them writes the run.

    On a CPU the processes share its cores.

    Raises:
        UsageError: if there are fewer devices, or the recipe or the data are wrong.
        Interrupted: when a signal asked to stop; the state is saved.
        ThawlabError: if something failed on the way, or one of the processes ended.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _check(devices, plan)
    # What its agent and rendezvous say is for those who run clusters.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // devices)))
    with tempfile.TemporaryDirectory(prefix="thawlab-devices-") as place:
        (Path(place) / _RECIPE).write_text(plan.recipe.to_toml(), encoding="utf-8")
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=_WATCH_SECONDS,
        )
        try:
            elastic_launch(config, sys.executable)("-m", "thawlab.launch", place, str(runs.resolve()))
        except SignalException as stopped:
            raise Interrupted("saved; run the same command to resume", int(stopped.sigval)) from None
        except ChildFailedError as error:
            raise _told(Path(place), error) from None


def _check(devices: int, plan: Plan) -> None:
    import torch

    from thawlab.environment import choose_device

    if "WORLD_SIZE" in os.environ:
        raise UsageError("--devices: torchrun has started the processes already; leave the option out")
    if devices < 1:
        raise UsageError(f"--devices {devices}: must be at least 1")
    device = choose_device(plan.recipe.system.device)
    if device.type == "mps":
        raise UsageError("--devices: there is one device of the kind mps")
    count = torch.cuda.device_count() if device.type == "cuda" else usable_cores()
    if devices > count:
        what = "GPUs" if device.type == "cuda" else "cores"
        raise UsageError(f"--devices {devices}: this machine has {count} {what}")


def _told(place: Path, error: Any) -> BaseException:
    """Return why a training failed: which process was killed, or what the first one told that did not only miss another."""
    rank, failure = error.get_first_failure()
    if failure.exitcode >= 0:
        told = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(place.glob("failure-*.json"))]
        for one in (one for one in told if not one["alone"]):
            code, message = one["exit_code"], one["message"]
            return Interrupted(message, code - 128) if code > 128 else (UsageError if code == 2 else ThawlabError)(message)
    how = f"was killed by signal {-failure.exitcode}" if failure.exitcode < 0 else f"ended with {failure.exitcode}"
    lost = "nothing up to the last checkpoint is lost, and the same command continues"
    return ThawlabError(f"process {rank} of this training {how}; {lost}")


def _main(place: Path, runs: Path) -> int:
    """Train as one of the processes, and tell how it failed."""
    process.prepare()
    process.end_with(os.getppid(), signal.SIGTERM)  # it is saved, and stops, when nobody watches it any more
    from thawlab import runner
    from thawlab.plan.resolve import plan_of
    from thawlab.training.world import LeftAloneError

    try:
        runner.train(plan_of(place / _RECIPE, {}), runs)
    except (ThawlabError, Interrupted) as error:
        code, message, alone = error.exit_code, str(error), isinstance(error, LeftAloneError)
    except Exception as error:
        import traceback

        traceback.print_exc()
        code, message, alone = 1, f"{type(error).__name__}: {first_line(error)}", False
    else:
        return 0
    rank = process.rank()
    told = {"rank": rank, "exit_code": code, "message": message, "alone": alone}
    (place / f"failure-{rank}.json").write_text(json.dumps(told), encoding="utf-8")
    return code


if __name__ == "__main__":
    process.leave(_main(Path(sys.argv[1]), Path(sys.argv[2])))
