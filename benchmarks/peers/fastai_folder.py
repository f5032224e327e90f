"""A folder of images as fastai's guide predicts it: `Learner.get_preds` on a `test_dl`.

Weights are random, which changes no time. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import fastai
import torch
from fastai.vision.all import CrossEntropyLossFlat, ImageDataLoaders, Learner, Resize, get_image_files
from torchvision.models import mobilenet_v2

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path, help="a folder with a sub-folder per class")
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--threads", type=int, required=True)
arguments = parser.parse_args()
torch.set_num_threads(arguments.threads)
loaders = ImageDataLoaders.from_folder(
    arguments.folder, valid_pct=0.2, seed=0, item_tfms=Resize(arguments.size), bs=64, num_workers=arguments.threads
)
learner = Learner(loaders, mobilenet_v2(num_classes=loaders.c), loss_func=CrossEntropyLossFlat())
files = get_image_files(arguments.folder)
with learner.no_bar():
    learner.get_preds(dl=loaders.test_dl(files[:64]))
    started = time.perf_counter()
    probabilities, _ = learner.get_preds(dl=loaders.test_dl(files))
spent = time.perf_counter() - started
print(json.dumps({"images": len(probabilities), "seconds": {"predict": spent}, "version": fastai.__version__}))
