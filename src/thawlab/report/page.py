"""The report of a run: one self-contained HTML page, made from the run folder alone."""

from __future__ import annotations

import base64
import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup
from PIL import Image

from thawlab.errors import ThawlabError
from thawlab.evaluation.gradcam import overlay
from thawlab.evaluation.predictions import Predictions, load_predictions
from thawlab.report import figures
from thawlab.report.style import for_file, for_page
from thawlab.run import RunFolder, read_json, write_text

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
        samples, mistakes, cells, suspects, leaks = _pictures(folder, data["classes"], test, results["test"]["temperature"])
        page = (
            templates()
            .get_template("page.html")
            .render(
                run=folder.name,
                results={
                    "abstention": {},
                    "novelty": {},
                    "label_suspects": {"count": 0},
                    **results,
                },  # runs of earlier versions lack them
                data={"leaks": {"count": 0}, **data},
                environment=environment,
                recipe=recipe,
                recipe_text=folder.recipe_file.read_text(encoding="utf-8"),
                # The SVG text comes from matplotlib, which escapes what it draws.
                figures={name: Markup(for_page(svg)) for name, svg in drawn.items()},
                samples=samples,
                mistakes=mistakes,
                cells=cells,
                suspects=[
                    {**entry, "url": url}
                    for entry, url in zip(results.get("label_suspects", {}).get("first", ()), suspects, strict=False)
                ],
                leaks=[
                    {"pair": pair, "url": url} for pair, url in zip(data.get("leaks", {}).get("pairs", ()), leaks, strict=False)
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


def most_confused(matrix: list[list[int]], limit: int = 8) -> list[tuple[int, int, int]]:
    """Return the pairs (truth, prediction, count) that are confused most often, the most frequent first."""
    counts = np.array(matrix)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:limit]
    pairs = [np.unravel_index(position, counts.shape) for position in order]
    return [(int(row), int(column), int(counts[row, column])) for row, column in pairs if counts[row, column] > 0]


def _pictures(
    folder: RunFolder, classes: list[str], test: Predictions, temperature: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, list[dict[str, Any]]], list[str], list[str]]:
    """Return the pictures that a run kept, as data URLs with what is to be said of them.

    These are samples, the worst mistakes, all kept mistakes by cell of the confusion matrix ("truth-prediction"), and the
    pictures of suspected labels and of leaks, in the order in which results.json and data.json list them.
    """
    try:
        with np.load(folder.pictures, allow_pickle=False) as table:
            kept = {name: table[name] for name in table.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
        raise ThawlabError(f"{folder.pictures}: is missing or damaged; train the recipe again to restore it") from None
    samples = [{"url": data_url(p), "label": classes[k]} for p, k in zip(kept["samples"], kept["sample_labels"], strict=True)]
    probabilities = test.probabilities(temperature)
    maps = kept.get("mistake_maps", np.zeros((0, 1, 1), dtype=np.uint8))
    mistakes = [
        {
            "url": data_url(picture),
            "seen": data_url(overlay(picture, maps[place] / np.float32(255))) if place < len(maps) else None,
            "id": str(test.ids[row]),
            "truth": classes[test.labels[row]],
            "predicted": classes[test.predicted[row]],
            "confidence": float(probabilities[row].max()),
        }
        for place, (picture, row) in enumerate(zip(kept["mistakes"], kept["mistake_rows"].tolist(), strict=True))
    ]
    cells: dict[str, list[dict[str, Any]]] = {}
    for picture, row in zip(kept.get("wrong", ()), kept["wrong_rows"].tolist() if "wrong_rows" in kept else (), strict=True):
        entry = {"url": data_url(picture, exact=False), "id": str(test.ids[row]), "confidence": float(probabilities[row].max())}
        cells.setdefault(f"{test.labels[row]}-{test.predicted[row]}", []).append(entry)
    suspects, leaks = ([data_url(picture) for picture in kept.get(name, ())] for name in ("suspects", "leaks"))
    return samples, mistakes[:_MISTAKES_SHOWN], cells, suspects, leaks


def data_url(picture: np.ndarray, exact: bool = True) -> str:
    """Return a picture (uint8, height × width × 3) as a data URL: exact where it is small and wanted so, compressed else."""
    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    kind = "png" if exact and max(image.size) <= 48 else "webp"
    image.save(buffer, kind.upper(), **({"quality": 85} if kind == "webp" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
