"""The plain PyTorch loop: torchvision transforms in a DataLoader, a timm model, one optimiser step per batch.

Written as PyTorch's transfer-learning tutorial writes it. Weights are random, which changes no time. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

parser = argparse.ArgumentParser()
parser.add_argument("data", help="npz with x_train, y_train, x_test, y_test (uint8 32 px)")
parser.add_argument("--model", default="mobilenetv2_100")
parser.add_argument("--size", type=int, default=96)
parser.add_argument("--head-epochs", type=int, default=0)
parser.add_argument("--all-epochs", type=int, default=0)
parser.add_argument("--stage-epochs", type=int, default=0)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--dropout", type=float, default=0.2)
parser.add_argument("--augment", action="store_true")
parser.add_argument("--fixed", action="store_true", help="BatchNorm keeps its statistics")
arguments = parser.parse_args()
torch.manual_seed(0)


class Images(Dataset):
    """Arrays as Pillow images, as torchvision.datasets.CIFAR10 gives them."""

    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


steps = [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip()] if arguments.augment else []
if arguments.size != 32:
    steps.append(transforms.Resize(arguments.size))
steps += [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
plain = steps[2:] if arguments.augment else steps
with np.load(arguments.data) as table:
    train = Images(table["x_train"], table["y_train"], transforms.Compose(steps))
    test = Images(table["x_test"], table["y_test"], transforms.Compose(plain))
loader = DataLoader(train, arguments.batch_size, shuffle=True, num_workers=2, persistent_workers=True)


def build() -> nn.Module:
    """The network with a new head."""
    if arguments.model == "resnet20":
        from thawlab.models.classifier import Classifier, make_head
        from thawlab.models.small import backbones

        return Classifier(backbones.get("resnet20")(32), make_head(64, [], [], 10))
    return timm.create_model(arguments.model, pretrained=False, num_classes=10, drop_rate=arguments.dropout)


def fit(model: nn.Module, epochs: int, rate: float) -> float:
    """Train; returns the seconds."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], rate)
    criterion = nn.CrossEntropyLoss()
    started = time.perf_counter()
    for _ in range(epochs):
        model.train()
        if arguments.fixed:
            for layer in model.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        for inputs, labels in loader:
            optimizer.zero_grad()
            criterion(model(inputs), labels).backward()
            optimizer.step()
    return time.perf_counter() - started


network = build()
seconds = {}
if arguments.head_epochs:
    for parameter in network.parameters():
        parameter.requires_grad = False
    for parameter in network.get_classifier().parameters():
        parameter.requires_grad = True
    seconds["head"] = fit(network, arguments.head_epochs, 1e-3)
if arguments.stage_epochs:
    last = ("blocks.6.", "conv_head", "bn2", "classifier")
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.startswith(last)
    seconds["stage"] = fit(network, arguments.stage_epochs, 1e-4)
if arguments.all_epochs:
    for parameter in network.parameters():
        parameter.requires_grad = True
    seconds["all"] = fit(network, arguments.all_epochs, 1e-4)
started = time.perf_counter()
network.eval()
with torch.no_grad():
    hits = sum(int((network(x).argmax(1) == y).sum()) for x, y in DataLoader(test, 256, num_workers=2))
seconds["evaluate"] = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}"
print(json.dumps({"seconds": seconds, "peak_mib": peak, "accuracy": hits / len(test), "versions": versions}))
