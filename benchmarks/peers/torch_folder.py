"""A folder of JPEGs as PyTorch's tutorial reads it: `ImageFolder` with torchvision's transforms in a `DataLoader`.

Weights are random, which changes no time. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import timm
import torch
import torchvision
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

parser = argparse.ArgumentParser()
parser.add_argument("folder", help="a folder with a sub-folder per class")
parser.add_argument("--task", choices=["input", "predict"], required=True)
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--epochs", type=int, default=3)
arguments = parser.parse_args()
steps = [
    transforms.Resize((arguments.size, arguments.size)),
    transforms.ToTensor(),
    transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
]
folder = ImageFolder(arguments.folder, transforms.Compose(steps))
loader = DataLoader(folder, 64, shuffle=arguments.task == "input", num_workers=2, persistent_workers=True)
seconds = {}
if arguments.task == "input":
    later = []
    for epoch in range(arguments.epochs):
        started = time.perf_counter()
        for batch, _ in loader:
            batch[0, 0, 0, 0].item()
        spent = time.perf_counter() - started
        if epoch == 0:
            seconds["first"] = spent
        else:
            later.append(spent)
    seconds["later"] = sum(later) / len(later)
else:
    network = timm.create_model("mobilenetv2_100", pretrained=False, num_classes=10).eval()
    started = time.perf_counter()
    with torch.inference_mode():
        for batch, _ in loader:
            network(batch).softmax(1).topk(3)
    seconds["predict"] = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}"
print(json.dumps({"seconds": seconds, "peak_mib": peak, "versions": versions}))
