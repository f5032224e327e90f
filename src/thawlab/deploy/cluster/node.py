"""The part of a prediction that runs on the nodes of a cluster; nothing here loads torch before a block comes."""

from __future__ import annotations

import json
import platform
import tempfile
from collections import Counter
from functools import cache
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

from thawlab.deploy.cluster.blocks import Block
from thawlab.deploy.cluster.parts import Identity
from thawlab.deploy.cluster.places import Place
from thawlab.errors import ThawlabError, first_line
from thawlab.ray_cluster import unpacked
from thawlab.run import RunFolder

if TYPE_CHECKING:
    from thawlab.deploy.predictor import Predictor


class Order(NamedTuple):
    """What all nodes are told.

    Attributes:
        run: the run's folder, as the driver's machine names it.
        engine: an export of it that computes; None for the model itself.
        device: "cpu" or "cuda".
        cores: that each process has.
        identity: of the folder of parts.
        version: of thawlab.
        tries: how often a block is begun.
    """

    run: Path
    engine: str | None
    device: str
    cores: int
    identity: Identity
    version: str
    tries: int


@final
class Tally:
    """Counts how often each block was begun, in a process that is not lost with a node."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, part: str) -> int:
        """Return how often a block was begun, this time included."""
        self._begun[part] += 1
        return self._begun[part]


def survey(places: tuple[str, ...], version: str) -> str:
    """Return why this node cannot take part: it has another version of thawlab, or does not see the pictures; "" if it can."""
    if (there := version_of("thawlab")) != version:
        return f"thawlab is {there} on node {platform.node()} and {version} here; install the same on all"
    for address in places:
        try:
            place = Place(address)
        except ThawlabError as error:
            return f"on node {platform.node()}: {error}"
        if place.local is not None and not place.local.exists():
            return f"on node {platform.node()}: there is no {address}; let every node see the pictures at the same path"
    return ""


def answer(table: Any, order: Order, means: tuple[Any, Any]) -> Any:
    """Predict the block in a table of Ray Data, and return its part in another: or why that failed, since others may not.

    Args:
        table: pyarrow, one row with the block as JSON.
        order: what all nodes are told.
        means: the run's folder for nodes that do not see it, a reference in the object store, and the tally.
    """
    import pyarrow as pa
    import ray

    archive, tally = means
    content = json.loads(table.column("block")[0].as_py())
    block = Block(**{**content, "names": tuple(content["names"]), "groups": tuple(content["groups"])})
    part, trouble = b"", ""
    try:
        if ray.get(tally.begin.remote(block.part)) > order.tries:
            raise ThawlabError(f"{named(block)}: its process was lost {order.tries} times; a picture may kill what decodes it")
        part = _part(block, order, archive)
    except ThawlabError as error:
        trouble = f"on node {platform.node()}: {error}"
    except Exception as error:  # it would stop the blocks of all nodes
        trouble = f"on node {platform.node()}: {named(block)}: {type(error).__name__}: {first_line(error)}"
    return pa.table({"name": [block.part], "part": pa.array([part], pa.large_binary()), "trouble": [trouble]})


def named(block: Block) -> str:
    """Return what people call a block: its first and last picture, or its file."""
    return f"{block.shown}{block.names[0]} to {block.names[-1]}" if block.names else block.shown


def _part(block: Block, order: Order, archive: Any) -> bytes:
    predictor = _predictor(order, archive)
    from thawlab.deploy.cluster.parts import part_of
    from thawlab.deploy.cluster.reading import pictures_of, predicted

    flaws: list[str] = []
    pictures = pictures_of(block, flaws)
    return part_of(predicted(predictor, pictures, order.identity.top_k, order.cores), order.identity, flaws)


@cache
def _predictor(order: Order, archive: Any) -> Predictor:
    """Open the run once in each process: its folder where it is seen, or else what came of it."""
    from thawlab import process

    process.prepare()
    import torch

    from thawlab.deploy.opening import model_digest, open_predictor

    torch.set_num_threads(order.cores)
    folder = RunFolder(order.run)
    sees = (folder.model / "model.safetensors").is_file() and model_digest(folder, order.engine) == order.identity.model
    if sees and (order.engine is None or (folder.path / "exports" / order.engine).is_dir()):
        return open_predictor(folder, order.device, order.engine)
    import ray

    with tempfile.TemporaryDirectory(prefix="thawlab-run-") as place:
        unpacked(ray.get(archive), Path(place))
        [came] = Path(place).iterdir()
        return open_predictor(RunFolder(came), order.device, order.engine)
