"""What imagededup and cleanvision say of planted copies, with their own defaults: a part of `tools/planted_duplicates.py`.

Both are installed beside (`pip install imagededup cleanvision`), never by thawlab. A pair counts as found where they name it
among the images that were copied and the copies; what else lies in the set changes nothing for a hash or a cosine.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from cleanvision import Imagelab
from imagededup.methods import CNN, PHash
from imagededup.utils import CustomModel
from planted_duplicates import Images, Planted, shares
from timm.data import create_transform, resolve_model_data_config


def _write(images: Images, copies: Planted, folder: Path) -> list[int]:
    """Write the images that were copied and the copies as PNG, and return the numbers of the former."""
    sources = np.unique(copies.sources).tolist()
    for number in sources:
        images[number].save(folder / f"image-{number}.png")
    for number, copy in enumerate(copies.images):
        copy.save(folder / f"copy-{number}.png")
    return sources


def _hits(copies: Planted, duplicates: dict[str, list[str]]) -> npt.NDArray[np.bool_]:
    return np.array([f"image-{source}.png" in duplicates[f"copy-{k}.png"] for k, source in enumerate(copies.sources.tolist())])


def _between_images(duplicates: dict[str, list[str]], sources: list[int], labels: npt.NDArray[np.int64] | None) -> dict[str, Any]:
    """Return how many pairs of the images that were copied are named, of all (of one class, where there are labels)."""
    kinds = np.zeros(len(sources), dtype=np.int64) if labels is None else labels[sources]
    counts = np.unique(kinds, return_counts=True)[1]
    kind_of = dict(zip(sources, kinds.tolist(), strict=True))
    named = 0
    for name, others in duplicates.items():
        if name.startswith("image-"):
            numbers = [int(other[6:-4]) for other in others if other.startswith("image-")]
            named += sum(kind_of[number] == kind_of[int(name[6:-4])] for number in numbers)
    total = int((counts * (counts - 1) // 2).sum())
    return {"pairs": total, "named": named // 2, "share": named / 2 / total}


def baselines(images: Images, copies: Planted, backbone: str | None, labels: npt.NDArray[np.int64] | None) -> dict[str, Any]:
    """Return for each tool the shares that it found, and the pairs of unchanged images of one class that it names."""
    found: dict[str, dict[str, list[str]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = _write(images, copies, folder)
        found["imagededup PHash"] = PHash(verbose=False).find_duplicates(image_dir=folder, max_distance_threshold=10)
        if backbone:
            model = timm.create_model(f"local-dir:{backbone}", pretrained=True, num_classes=0).eval()
            config = CustomModel(Path(backbone).name, model, create_transform(**resolve_model_data_config(model)))
            with torch.inference_mode():
                cnn = CNN(verbose=False, model_config=config)
                found["imagededup CNN"] = cnn.find_duplicates(image_dir=folder, min_similarity_threshold=0.9, num_sim_workers=0)
        lab = Imagelab(data_path=str(folder))
        lab.find_issues({"near_duplicates": {}, "exact_duplicates": {}}, n_jobs=1, verbose=False)
        found["cleanvision"] = {path.name: [] for path in folder.iterdir()}
        for kind in ("near_duplicates", "exact_duplicates"):
            for group in lab.info[kind]["sets"]:
                members = [Path(path).name for path in group]
                for member in members:
                    found["cleanvision"][member] += [other for other in members if other != member]
    return {
        tool: {"found": shares(copies, _hits(copies, said)), "unchanged images": _between_images(said, sources, labels)}
        for tool, said in found.items()
    }
