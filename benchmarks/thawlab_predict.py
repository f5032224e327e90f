"""A folder of images through `thawlab predict --out`, without the start of the program.

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from thawlab import process


def main() -> None:
    """Predict the folder and print how long it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--engine", help="an export of the run that computes")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    process.prepare()  # as the program does, before torch is imported
    import torch

    import thawlab
    from thawlab.api import predict_into
    from thawlab.deploy.predictor import image_files

    torch.set_num_threads(arguments.threads)
    files = image_files([arguments.folder])
    thawlab.load(arguments.run, device="cpu", engine=arguments.engine).predict_many(files[:64])
    started = time.perf_counter()
    settings = {"device": "cpu", "engine": arguments.engine, "force": True, "workers": arguments.threads}
    predict_into(arguments.run, [arguments.folder], arguments.out, **settings)
    spent = time.perf_counter() - started
    print(json.dumps({"images": len(files), "seconds": {"predict": spent}, "version": thawlab.__version__}))


if __name__ == "__main__":
    main()
