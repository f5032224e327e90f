"""A folder of images as PyTorch's transfer-learning tutorial learns it: ImageFolder, SGD with momentum, all layers.

Prints a JSON line after each epoch, with the accuracy on the validation images.
"""

from __future__ import annotations

import json
import os

import timm
import torch
from fine_tune_task import parsed
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

arguments = parsed()
torch.manual_seed(arguments.seed)

network = timm.create_model(arguments.model, num_classes=0)
missing, _ = network.load_state_dict(load_file(arguments.weights), strict=False)
assert not missing, missing
end = [transforms.ToTensor(), transforms.Normalize(arguments.mean, arguments.std)]
seen = transforms.Compose([transforms.RandomResizedCrop(arguments.size), transforms.RandomHorizontalFlip(), *end])
plain = transforms.Compose([transforms.Resize(arguments.size), transforms.CenterCrop(arguments.size), *end])
train = datasets.ImageFolder(str(arguments.folder / "train"), seen)
val = datasets.ImageFolder(str(arguments.folder / "val"), plain)
network.reset_classifier(len(train.classes))
loader = DataLoader(train, 64, shuffle=True, num_workers=os.cpu_count(), persistent_workers=True)
judged = DataLoader(val, 64, num_workers=os.cpu_count(), persistent_workers=True)
optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
for _ in range(arguments.epochs):
    network.train()
    for inputs, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    schedule.step()
    network.eval()
    with torch.no_grad():
        hits = sum(int((network(x).argmax(1) == y).sum()) for x, y in judged)
    print(json.dumps({"accuracy": hits / len(val)}), flush=True)
