"""The report of a run: one self-contained HTML page, made from the run folder alone."""

import base64
import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup
from PIL import Image

from thawlab.errors import ThawlabError
from thawlab.evaluation.gradcam import overlay
from thawlab.evaluation.metrics import metrics
from thawlab.evaluation.metrics.measures import most_confused
from thawlab.evaluation.predictions import Predictions, load_predictions
from thawlab.files import read_json, write_text
from thawlab.report import figures
from thawlab.report.style import for_file, for_page
from thawlab.results import DataSummary, EpochRow, Results, TestResult, read_results, read_rows, read_value
from thawlab.run import RunFolder

_MISTAKES_SHOWN = 24


@final
@dataclass(frozen=True)
class Sources:
    """What a report is made of, read from the run's folder."""

    folder: RunFolder
    results: Results
    data: DataSummary
    rows: list[EpochRow]
    test: Predictions


def read_sources(folder: RunFolder) -> Sources:
    """Read what the report of a finished run is made of.

    Raises:
        ThawlabError: if a file of the run is missing or damaged; the message names it.
    """
    data = read_value(folder.path / "data.json", DataSummary)
    test = load_predictions(folder.predictions("test"))
    return Sources(folder, read_results(folder.results), data, read_rows(folder.metrics), test)


# The figures of a report, by name.
FIGURES: dict[str, Callable[[Sources], str]] = {
    "distribution": lambda of: figures.class_distribution(of.data.classes, of.data.per_class),
    "curves": lambda of: figures.learning_curves(of.rows, of.results.phases),
    "confusion": lambda of: figures.confusion_matrix(of.results.test.confusion, of.data.classes),
    "reliability": lambda of: figures.reliability_diagram(
        of.test, of.results.test.temperature, of.folder.recipe.evaluation.ece_bins
    ),
    "declining": lambda of: figures.declining_curve(of.test, of.results.test.temperature),
}


def write_report(folder: RunFolder) -> Path:
    """Write `report.html` and `figures/*.svg` of a finished run.

    Raises:
        ThawlabError: if a file of the run is missing or damaged; the message names it.
    """
    sources = read_sources(folder)
    results, data = sources.results, sources.data
    environment = read_json(folder.path / "environment.json")
    drawn = {name: draw(sources) for name, draw in FIGURES.items()}
    for name, svg in drawn.items():
        write_text(folder.path / "figures" / f"{name}.svg", for_file(svg))
    shown = _images(folder, data.classes, sources.test, results.test.temperature)
    suspects, near = results.label_suspects.first, results.near_duplicates.first if results.near_duplicates else ()
    try:
        page = (
            templates()
            .get_template("page.html")
            .render(
                run=folder.name,
                results=results,
                metrics=metric_rows(results.test),
                data=data,
                environment=environment,
                recipe=folder.recipe,
                recipe_text=folder.recipe_file.read_text(encoding="utf-8"),
                # The SVG text comes from matplotlib, which escapes what it draws.
                figures={name: Markup(for_page(svg)) for name, svg in drawn.items()},
                samples=shown.samples,
                mistakes=shown.mistakes,
                confused=shown.confused,
                cells=shown.cells,
                suspects=[
                    {**entry.model_dump(by_alias=False), "url": url} for entry, url in zip(suspects, shown.suspects, strict=False)
                ],
                leaks=[{"pair": pair, "url": url} for pair, url in zip(data.leaks.pairs, shown.leaks, strict=False)],
                near=[
                    {**entry.model_dump(), "urls": shown.near[2 * place : 2 * place + 2]}
                    for place, entry in enumerate(near[: len(shown.near) // 2])
                ],
                shares=figures.row_shares(results.test.confusion).tolist(),
                confusions=most_confused(results.test.confusion),
                peak_rate=max((row.images_per_second or 0 for row in sources.rows), default=0),
            )
        )
    except UndefinedError as error:
        raise ThawlabError(f"{folder.path / 'environment.json'}: {error}; `thawlab repair` restores it") from None
    write_text(folder.report, page)
    return folder.report


def metric_rows(test: TestResult) -> list[dict[str, Any]]:
    """Return name, description, value and interval of every metric of a split, those of plug-ins too."""
    known = {name: metric.about for name, metric in metrics.items()}
    names = [*known, *(name for name in test.model_extra or {} if name not in known)]
    return [
        {
            "name": name.replace("_", " "),
            "about": known.get(name, ""),
            "value": test.metric(name),
            "interval": test.intervals.get(name),
        }
        for name in names
        if test.metric(name) is not None
    ]


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


def _images(folder: RunFolder, classes: Sequence[str], test: Predictions, temperature: float) -> _Shown:
    """Read the images that a run kept; those of earlier versions lack some."""
    try:
        with np.load(folder.images, allow_pickle=False) as table:
            kept = {name: table[name] for name in table.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
        raise ThawlabError(f"{folder.images}: is missing or damaged; `thawlab repair` restores it") from None
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
