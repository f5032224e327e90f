"""Export a run's classifier: write it, read it again, put it through the parity gate, and only then let it stay."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from thawlab import progress
from thawlab.data.decode import UNREADABLE, decode
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.types import Pixels
from thawlab.deploy.export import bfloat16_format as bfloat16_format  # noqa: PLC0414 - registers its format, as the others do
from thawlab.deploy.export import keras_format as keras_format  # noqa: PLC0414
from thawlab.deploy.export import onnx_format as onnx_format  # noqa: PLC0414
from thawlab.deploy.export import timm_format as timm_format  # noqa: PLC0414
from thawlab.deploy.export import torch_format as torch_format  # noqa: PLC0414
from thawlab.deploy.export.card import Imported, Trained, description, model_card, parity_of
from thawlab.deploy.export.formats import CARD_FILE, Exporter, Material, exporters
from thawlab.deploy.export.graph import OUTPUTS, outputs_of
from thawlab.deploy.export.parity import check
from thawlab.deploy.export.pictures import HeldOut, held_out, other_images
from thawlab.deploy.predictor import Predictor
from thawlab.environment import has_fast_bfloat16
from thawlab.errors import ThawlabError, UsageError, first_line, listed
from thawlab.files import mark_ours, read_json, write_json, write_text
from thawlab.models.catalog import resolve_backbone
from thawlab.models.saved import load_model, weights_digest
from thawlab.recipe import System
from thawlab.registry import optional
from thawlab.results import DataSummary, read_results, read_value
from thawlab.run import RunFolder

# Images that 8 bits are fitted on, and those whose accuracy decides.
_CALIBRATION, _JUDGED = 256, 2000
_PARITY = "parity.json"
_STANDALONE = Path(__file__).with_name("standalone.py")


class Export(NamedTuple):
    """An export that passed: its format, folder, the bytes of its largest file, and what the gate measured."""

    format: str
    folder: Path
    size: int
    parity: dict[str, Any]


def export(
    folder: RunFolder,
    name: str,
    out: Path,
    system: System,
    most_lost: float = 0.01,
    force: bool = False,
    pictures: str | None = None,
) -> Export:
    """Export a run's classifier into a folder; an export of the same weights that passed before is returned as it is.

    Args:
        folder: of a finished run.
        name: of the format.
        out: the folder to write; its parent is made if needed.
        system: where the run's data are.
        most_lost: the accuracy that rounding may cost where that decides, as a fraction.
        force: whether an export of other weights is replaced.
        pictures: images to check it on, by name or path, instead of the run's own.

    Raises:
        UsageError: for an unknown format, one that the classifier cannot be written in, or a folder that is in use.
        ThawlabError: if the export disagrees with the predictor, or cannot be written. Nothing is left behind then.
    """
    exporter = exporters.get(name, "--format")
    model = load_model(folder.model)
    digest = weights_digest(folder.model)
    if (known := _known(out, name, digest, force)) is not None:
        return Export(name, out, _largest(out), known)
    for module in exporter.modules:
        optional(module, exporter.extra, f"--format {name}")
    _refuse_imitation(exporter, f"--format {name}")
    source = _source(folder, exporter, system, pictures, model.card.classes)
    judged = _decoded(source, model.card.preprocessing) if exporter.by_accuracy else None
    outputs = outputs_of(model) if exporter.runtime else OUTPUTS[:1]
    card = description(model.card, outputs, folder.name, digest, version("thawlab"))
    progress.say(f"exporting to {name}, and comparing it with the predictor from files to probabilities")
    with _kept_if_good(out) as place:
        write_json(place / CARD_FILE, card)
        shown = judged[1][:_CALIBRATION] if judged is not None and exporter.calibrated else np.zeros(0, np.uint8)
        _written(exporter, Material(model, card, shown), place)
        found = check(exporter, exporter.open(place), Predictor(model, "cpu"), card, source, judged, most_lost)
        parity = parity_of(found, name, digest)
        if exporter.runtime:
            write_text(place / "predict.py", _STANDALONE.read_text(encoding="utf-8"))
        text = model_card(_history(folder), model.card, parity, _licence(folder), exporter.library, _use(exporter))
        write_text(place / "README.md", text)
        write_json(place / _PARITY, parity)
        mark_ours(place)
    return Export(name, out, _largest(out), parity)


def with_engine(folder: RunFolder, name: str) -> Predictor:
    """Open an export of a run, which passed the parity gate, to predict with.

    Raises:
        UsageError: if there is no such export of these weights, or it is none to predict with.
        ThawlabError: if it is damaged.
    """
    exporter = exporters.get(name, "--engine")
    if exporter.open_fitted is None and not exporter.rounds:
        able = [other for other, known in exporters.items() if known.open_fitted or known.rounds]
        raise UsageError(f"--engine {name}: predictions are not computed with this format; take {listed(able)}")
    place = folder.path / "exports" / name
    if not (place / _PARITY).is_file():
        raise UsageError(f"{place}: there is no such export; make it first: thawlab export {folder.path} --format {name}")
    if not _is_of(_measured(place), name, weights_digest(folder.model)):
        raise UsageError(f"{place}: was exported from other weights; export it again with --force")
    for module in exporter.modules:
        optional(module, exporter.extra, f"--engine {name}")
    _refuse_imitation(exporter, f"--engine {name}")
    try:
        session = exporter.open_fitted(place) if exporter.open_fitted is not None else None
    except ThawlabError:
        raise
    except Exception as error:  # onnx and its runtime raise of everything
        raise ThawlabError(f"{place}: cannot be read: {first_line(error)}; export it again with --force") from error
    return Predictor(load_model(folder.model), "cpu", session, exporter.rounds)


def _refuse_imitation(exporter: Exporter, option: str) -> None:
    """Refuse to compute in bfloat16 where the processor would have to imitate it.

    Raises:
        UsageError: if it has no products of bfloat16.
    """
    if exporter.rounds and not has_fast_bfloat16(torch.device("cpu")):
        raise UsageError(f"{option}: this processor has no products of bfloat16, and would imitate them slowly; leave it out")


def _source(folder: RunFolder, exporter: Exporter, system: System, pictures: str | None, classes: tuple[str, ...]) -> HeldOut:
    """Return the images that an export is checked on.

    Raises:
        UsageError: if there are none, or not those that the format needs.
    """
    if pictures is not None:
        others = other_images(pictures, classes, system)
        if exporter.by_accuracy and (others.labels < 0).any():
            raise UsageError(
                f"--data {pictures}: holds classes that the classifier lacks, on which rounding cannot be judged; its classes: "
                f"{listed(classes)}"
            )
        return others
    if folder.imported.is_file():
        raise UsageError(f"{folder.path}: was imported, without images to check an export on; add --data IMAGES")
    source = held_out(folder, system)
    if source is None:
        raise UsageError(
            f"{folder.path}: holds no images out, so that no export can be checked; add --data IMAGES, or train with data.val"
        )
    if exporter.calibrated and source.split != "val":
        raise UsageError(
            f"{folder.path}: has no validation images, on which 8 bits are fitted; train with data.val, or take onnx"
        )
    return source


def _history(folder: RunFolder) -> Trained | Imported:
    """Return how a classifier came about."""
    if folder.imported.is_file():
        source = folder.origin
        return Imported(folder.name, str(source["file"]), str(source["sha256"]))
    return Trained(read_results(folder.results), read_value(folder.path / "data.json", DataSummary))


def _known(out: Path, name: str, digest: str, force: bool) -> dict[str, Any] | None:
    """Return what was measured of an export that is there already; None where one is to be made.

    Raises:
        UsageError: if something else is in its place.
        ThawlabError: if what was measured of it cannot be read.
    """
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / _PARITY).is_file():
        raise UsageError(f"{out}: exists already and is no export; choose another place with --out")
    if force:
        return None
    parity = _measured(out)
    if not _is_of(parity, name, digest):
        raise UsageError(f"{out}: holds an export of other weights or another format; choose another place, or add --force")
    return parity


def _measured(place: Path) -> dict[str, Any]:
    """Return what the gate measured of an export.

    Raises:
        ThawlabError: if that is damaged.
    """
    try:
        return read_json(place / _PARITY)
    except ThawlabError:
        raise ThawlabError(f"{place / _PARITY}: is damaged; add --force to export again") from None


def _is_of(parity: Mapping[str, Any], name: str, digest: str) -> bool:
    return (parity.get("format"), parity.get("weights_sha256")) == (name, digest)


def _written(exporter: Exporter, material: Material, place: Path) -> None:
    """Write an export's files.

    Raises:
        ThawlabError: if the exporter of torch, or what it needs, cannot take this network.
    """
    try:
        exporter.write(material, place)
    except (ThawlabError, OSError, MemoryError):
        raise
    except Exception as error:  # exporters raise of everything; the architecture and the version are what helps
        raise ThawlabError(
            f"torch {torch.__version__} cannot export '{material.model.card.architecture}': {first_line(error)}; take another "
            "format, or a newer torch"
        ) from error


def _decoded(source: HeldOut, preprocessing: Preprocessing) -> tuple[HeldOut, Pixels]:
    """Return held-out images that can be read, at most as many as a format is judged on, and their pixels at working size."""
    kept, pixels = [], []
    for place in range(min(_JUDGED, len(source.names))):
        with contextlib.suppress(*UNREADABLE):
            pixels.append(decode(source.read(place), preprocessing))
            kept.append(place)
    return source._replace(labels=source.labels[kept]), np.stack(pixels)


@contextmanager
def _kept_if_good(out: Path) -> Iterator[Path]:
    """Give a folder beside the wanted one, which takes its name if all goes well, and is removed otherwise."""
    place, old = (out.with_name(f".{out.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    try:
        place.mkdir(parents=True)
        yield place
        if out.exists():
            out.rename(old)
        try:
            place.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    except OSError as error:
        raise ThawlabError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        for leftover in (place, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _largest(folder: Path) -> int:
    return max(file.stat().st_size for file in folder.iterdir())


def _licence(folder: RunFolder) -> str | None:
    """Return the licence of the weights that training began from, where their source records it."""
    if folder.imported.is_file() or not (recipe := folder.recipe).model.pretrained:
        return None
    try:
        licence = resolve_backbone(recipe.model.backbone).config.get("license")
    except ThawlabError:
        return None
    return str(licence) if licence else None


def _use(exporter: Exporter) -> str:
    if not exporter.runtime:
        return exporter.use
    return (
        f"`python predict.py picture.jpg` needs {exporter.runtime}, numpy and pillow alone. The graph takes uint8 RGB, "
        "n × height × width × 3, of any size, upright, and does the rest itself; `thawlab.json` names its outputs and classes."
    )
