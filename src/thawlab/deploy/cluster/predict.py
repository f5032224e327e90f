"""Many predictions on a Ray cluster, into a folder of parts: every picture has one row, whatever is lost or interrupted.

Ray Data shares the blocks out, and begins those again whose process or node was lost. It neither reads nor writes here: its
readers cut files as the cluster's size suggests, so that another command could not tell what was done, and they give up a tar
file that is cut short; its writers leave the files of both tries where one was lost. A block is read by our own function, and its
part comes back to this process, the only one that writes. A task that ran twice gives the same part again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from thawlab import progress
from thawlab.data.remote import is_remote
from thawlab.deploy.cluster.blocks import Block, blocks_of
from thawlab.deploy.cluster.node import Order, Tally, answer, survey
from thawlab.deploy.cluster.parts import Identity, Part, add_part, held, parts_in, seal, unseal
from thawlab.deploy.opening import model_digest, open_predictor
from thawlab.errors import ThawlabError, UsageError
from thawlab.files import user_path
from thawlab.ray_cluster import archived, connect
from thawlab.registry import optional
from thawlab.run import RunFolder

# How often a block is begun whose process or node is lost each time. A picture that kills its decoder does so every time, and Ray
# Data would begin again for ever.
_TRIES = 10
# So many blocks that could not be read, and the rest will hardly fare better.
_ENOUGH = 8
_SURVEY_SECONDS = 120.0


class Gathered(NamedTuple):
    """What was written: the folder, its rows, how many of them hold an error, its parts, those predicted now, damaged shards."""

    folder: Path
    total: int
    failed: int
    parts: int
    new: int
    flaws: tuple[str, ...]


def predict_on_ray(
    run: RunFolder,
    sources: Sequence[str],
    out: Path,
    top_k: int,
    address: str,
    cores: int = 1,
    device: str = "auto",
    engine: str | None = None,
) -> Gathered:
    """Predict pictures on a Ray cluster into a folder of Parquet parts; the same call goes on with the parts that are missing.

    Args:
        run: of the classifier.
        sources: paths and addresses of pictures, tar shards and Parquet files, and of folders of them.
        out: the folder, made if needed.
        top_k: how many classes each prediction names.
        address: of the cluster, or "local".
        cores: that each process computes and decodes with, on a CPU.
        device: "cpu", "cuda", or "auto" for the cluster's GPUs if it has some.
        engine: an export of the run that computes.

    Raises:
        UsageError: if a source cannot be used, or the folder holds other predictions.
        BusyError: if another process writes into it.
        ThawlabError: if there is no such cluster, or some blocks could not be read: their parts are missing then.
    """
    optional("ray.data", "ray", "--ray")
    spelled = tuple(source.rstrip("/") if is_remote(source) else str(user_path(source)) for source in sources)
    identity = Identity(model_digest(run, engine), top_k, spelled)
    blocks = blocks_of(spelled)
    with held(out):
        parts = parts_in(out, identity)
        left = [block for block in blocks if block.part not in parts]
        outdated = parts.keys() - {block.part for block in blocks}
        if left:
            open_predictor(run, device if engine else "cpu", engine)  # what is wrong with the run is said before anything starts
            unseal(out)
            order = Order(run.path.resolve(), engine, device, cores, identity, version("thawlab"), _TRIES)
            parts |= _predicted(left, out, order, address)
        if outdated:
            progress.say(f"{out}: {len(outdated):,} parts are of files that have changed or gone; they are taken away")
        for name in outdated:
            (out / name).unlink()
            del parts[name]
        seal(out, identity, parts)
    flaws = tuple(flaw for part in parts.values() for flaw in part.flaws)
    failed = sum(part.failed for part in parts.values())
    return Gathered(out, sum(part.rows for part in parts.values()), failed, len(parts), len(left), flaws)


def _predicted(blocks: Sequence[Block], out: Path, order: Order, address: str) -> dict[str, Part]:
    """Predict blocks on the cluster, and write each part as it comes.

    Raises:
        ThawlabError: if some blocks could not be read; the parts of all others are written.
    """
    ray = connect(address)
    parts: dict[str, Part] = {}
    troubles: list[str] = []
    try:
        _check_nodes(ray, order)
        with progress.task("predicting", len(blocks), "parts") as advance:
            for row in _answers(ray, blocks, order):
                if row["trouble"]:
                    troubles.append(row["trouble"])
                    if len(troubles) >= _ENOUGH:
                        break
                    continue
                parts[row["name"]] = add_part(out, row["name"], row["part"])
                advance(1)
    except ThawlabError:
        raise
    except Exception as error:  # Ray and Ray Data have errors of many kinds; what happened stands at the end of their messages
        troubles.append(f"Ray gave up: {_last_line(error)}")
    finally:
        ray.shutdown()
    if missing := len(blocks) - len(parts):
        reason = troubles[0] if troubles else "Ray Data lost it"
        raise ThawlabError(f"{missing:,} of {len(blocks):,} parts are missing, the first: {reason}; the same command goes on")
    return parts


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]


def _answers(ray: Any, blocks: Sequence[Block], order: Order) -> Any:
    """Yield what the nodes answer, as it comes, as rows of `name`, `part` and `trouble`."""
    import pyarrow as pa
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    resources, order = _resources(ray, order)
    parents = ["model", *([f"exports/{order.engine}"] if order.engine else [])]
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # lost with this process alone
    tally = ray.remote(num_cpus=0)(Tally).options(scheduling_strategy=here).remote()
    means = (ray.put(archived(order.run, parents)), tally)
    tables = [pa.table({"block": [json.dumps(block._asdict())]}) for block in blocks]
    # Tasks, not actors: an actor's tasks wait for it to start again, which on a smaller cluster it may never do.
    data = ray.data.from_arrow(tables).map_batches(
        answer, batch_size=None, batch_format="pyarrow", fn_args=(order, means), **resources
    )
    data.context.enable_progress_bars = False
    data.context.print_on_execution_start = False
    for batch in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from batch.to_pylist()


def _resources(ray: Any, order: Order) -> tuple[dict[str, Any], Order]:
    """Return what each task asks the cluster for, and the order with the device that this gives.

    Raises:
        UsageError: if GPUs are wanted and the cluster has none.
    """
    with_gpu = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    if order.device == "cuda" and not with_gpu:
        raise UsageError("--device cuda: the cluster has no GPU")
    if order.device == "cpu" or order.engine is not None or not with_gpu:
        return {"num_cpus": order.cores}, order._replace(device="cpu")
    cores = max(1, min(int(found.get("CPU", 1) // found["GPU"]) for found in with_gpu))
    # A process that holds a GPU would end after one task, and load the model again for the next.
    return {"num_cpus": cores, "num_gpus": 1, "max_calls": 1_000_000}, order._replace(device="cuda", cores=cores)


def _check_nodes(ray: Any, order: Order) -> None:
    """Ask every node that computes whether it can take part.

    Raises:
        ThawlabError: if one cannot.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    places = tuple(source if is_remote(source) else str(Path(source).absolute()) for source in order.identity.sources)
    look: Callable[..., Any] = ray.remote(num_cpus=0)(survey).options
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    on = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    refs = [look(scheduling_strategy=node).remote(places, order.version) for node in on]
    for ref in ray.wait(refs, num_returns=len(refs), timeout=_SURVEY_SECONDS)[0]:
        try:
            reason = ray.get(ref)
        except ray.exceptions.RayTaskError as error:  # thawlab, or what it needs, cannot be imported there
            reason = f"a node cannot run thawlab: {_last_line(error)}"
        except ray.exceptions.RayError:
            continue  # the node has gone meanwhile
        if reason:
            raise ThawlabError(f"{reason}; or take the node out of the cluster")
