"""Cells on a Ray cluster: equal to the local ones, also where nodes are lost or do not see the study's folder."""

from __future__ import annotations

import io
import queue
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thawlab.errors import ThawlabError, UsageError
from thawlab.evaluation.predictions import load_predictions
from thawlab.ray_cluster import archived, unpacked
from thawlab.studies import ray_pool
from thawlab.studies.design import Design, read_design
from thawlab.studies.folder import StudyFolder
from thawlab.studies.study import run_study


def small(images: int = 200, epochs: int = 1, **more: Any) -> Design:
    settings = {"data.image_size": 16, "model.backbone": "cnn5", "phases.0.epochs": epochs, "system.device": "cpu", **more}
    return read_design(
        f"shapes:{images}x16", vary=["phases.0.lr=0.01,0.02"], seeds="2", question="", name="cells", overrides=settings
    )


def assert_equal(one: StudyFolder, two: StudyFolder) -> None:
    entries = one.read().entries
    assert entries == two.read().entries
    for entry in entries:
        files = [folder.run(entry).model / "model.safetensors" for folder in (one, two)]
        assert files[0].read_bytes() == files[1].read_bytes()
        tables = [load_predictions(folder.run(entry).predictions("test")) for folder in (one, two)]
        assert np.array_equal(tables[0].logits, tables[1].logits)


def test_a_run_comes_back_as_it_was_and_overwrites_none(tmp_path: Path) -> None:
    run = tmp_path / "node" / "a-run"
    (run / "model").mkdir(parents=True)
    (run / "results.json").write_text("{}")
    (run / "model" / "model.safetensors").write_bytes(b"weights")
    study = tmp_path / "study"
    study.mkdir()
    unpacked(archived(run), study)
    assert (study / "a-run" / "model" / "model.safetensors").read_bytes() == b"weights"
    (study / "a-run" / "results.json").write_text("kept")
    unpacked(archived(run), study)
    assert (study / "a-run" / "results.json").read_text() == "kept"
    assert [entry.name for entry in study.iterdir()] == ["a-run"]


def test_an_archive_that_leads_outside_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../outside.txt"))
    study = tmp_path / "study"
    study.mkdir()
    with pytest.raises(tarfile.TarError):
        unpacked(buffer.getvalue(), study)
    assert not (tmp_path / "outside.txt").exists()
    assert list(study.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda content: content[:300], lambda content: content[::-1], lambda _content: b""])
def test_an_archive_that_was_damaged_on_its_way_fails_its_cell(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    run, study = tmp_path / "node" / "a-run", tmp_path / "study"
    run.mkdir(parents=True)
    (run / "weights").write_bytes(np.random.default_rng(0).bytes(5000))
    study.mkdir()
    pool = ray_pool.RayPool.__new__(ray_pool.RayPool)  # without a cluster
    pool._ray, pool._study, pool._refs, pool.answers = ray, study, {}, queue.Queue()
    future: Future[dict[str, Any]] = Future()
    future.set_result({"status": "finished", "run": "a-run", "archive": damage(archived(run))})
    pool._answer("a-run", future)
    name, answer = pool.answers.get_nowait()
    assert (name, answer["status"]) == ("a-run", "failed")
    assert "the run that came back cannot be read or written" in answer["reason"]
    assert list(study.iterdir()) == []


def test_without_ray_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"--ray needs .*thawlab\[ray\]"):
        run_study(small(), tmp_path, ray="local")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Callable[[], Any]]:
    """A cluster of three nodes on this machine: a head without cores, and two nodes with one core each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]

    def lose_one() -> None:
        made.remove_node(nodes.pop(0), allow_graceful=False)
        nodes.append(made.add_node(num_cpus=1))

    lose_one.address = made.address  # type: ignore[attr-defined]
    yield lose_one
    made.shutdown()


@pytest.mark.slow
def test_the_cells_on_a_cluster_are_the_local_ones(cluster: Any, tmp_path: Path) -> None:
    local = run_study(small(), tmp_path / "local", parallel=2)
    on_ray = run_study(small(), tmp_path / "ray", parallel=2, ray=cluster.address)
    assert on_ray.conducted.failed == {}
    assert_equal(local.folder, on_ray.folder)
    again = run_study(small(), tmp_path / "ray", parallel=2, ray=cluster.address)
    assert (again.conducted.ran, again.conducted.before) == (0, 4)


@pytest.mark.slow
def test_a_lost_node_costs_no_cell(cluster: Any, tmp_path: Path) -> None:
    local = run_study(small(2000, 6), tmp_path / "local", parallel=2)
    study = StudyFolder(tmp_path / "ray" / "cells")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_study, small(2000, 6), tmp_path / "ray", parallel=2, ray=cluster.address)
        while not any(study.path.glob("*/metrics.jsonl")):
            time.sleep(0.1)
        cluster()  # in this thread, since a node that joins sets signal handlers
        on_ray = running.result()
    assert on_ray.conducted.failed == {}
    assert_equal(local.folder, on_ray.folder)


@pytest.mark.slow
def test_runs_of_nodes_that_do_not_see_the_folder_come_back(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = run_study(small(), tmp_path / "local", parallel=2)
    monkeypatch.setattr(ray_pool, "_token_of", lambda _study: "a record that no node has")
    on_ray = run_study(small(), tmp_path / "ray", parallel=2, ray=cluster.address)
    assert on_ray.conducted.failed == {}
    assert_equal(local.folder, on_ray.folder)


@pytest.mark.slow
def test_a_node_without_the_data_is_named(cluster: Any, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images are found from the folder that the driver is in; the nodes have no such folder."""
    (tmp_path / "here").mkdir()
    photos.rename(tmp_path / "here" / "photos")
    monkeypatch.chdir(tmp_path / "here")
    settings = {"data.image_size": 16, "model.backbone": "cnn5", "phases.0.epochs": 1, "system.device": "cpu"}
    vary = ["phases.0.lr=0.01,0.02"]
    design = read_design("./photos", vary=vary, seeds="2", question="", name="cells", overrides=settings)
    monkeypatch.setattr(ray_pool, "_folder", lambda: tmp_path / "nowhere")
    with pytest.raises(ThawlabError, match=r"0 of 4 cells finished"):
        run_study(design, tmp_path / "there", ray=cluster.address)
    pool = ray_pool.RayPool(cluster.address, 1, tmp_path / "there" / "cells", wants_gpu=False)
    study = StudyFolder(tmp_path / "there" / "cells")
    entry = study.read().entries[0]
    pool.give(entry.run, study.recipe(entry), study.path)
    _, answer = pool.answers.get(timeout=60)
    pool.close()
    assert answer["status"] == "failed"
    assert re.search(r"on node \S+: .*photos", answer["reason"])


def test_an_address_without_a_cluster_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ThawlabError, match=r"--ray 127\.0\.0\.1:1: there is no such cluster"):
        run_study(small(), tmp_path, ray="127.0.0.1:1")
