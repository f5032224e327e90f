"""The report of a run: one self-contained HTML page, made from the run folder alone."""

import base64
import io
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, UndefinedError
from markupsafe import Markup
from PIL import Image

from thawlab.data.arrays import DAMAGED, read_arrays
from thawlab.errors import ThawlabError
from thawlab.evaluation.heatmap import overlay
from thawlab.evaluation.metrics import metrics
from thawlab.evaluation.metrics.measures import most_confused
from thawlab.files import read_json, write_text
from thawlab.report import figures
from thawlab.report.drawn import Artist, draw_all
from thawlab.report.sources import Sources, fitting, read_sources
from thawlab.report.style import for_file, for_page
from thawlab.results import TestResult
from thawlab.robustness import worst_first
from thawlab.run import RunFolder

_MISTAKES_SHOWN = 24
_SCRIPT = re.compile(r"<script>.*?</script>", re.DOTALL)


def write_report(folder: RunFolder, artist: Artist | None = None) -> Path:
    """Write `report.html` and `figures/*.svg` of a finished run.

    Args:
        folder: of the run.
        artist: draws the figures, while the rest of the page is made here; None draws them here.

    Raises:
        ThawlabError: if a file of the run is missing or damaged; the message names it.
    """
    sources = read_sources(folder)
    if artist:
        artist.begin(folder)
    with fitting(folder):
        images = _images(sources)
        drawn = (artist.finish() if artist else None) or draw_all(sources)
        page = _page(sources, drawn, images)
    for name, svg in drawn.items():
        write_text(folder.path / "figures" / f"{name}.svg", for_file(svg))
    write_text(folder.report, page)
    return folder.report


def report_html(folder: RunFolder) -> str:
    """Return the report of a finished run; nothing is written.

    Raises:
        ThawlabError: if a file of the run is missing or damaged; the message names it.
    """
    sources = read_sources(folder)
    with fitting(folder):
        return _page(sources, draw_all(sources), _images(sources))


def _page(sources: Sources, drawn: Mapping[str, str], images: Mapping[str, Any]) -> str:
    folder, results = sources.folder, sources.results
    try:
        return render_page(
            "page.html",
            run=folder.name,
            results=results,
            metrics=metric_rows(results.test),
            data=sources.data,
            environment=read_json(folder.path / "environment.json"),
            recipe=folder.recipe,
            recipe_text=folder.recipe_file.read_text(encoding="utf-8"),
            # The SVG text comes from matplotlib, which escapes what it draws.
            figures={name: Markup(for_page(svg)) for name, svg in drawn.items()},
            shares=figures.row_shares(results.test.confusion).tolist(),
            confusions=most_confused(results.test.confusion),
            shift=sources.shift,
            slices=sources.slices,
            worst_slices=worst_first(sources.slices.slices) if sources.slices else [],
            peak_rate=max((row.images_per_second or 0 for row in sources.rows), default=0),
            **images,
        )
    except UndefinedError as error:
        raise ThawlabError(f"{folder.path / 'environment.json'}: {error}; `thawlab repair` restores it") from None


def metric_rows(test: TestResult) -> list[dict[str, Any]]:
    """Return name, description, value and interval of every metric of a split, those of plug-ins too."""
    abouts = {name: metric.about for name, metric in metrics.items()}
    return [
        {
            "name": name.replace("_", " "),
            "about": abouts.get(name, ""),
            "value": test.metric(name),
            "interval": test.intervals.get(name),
        }
        for name in dict.fromkeys([*abouts, *(test.model_extra or {})])
        if test.metric(name) is not None
    ]


def write_page(template: str, path: Path, **values: Any) -> Path:
    """Write a self-contained page from a template and return its path; all values are escaped.

    Raises:
        ThawlabError: if the page cannot be written.
    """
    write_text(path, render_page(template, **values))
    return path


def render_page(template: str, **values: Any) -> str:
    """Return a self-contained page from a template; all values are escaped."""
    return _templates().get_template(template).render(**values)


