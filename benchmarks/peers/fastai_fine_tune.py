"""A folder of images as fastai's guide learns it: `vision_learner(...).fine_tune(epochs)`, with weights from a file.

Prints a JSON line after each epoch, with the accuracy on the validation images.
"""

from __future__ import annotations

import json
import os

from fastai.vision.all import Callback, ImageDataLoaders, Normalize, Resize, accuracy, set_seed, vision_learner
from fine_tune_task import parsed
from safetensors.torch import load_file

arguments = parsed()
set_seed(arguments.seed)


class Tell(Callback):
    """Print what was reached after each epoch, once fastai's recorder has it."""

    order = 60

    def after_epoch(self):
        print(json.dumps({"accuracy": float(self.recorder.values[-1][-1])}), flush=True)


loaders = ImageDataLoaders.from_folder(
    arguments.folder,
    train="train",
    valid="val",
    item_tfms=Resize(arguments.size),
    # `vision_learner` scales the input itself only for weights that it fetches.
    batch_tfms=Normalize.from_stats(arguments.mean, arguments.std),
    bs=64,
    num_workers=os.cpu_count(),
)
learner = vision_learner(loaders, arguments.model, metrics=accuracy, pretrained=False, cbs=Tell())
missing, _ = learner.model[0].model.load_state_dict(load_file(arguments.weights), strict=False)
assert not missing, missing
with learner.no_bar(), learner.no_logging():
    learner.fine_tune(arguments.epochs)
