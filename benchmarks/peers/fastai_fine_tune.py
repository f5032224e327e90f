"""A folder of images as fastai's guide learns it: `vision_learner(...).fine_tune(epochs)`, with weights from a file.

Prints a JSON line after each epoch, with the accuracy on the validation images.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import fastai
from fastai.vision.all import Callback, ImageDataLoaders, Resize, accuracy, set_seed, vision_learner
from safetensors.torch import load_file

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path, help="train/CLASS and val/CLASS")
parser.add_argument("--model", required=True, help="timm's name")
parser.add_argument("--weights", type=Path, required=True)
parser.add_argument("--size", type=int, required=True)
parser.add_argument("--epochs", type=int, required=True)
parser.add_argument("--seed", type=int, default=0)
arguments = parser.parse_args()
set_seed(arguments.seed)


class Tell(Callback):
    """Print what was reached after each epoch, once fastai's recorder has it."""

    order = 60

    def after_epoch(self):
        print(json.dumps({"accuracy": float(self.recorder.values[-1][-1])}), flush=True)


loaders = ImageDataLoaders.from_folder(
    arguments.folder, train="train", valid="val", item_tfms=Resize(arguments.size), bs=64, num_workers=os.cpu_count()
)
learner = vision_learner(loaders, arguments.model, metrics=accuracy, pretrained=False, cbs=Tell())
missing, _ = learner.model[0].model.load_state_dict(load_file(arguments.weights), strict=False)
assert not missing, missing
with learner.no_bar(), learner.no_logging():
    learner.freeze()
    learner.fine_tune(arguments.epochs)
print(json.dumps({"version": fastai.__version__}), flush=True)
