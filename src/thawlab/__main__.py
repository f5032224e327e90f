"""The program `thawlab`, also `python -m thawlab`: the command line without the waiting that a process need not do."""

from __future__ import annotations

import gc
import os
import sys
import warnings

# Importing torch allocates a million objects that all stay; looking for garbage among them takes a second.
_ALLOCATIONS_PER_COLLECTION = 100_000


def run() -> None:
    """Run the command line and leave at once: taking down torch's modules one by one takes longer than loading a model."""
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata in images that are read all the same
    from thawlab.cli.main import main

    code: object = 0
    try:
        main()
    except SystemExit as leaving:
        code = leaving.code
    # Everything that the verbs write is written and synced by now; only the streams hold something back.
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    if isinstance(code, str):
        print(code, file=sys.stderr, flush=True)
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    run()
