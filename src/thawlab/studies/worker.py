"""A process that runs cells, one after the other, and keeps between them what they share: `python -m thawlab.studies.worker`.

It reads a JSON line per cell from standard input, {"recipe": FILE, "runs": FOLDER}, or {"stop": true} to interrupt the cell that
is running, and answers each cell with a JSON line. When standard input ends, as it does when the study's process dies, the cell
that is running is saved and the process ends: at most the running epoch is lost.
"""

import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from thawlab.errors import BusyError, Interrupted, ThawlabError, first_line


def main() -> None:
    """Serve until standard input ends."""
    from thawlab import process

    process.prepare()
    # Whatever a library prints must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the study's: it asks for a stop
    serve(sys.stdin, answers)
    process.leave(0)


def serve(orders: TextIO, answers: TextIO) -> None:
    """Run the cells that are ordered, and answer each."""
    from thawlab.memory import remembering

    waiting: queue.Queue[dict[str, Any] | None] = queue.Queue()
    ordered, executing, stopping = threading.Event(), threading.Event(), threading.Event()

    def listen() -> None:
        for line in orders:
            order = json.loads(line)
            if "stop" in order:
                stop()
            else:
                ordered.set()
                waiting.put(order)
        waiting.put(None)
        stop()

    def stop() -> None:
        if ordered.is_set():
            stopping.set()
            os.kill(os.getpid(), signal.SIGTERM)

    def receive(number: int, _frame: FrameType | None) -> None:
        if executing.is_set():
            raise Interrupted("stopped", number)

    signal.signal(signal.SIGTERM, receive)  # training handles it by itself; this is for the moments around it
    threading.Thread(target=listen, daemon=True).start()
    with remembering():
        while (order := waiting.get()) is not None:
            # Before a stop can raise: torch takes what is raised while it imports NumPy for a missing one, and goes on without.
            for name in ("thawlab.runner", "thawlab.plan.resolve"):
                importlib.import_module(name)
            try:
                executing.set()
                answer = {"status": "interrupted"} if stopping.is_set() else run_cell(Path(order["recipe"]), Path(order["runs"]))
            except Interrupted:
                answer = {"status": "interrupted"}
            finally:
                executing.clear()
            stopping.clear()
            ordered.clear()
            print(json.dumps(answer), file=answers, flush=True)


def run_cell(recipe: Path, runs: Path) -> dict[str, Any]:
    """Train the cell of a recipe and return how it ended: "finished", "interrupted", "busy" or "failed" with a reason."""
    from thawlab import runner
    from thawlab.plan.resolve import plan_of

    started = time.monotonic()
    try:
        folder = runner.train(plan_of(recipe, {}), runs)
    except Interrupted:
        return {"status": "interrupted"}
    except BusyError as error:
        return {"status": "busy", "reason": str(error)}
    except ThawlabError as error:
        return {"status": "failed", "reason": str(error)}
    except Exception as error:  # whatever fails, the other cells go on
        return {"status": "failed", "reason": f"{type(error).__name__}: {first_line(error)}"}
    return {"status": "finished", "run": folder.name, "seconds": round(time.monotonic() - started, 3)}


if __name__ == "__main__":
    main()
