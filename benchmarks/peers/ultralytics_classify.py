"""A folder of images as Ultralytics' guide learns it: `YOLO(...).train(data=FOLDER)`, with its documented defaults.

Weights are random, since its own would be fetched from its site. Prints a JSON line after each epoch, with the accuracy on the
validation images.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_VERBOSE", "false")
from ultralytics import YOLO

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path, help="train/CLASS and val/CLASS")
parser.add_argument("--size", type=int, required=True)
parser.add_argument("--epochs", type=int, required=True)
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()


def tell(trainer) -> None:
    """Print what was reached after an epoch."""
    print(json.dumps({"accuracy": float(trainer.metrics["metrics/accuracy_top1"])}), flush=True)


model = YOLO("yolo11n-cls.yaml")
model.add_callback("on_fit_epoch_end", tell)
with tempfile.TemporaryDirectory() as place:
    model.train(
        data=str(arguments.folder.resolve()),
        epochs=arguments.epochs,
        imgsz=arguments.size,
        device="cpu",
        seed=arguments.seed,
        project=place,
        plots=False,
        verbose=False,
    )
