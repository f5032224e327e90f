"""The report of a run: one self-contained HTML page, made from the run folder alone."""

from __future__ import annotations

import base64
import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup
from PIL import Image

from thawlab.errors import ThawlabError
from thawlab.evaluation.gradcam import overlay
from thawlab.evaluation.metrics.measures import most_confused
from thawlab.evaluation.predictions import Predictions, load_predictions
from thawlab.files import read_json, write_text
from thawlab.report import figures
from thawlab.report.style import for_file, for_page
from thawlab.run import RunFolder

_MISTAKES_SHOWN = 24


def write_report(folder: RunFolder) -> Path:
    """Write `report.html` and `figures/*.svg` of a finished run.

    Raises:
        ThawlabError: if a file of the run is missing or damaged; the message names it.
    """
    results = read_json(folder.results)
    data = read_json(folder.path / "data.json")
    environment = read_json(folder.path / "environment.json")
    rows = folder.read_metrics()
    test = load_predictions(folder.predictions("test"))
    recipe = folder.recipe
    try:
        drawn = {
            "distribution": figures.class_distribution(data),
            "curves": figures.learning_curves(rows, results["phases"]),
            "confusion": figures.confusion_matrix(results["test"]["confusion"], data["classes"]),
            "reliability": figures.reliability_diagram(test, results["test"]["temperature"], recipe.evaluation.ece_bins),
            "declining": figures.declining_curve(test, results["test"]["temperature"]),
        }
        for name, svg in drawn.items():
            write_text(folder.path / "figures" / f"{name}.svg", for_file(svg))
        shown = _images(folder, data["classes"], test, results["test"]["temperature"])
        page = (
            templates()
            .get_template("page.html")
            .render(
                run=folder.name,
                results={
                    "abstention": {},
                    "novelty": {},
                    "label_suspects": {"count": 0},
                    "near_duplicates": {},
                    **results,
                },  # runs of earlier versions lack them
                data={"leaks": {"count": 0}, **data},
                environment=environment,
                recipe=recipe,
                recipe_text=folder.recipe_file.read_text(encoding="utf-8"),
                # The SVG text comes from matplotlib, which escapes what it draws.
                figures={name: Markup(for_page(svg)) for name, svg in drawn.items()},
                samples=shown.samples,
                mistakes=shown.mistakes,
                confused=shown.confused,
                cells=shown.cells,
                suspects=[
                    {**entry, "url": url}
                    for entry, url in zip(results.get("label_suspects", {}).get("first", ()), shown.suspects, strict=False)
                ],
                leaks=[
                    {"pair": pair, "url": url}
                    for pair, url in zip(data.get("leaks", {}).get("pairs", ()), shown.leaks, strict=False)
                ],
                near=[
                    {**entry, "urls": shown.near[2 * place : 2 * place + 2]}
                    for place, entry in enumerate(results.get("near_duplicates", {}).get("first", ())[: len(shown.near) // 2])
                ],
                shares=figures.row_shares(results["test"]["confusion"]).tolist(),
                confusions=most_confused(results["test"]["confusion"]),
                peak_rate=max((row["images_per_second"] or 0 for row in rows), default=0),
            )
        )
    except (KeyError, UndefinedError) as error:
        raise ThawlabError(
            f"{folder.path}: its results lack {error}; was the run made by another version? Train it again"
        ) from None
    write_text(folder.report, page)
    return folder.report


def templates() -> Environment:
    """Return the pages' templates; everything put into them is escaped."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@final
@dataclass(frozen=True)
class _Shown:
    """The images that a run kept, as data URLs with what is to be said of them.

    Attributes:
        samples: of the training split.
        mistakes: the worst ones.
        confused: mistakes of each pair of classes that are confused most, by cell of the confusion matrix.
        cells: all kept mistakes by cell of the confusion matrix ("truth-prediction").
        suspects: images of suspected labels, in the order of results.json.
        leaks: images in two splits, in the order of data.json.
        near: near-duplicates between training and test split, pair after pair in the order of results.json.
    """

    samples: list[dict[str, Any]]
    mistakes: list[dict[str, Any]]
    confused: dict[str, list[dict[str, Any]]]
    cells: dict[str, list[dict[str, Any]]]
    suspects: list[str]
    leaks: list[str]
    near: list[str]


def _images(folder: RunFolder, classes: list[str], test: Predictions, temperature: float) -> _Shown:
    """Read the images that a run kept; those of earlier versions lack some."""
    try:
        with np.load(folder.images, allow_pickle=False) as table:
            kept = {name: table[name] for name in table.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
        raise ThawlabError(f"{folder.images}: is missing or damaged; train the recipe again to restore it") from None
    probabilities = test.probabilities(temperature)

    def described(image: np.ndarray, row: int, exact: bool = True) -> dict[str, Any]:
        return {
            "url": data_url(image, exact),
            "id": str(test.ids[row]),
            "truth": classes[test.labels[row]],
            "predicted": classes[test.predicted[row]],
            "confidence": float(probabilities[row].max()),
        }

    maps, pair_maps = (kept.get(name, np.zeros((0, 1, 1), dtype=np.uint8)) for name in ("mistake_maps", "confused_maps"))
    mistakes = [
        {**described(image, row), "seen": _seen(image, maps, place)}
        for place, (image, row) in enumerate(zip(kept["mistakes"], kept["mistake_rows"].tolist(), strict=True))
    ]
    confused: dict[str, list[dict[str, Any]]] = {}
    pairs = list(zip(kept.get("confused", ()), kept.get("confused_rows", ()), strict=True))
    for place, (image, row) in enumerate(pairs):
        for_truth = _seen(image, pair_maps, len(pairs) + place)
        entry = {**described(image, row), "seen": _seen(image, pair_maps, place), "for_truth": for_truth}
        confused.setdefault(f"{test.labels[row]}-{test.predicted[row]}", []).append(entry)
    cells: dict[str, list[dict[str, Any]]] = {}
    for image, row in zip(kept.get("wrong", ()), kept.get("wrong_rows", ()), strict=True):
        cells.setdefault(f"{test.labels[row]}-{test.predicted[row]}", []).append(described(image, row, exact=False))
    return _Shown(
        samples=[{"url": data_url(p), "label": classes[k]} for p, k in zip(kept["samples"], kept["sample_labels"], strict=True)],
        mistakes=mistakes[:_MISTAKES_SHOWN],
        confused=confused,
        cells=cells,
        suspects=[data_url(image) for image in kept.get("suspects", ())],
        leaks=[data_url(image) for image in kept.get("leaks", ())],
        near=[data_url(image) for image in kept.get("near", ())],
    )


def _seen(image: np.ndarray, maps: np.ndarray, place: int) -> str | None:
    """Return an image under what spoke for a class; None where that was not computed."""
    return data_url(overlay(image, maps[place] / np.float32(255))) if place < len(maps) else None


def data_url(pixels: np.ndarray, exact: bool = True) -> str:
    """Return an image (uint8, height × width × 3) as a data URL: exact where it is small and wanted so, compressed else."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    kind = "png" if exact and max(image.size) <= 48 else "webp"
    image.save(buffer, kind.upper(), **({"quality": 85} if kind == "webp" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
