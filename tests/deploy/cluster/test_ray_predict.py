"""Predictions on a Ray cluster: one row per picture, equal to the local ones, whatever is lost, stopped or damaged."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from packing import encoded, named_pictures, parquet_of, shard_of, write_folder

from thawlab import api
from thawlab.deploy.cluster import node, predict
from thawlab.deploy.cluster.blocks import blocks_of
from thawlab.deploy.cluster.parts import SUMMARY
from thawlab.deploy.cluster.predict import Gathered
from thawlab.errors import ThawlabError, UsageError
from thawlab.run import RunFolder

pytest.importorskip("ray.data")

Row = dict[str, Any]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of three nodes on this machine: a head without cores, and two nodes with one core each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.workers = [made.add_node(num_cpus=1) for _ in range(2)]
    yield made
    made.shutdown()


def rows_in(folder: Path) -> dict[str, Row]:
    """Return the rows of all parts by their source, after checking that none is there twice."""
    rows = pq.read_table(folder).to_pylist()
    assert len({row["source"] for row in rows}) == len(rows)
    return {row["source"]: row for row in rows}


def local_rows(run: RunFolder, pictures: Path, table: Path) -> dict[str, Row]:
    api.predict_into(run.path, [pictures], table, device="cpu")
    return {row["source"]: row for row in pq.read_table(table).to_pylist()}


def on(address: str, run: RunFolder, sources: list[Path], out: Path, **more: Any) -> Gathered:
    return api.predict_on_ray(run.path, sources, out, address, device="cpu", **more)


PICTURES = named_pictures(200) | {"1/bad.png": b"no image", "2/empty.png": b""}


@pytest.mark.slow
def test_a_folder_gives_the_table_of_predict(cluster: Any, shapes_run: RunFolder, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", PICTURES)
    done = on(cluster.address, shapes_run, [folder], tmp_path / "out")
    assert done[1:] == (202, 2, 7, 7, ())
    expected = local_rows(shapes_run, folder, tmp_path / "local.parquet")
    assert rows_in(tmp_path / "out") == expected  # to the bit: cnn5 sums alike with one thread and with several
    schema = pq.read_table(tmp_path / "local.parquet").schema
    assert pq.read_table(tmp_path / "out").schema.remove_metadata() == schema.remove_metadata()
    again = on("127.0.0.1:1", shapes_run, [folder], tmp_path / "out")  # nothing is left to do: no cluster is needed
    assert again[1:] == (202, 2, 7, 0, ())


@pytest.mark.slow
def test_shards_and_tables_give_the_rows_of_their_pictures(cluster: Any, shapes_run: RunFolder, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", PICTURES)
    names = list(PICTURES)
    shards = {f"{k}.tar": shard_of({name: PICTURES[name] for name in names[k::4]}) for k in range(3)}
    table = {"rest.parquet": parquet_of({name: PICTURES[name] for name in names[3::4]})}
    source = write_folder(tmp_path / "packed", shards | table)
    done = on(cluster.address, shapes_run, [source], tmp_path / "out")
    assert (done.total, done.failed, done.flaws) == (202, 2, ())
    expected = local_rows(shapes_run, folder, tmp_path / "local.parquet")
    found = {"/".join(name.split("/")[-2:]): row for name, row in rows_in(tmp_path / "out").items()}
    assert {name: {**row, "source": ""} for name, row in found.items()} == {
        name: {**expected[str(folder / name)], "source": ""} for name in names
    }


def killed_once(marker: Path, block: Any, order: Any, archive: Any) -> bytes:
    """Die the first time, as a process that takes too much memory does."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return PART(block, order, archive)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


PART = node._part


def answer_with(part: Any, table: Any, order: Any, means: Any) -> Any:
    node._part = part  # type: ignore[assignment]
    return node.answer(table, order, means)