def scripts_of(template: str) -> list[str]:
    """Return the scripts within the pages of a template, which are the same in each of them."""
    environment = _templates()
    source = (Path(__file__).parent / template).read_text(encoding="utf-8")
    scripts = [environment.from_string(script).render() for script in _SCRIPT.findall(source)]
    return [script.removeprefix("<script>").removesuffix("</script>") for script in scripts]


def _templates() -> Environment:
    folder = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _images(sources: Sources) -> dict[str, Any]:
    """Return the images that a run kept, as data URLs beside what is known of them; those of earlier versions lack some.

    Mistakes are given as `mistakes`, the worst ones; as `confused`, those of the pairs of classes that are confused most, by cell
    of the confusion matrix ("truth-prediction"); and as `cells`, all that were kept, by cell.
    """
    folder, results, data, test = sources.folder, sources.results, sources.data, sources.test
    try:
        kept = read_arrays(folder.images)
    except DAMAGED:
        raise ThawlabError(f"{folder.images}: is missing or damaged; `thawlab repair` restores it") from None
    confidence, predicted = test.probabilities(results.test.temperature).max(axis=1), test.predicted

    def described(image: np.ndarray, row: int, exact: bool = True) -> dict[str, Any]:
        return {
            "url": data_url(image, exact),
            "id": str(test.ids[row]),
            "truth": data.classes[test.labels[row]],
            "predicted": data.classes[predicted[row]],
            "confidence": float(confidence[row]),
        }

    def seen(image: np.ndarray, maps: str, place: int) -> str | None:
        """Return an image under what spoke for a class; None where that was not computed."""
        return data_url(overlay(image, kept[maps][place] / np.float32(255))) if place < len(kept.get(maps, ())) else None

    confused, cells = defaultdict(list), defaultdict(list)
    pairs = list(zip(kept.get("confused", ()), kept.get("confused_rows", ()), strict=True))
    for place, (image, row) in enumerate(pairs):
        maps = {key: seen(image, "confused_maps", at) for key, at in (("seen", place), ("for_truth", len(pairs) + place))}
        confused[f"{test.labels[row]}-{predicted[row]}"].append(described(image, row) | maps)
    for image, row in zip(kept.get("wrong", ()), kept.get("wrong_rows", ()), strict=True):
        cells[f"{test.labels[row]}-{predicted[row]}"].append(described(image, row, exact=False))
    mistakes = list(zip(kept["mistakes"], kept["mistake_rows"], strict=True))[:_MISTAKES_SHOWN]
    suspects, leaks, near = ([data_url(image) for image in kept.get(name, ())] for name in ("suspects", "leaks", "near"))
    near_pairs = results.near_duplicates.first if results.near_duplicates else ()
    return {
        "samples": [
            {"url": data_url(image), "label": data.classes[label]}
            for image, label in zip(kept["samples"], kept["sample_labels"], strict=True)
        ],
        "mistakes": [
            described(image, row) | {"seen": seen(image, "mistake_maps", place)} for place, (image, row) in enumerate(mistakes)
        ],
        "confused": confused,
        "cells": cells,
        "suspects": [
            {**entry.model_dump(by_alias=False), "url": url}
            for entry, url in zip(results.label_suspects.first, suspects, strict=False)
        ],
        "leaks": [{"pair": pair, "url": url} for pair, url in zip(data.leaks.pairs, leaks, strict=False)],
        "near": [{**entry.model_dump(), "urls": urls} for entry, *urls in zip(near_pairs, near[::2], near[1::2], strict=False)],
    }


def data_url(pixels: np.ndarray, exact: bool = True) -> str:
    """Return an image (uint8, height × width × 3) as a data URL: exact where it is small and wanted so, compressed else."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    kind = "png" if exact and max(image.size) <= 48 else "webp"
    image.save(buffer, kind, quality=85)  # a PNG has none
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
