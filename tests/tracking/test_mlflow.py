"""MLflow, read back with its own client from a store of files, the one that `mlflow-skinny` opens without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from thawlab.errors import ThawlabError
from thawlab.results import read_rows, write_rows
from thawlab.run import RunFolder
from thawlab.tracking import Target, track, trackers
from thawlab.tracking.rows import described, snapshot

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return (tmp_path / "store").as_uri()


def write(uri: str, *runs: RunFolder) -> None:
    track(runs, trackers.get("mlflow"), Target(uri=uri))


def read(uri: str) -> tuple[Any, list[Any]]:
    client = mlflow.MlflowClient(tracking_uri=uri)
    return client, client.search_runs([client.get_experiment_by_name("thawlab").experiment_id])


def history(uri: str, name: str) -> list[tuple[int, float]]:
    client, [found] = read(uri)
    return [(metric.step, metric.value) for metric in client.get_metric_history(found.info.run_id, name)]


def test_what_is_written_is_read_back(run: RunFolder, uri: str) -> None:
    write(uri, run)
    now, (_, [found]) = snapshot(run), read(uri)
    for name in ("train_loss", "val_loss", "val_accuracy", "lr"):
        assert history(uri, name) == [(row.step, row.values[name]) for row in now.rows]
    assert history(uri, "test_accuracy") == [(now.step, now.final["test_accuracy"])]
    assert found.info.status == "FINISHED" and found.info.run_name == described(run).name
    assert found.data.tags["thawlab.digest"] == run.recipe.digest
    assert found.data.params["phases.1.lr"] == str(run.recipe.phases[1].lr)
    assert set(found.data.params) == set(described(run).settings)


def test_writing_twice_adds_nothing(run: RunFolder, uri: str) -> None:
    write(uri, run)
    _, [before] = read(uri)
    write(uri, run)
    _, [after] = read(uri)
    assert len(history(uri, "train_loss")) == len(read_rows(run.metrics))
    assert after.info.end_time == before.info.end_time


@pytest.mark.parametrize(("stopped", "status"), [("interrupted", "KILLED"), ("failed", "FAILED"), ("running", "RUNNING")])
def test_a_run_that_goes_on_is_appended_to(run: RunFolder, uri: str, stopped: Any, status: str) -> None:
    rows = read_rows(run.metrics)
    write_rows(run.metrics, rows[:3])
    run.set_status(stopped)
    write(uri, run)
    assert len(history(uri, "train_loss")) == 3 and read(uri)[1][0].info.status == status
    write_rows(run.metrics, rows)
    run.set_status("finished")
    write(uri, run)
    assert history(uri, "train_loss") == [(row.step, row.values["train_loss"]) for row in snapshot(run).rows]
    assert read(uri)[1][0].info.status == "FINISHED"


def test_several_runs_are_beside_each_other(run: RunFolder, other_run: RunFolder, uri: str) -> None:
    write(uri, run, other_run)
    assert {found.data.tags["thawlab.digest"] for found in read(uri)[1]} == {run.recipe.digest, other_run.recipe.digest}


def test_an_address_that_mlflow_cannot_use_is_one_line(run: RunFolder) -> None:
    with pytest.raises(ThawlabError, match=r"^no-such-store://here: MLflow refuses: .+") as error:
        write("no-such-store://here", run)
    assert "\n" not in str(error.value)