def let_nodes_use(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every node make the parts with a function of this file."""
    import ray

    ray.cloudpickle.register_pickle_by_value(__import__(__name__))
    monkeypatch.setattr(predict, "answer", partial(answer_with, part))


def noted(folder: Path, block: Any, order: Any, archive: Any) -> bytes:
    (folder / uuid.uuid4().hex).touch()
    return PART(block, order, archive)


@pytest.mark.slow
def test_a_lost_node_costs_no_row(cluster: Any, shapes_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "begun").mkdir()
    let_nodes_use(partial(noted, tmp_path / "begun"), monkeypatch)
    folder, out = write_folder(tmp_path / "photos", named_pictures(4000)), tmp_path / "out"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(on, cluster.address, shapes_run, [folder], out)
        while len(list(out.glob("part-*"))) < 3 and not running.done():
            time.sleep(0.05)
        before = len(list(out.glob("part-*")))
        cluster.remove_node(cluster.workers.pop(0), allow_graceful=False)  # no other takes its place
        done = running.result()
    cluster.workers.append(cluster.add_node(num_cpus=1))
    assert before < done.parts == 125
    assert done.total == 4000
    assert 125 <= len(list((tmp_path / "begun").iterdir())) < 125 + 8  # what was done is not done again
    assert rows_in(out) == local_rows(shapes_run, folder, tmp_path / "local.parquet")


@pytest.mark.slow
def test_a_killed_process_costs_no_row(
    cluster: Any, shapes_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "photos", named_pictures(100))
    let_nodes_use(partial(killed_once, tmp_path / "killed"), monkeypatch)
    done = on(cluster.address, shapes_run, [folder], tmp_path / "out")
    assert (tmp_path / "killed").exists() and done.total == 100
    assert rows_in(tmp_path / "out") == local_rows(shapes_run, folder, tmp_path / "local.parquet")


def kills_on(word: str, block: Any, order: Any, archive: Any) -> bytes:
    if any(word in name for name in block.names):
        os.kill(os.getpid(), signal.SIGKILL)
    return PART(block, order, archive)


@pytest.mark.slow
def test_a_picture_that_kills_its_process_stops_nothing_else(
    cluster: Any, shapes_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "photos", named_pictures(100))
    monkeypatch.setattr(predict, "_TRIES", 2)
    let_nodes_use(partial(kills_on, "00000"), monkeypatch)
    with pytest.raises(
        ThawlabError, match=r"1 of 4 parts are missing, the first: .*00000\.png to .*: its process was lost 2 times"
    ):
        on(cluster.address, shapes_run, [folder], tmp_path / "out")
    assert len(rows_in(tmp_path / "out")) == 68
    assert not (tmp_path / "out" / SUMMARY).exists()
    monkeypatch.undo()
    done = on(cluster.address, shapes_run, [folder], tmp_path / "out")
    assert (done.total, done.parts, done.new) == (100, 4, 1)


@pytest.mark.slow
def test_what_was_interrupted_goes_on(
    cluster: Any, shapes_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = write_folder(tmp_path / "photos", named_pictures(300)), tmp_path / "out"
    real, written = predict.add_part, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal written
        written += 1
        if written > 4:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(predict, "add_part", interrupted)
        on(cluster.address, shapes_run, [folder], out)
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(kept) == 4 and not (out / SUMMARY).exists()
    done = on(cluster.address, shapes_run, [folder], out)
    assert (done.total, done.parts, done.new) == (300, 10, 6) and (out / SUMMARY).exists()
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    assert rows_in(out) == local_rows(shapes_run, folder, tmp_path / "local.parquet")


@pytest.mark.slow
def test_what_changed_is_predicted_again_and_nothing_is_left_of_it(cluster: Any, shapes_run: RunFolder, tmp_path: Path) -> None:
    folder, out = write_folder(tmp_path / "photos", named_pictures(100)), tmp_path / "out"
    on(cluster.address, shapes_run, [folder], out)
    (folder / "0/00000.png").write_bytes(encoded(5000))
    (folder / "2/00098.png").unlink()
    done = on(cluster.address, shapes_run, [folder], out)
    assert (done.total, done.parts, done.new) == (99, 4, 2)
    assert rows_in(out) == local_rows(shapes_run, folder, tmp_path / "local.parquet")


@pytest.mark.slow
def test_a_run_that_the_nodes_do_not_see_travels(
    cluster: Any, shapes_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "photos", named_pictures(50))
    told = predict._resources

    def elsewhere(ray: Any, order: Any) -> Any:
        resources, order = told(ray, order)
        return resources, order._replace(run=Path("/nowhere") / order.run.name)

    real = predict.archived
    monkeypatch.setattr(predict, "_resources", elsewhere)
    monkeypatch.setattr(predict, "archived", lambda _run, only: real(shapes_run.path, only))
    on(cluster.address, shapes_run, [folder], tmp_path / "out")
    assert rows_in(tmp_path / "out") == local_rows(shapes_run, folder, tmp_path / "local.parquet")


@pytest.mark.slow
def test_a_shard_that_is_cut_keeps_its_rows_and_is_named(cluster: Any, shapes_run: RunFolder, tmp_path: Path) -> None:
    whole, half = shard_of(named_pictures(40)), shard_of(named_pictures(40, 40))
    source = write_folder(tmp_path / "in", {"a.tar": whole, "b.tar": half[: len(half) // 2]})
    done = on(cluster.address, shapes_run, [source], tmp_path / "out")
    before = done.total
    assert 40 < before < 80
    [flaw] = done.flaws
    assert f"b.tar: is damaged after {before - 40} pictures" in flaw
    again = on("127.0.0.1:1", shapes_run, [source], tmp_path / "out")
    assert again.flaws == done.flaws and again.new == 0  # said again, not predicted again
    (source / "b.tar").write_bytes(half)
    done = on(cluster.address, shapes_run, [source], tmp_path / "out")
    assert (done.total, done.new, done.flaws) == (80, 1, ())
    assert len(rows_in(tmp_path / "out")) == 80


def blind(places: tuple[str, ...], version: str) -> str:
    return node.survey(tuple(place.replace("photos", "nowhere") for place in places), version)


@pytest.mark.slow
def test_a_node_without_the_data_is_named_before_anything_starts(
    cluster: Any, shapes_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    ray.cloudpickle.register_pickle_by_value(__import__(__name__))
    folder = write_folder(tmp_path / "photos", named_pictures(5))
    monkeypatch.setattr(predict, "survey", blind)
    with pytest.raises(ThawlabError, match=r"on node \S+: there is no \S+nowhere; let every node see the pictures"):
        on(cluster.address, shapes_run, [folder], tmp_path / "out")
    monkeypatch.setattr(predict, "survey", lambda _places, version: node.survey((), version + "x"))
    with pytest.raises(ThawlabError, match=r"thawlab is \S+ on node \S+ and \S+x here; install the same on all"):
        on(cluster.address, shapes_run, [folder], tmp_path / "out")


@pytest.mark.slow
def test_pictures_that_a_node_lacks_are_no_rows(
    cluster: Any, shapes_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "photos", named_pictures(100))
    blocks = blocks_of([str(folder)])
    gone = folder / blocks[1].names[0]
    content = gone.read_bytes()
    gone.unlink()
    monkeypatch.setattr(predict, "blocks_of", lambda _sources: blocks)
    with pytest.raises(
        ThawlabError, match=r"1 of 4 parts are missing, the first: on node \S+: .* was listed, and cannot be found"
    ):
        on(cluster.address, shapes_run, [folder], tmp_path / "out")
    gone.write_bytes(content)
    assert on(cluster.address, shapes_run, [folder], tmp_path / "out")[1:] == (100, 0, 4, 1, ())


def test_errors_are_one_line_each(shapes_run: RunFolder, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", named_pictures(3))
    with pytest.raises(ThawlabError, match=r"--ray 127\.0\.0\.1:1: there is no such cluster"):
        on("127.0.0.1:1", shapes_run, [folder], tmp_path / "out")
    with pytest.raises(UsageError, match="there is no such file or folder"):
        on("local", shapes_run, [tmp_path / "nothing"], tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt: is none of this command's parts"):
        on("local", shapes_run, [folder], tmp_path / "mine")
    with pytest.raises(UsageError, match="there is no such export; make it first"):
        on("local", shapes_run, [folder], tmp_path / "out", engine="onnx")
    with pytest.raises(UsageError, match=r"s3://a/b: addresses are read with --ray"):
        api.predict(shapes_run.path, ["s3://a/b"])


def test_without_ray_it_is_said_how_to_install_it(shapes_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ray", "ray.data"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(UsageError, match=r"--ray needs .*thawlab\[ray\]"):
        on("local", shapes_run, [tmp_path], tmp_path / "out")
