"""`torch.export`: a graph that PyTorch runs without this project."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from thawlab.data.types import Pixels
from thawlab.deploy.export.formats import CARD_FILE, Exporter, Material, Outputs, Session, exporters, named
from thawlab.deploy.export.graph import ExportedGraph
from thawlab.files import write_atomically

# No side of an image is longer, and no batch larger.
_LONGEST, _LARGEST = 1 << 16, 1 << 12
PT2_FILE = "model.pt2"


def exported_program(graph: ExportedGraph) -> torch.export.ExportedProgram:
    """Return a graph for batches of any number of images of any size."""
    batch, height, width = (
        torch.export.Dim(name, min=1, max=most) for name, most in (("batch", _LARGEST), ("height", _LONGEST), ("width", _LONGEST))
    )
    example = torch.zeros(2, 50, 70, 3, dtype=torch.uint8)  # three unlike sizes, none of which is special
    with torch.no_grad(), quiet():
        return torch.export.export(graph.eval(), (example,), dynamic_shapes=({0: batch, 1: height, 2: width},))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters print for their own developers from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _write(material: Material, folder: Path) -> None:
    program = exported_program(ExportedGraph(material.model))
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={CARD_FILE: json.dumps(material.card)})
    write_atomically(folder / PT2_FILE, lambda file: file.write(buffer.getbuffer()))


def _open(folder: Path) -> Session:
    extra: dict[str, Any] = {CARD_FILE: ""}
    graph = torch.export.load(folder / PT2_FILE, extra_files=extra).module()
    names = json.loads(extra[CARD_FILE])["outputs"]

    def answer(images: Pixels) -> Outputs:
        with torch.no_grad():
            return named(names, [part.numpy() for part in graph(torch.from_numpy(images.copy()))])

    return answer


exporters.register("torch")(Exporter(_write, _open, library="pytorch", runtime="torch"))
