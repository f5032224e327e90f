"""TensorBoard's event files, read back with its own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from thawlab.errors import ThawlabError
from thawlab.results import read_results, read_rows, write_rows
from thawlab.run import RunFolder
from thawlab.tracking import Target, track, trackers
from thawlab.tracking.rows import snapshot

pytest.importorskip("tensorboard")


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return reader


def write(run: RunFolder, out: Path) -> Path:
    [place] = track([run], trackers.get("tensorboard"), Target(out=out)).values()
    return Path(place)


def test_what_is_written_is_read_back(run: RunFolder, tmp_path: Path) -> None:
    reader, now = read(write(run, tmp_path)), snapshot(run)
    for name in ("train_loss", "val_loss", "val_accuracy", "lr"):
        events = reader.Scalars(name)
        assert [event.step for event in events] == [row.step for row in now.rows]
        assert [event.value for event in events] == pytest.approx([row.values[name] for row in now.rows])
    [accuracy] = reader.Scalars("test_accuracy")
    assert (accuracy.step, accuracy.value) == (now.step, pytest.approx(read_results(run.results).test.accuracy))


def test_the_settings_are_hyperparameters(run: RunFolder, tmp_path: Path) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    contents = read(write(run, tmp_path)).PluginTagToContent("hparams")
    assert set(contents) == {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"}
    started = HParamsPluginData.FromString(contents["_hparams_/session_start_info"]).session_start_info.hparams
    assert started["model.backbone"].string_value == run.recipe.model.backbone
    assert started["phases.1.lr"].number_value == run.recipe.phases[1].lr


def test_writing_twice_adds_nothing(run: RunFolder, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in write(run, tmp_path).iterdir()}
    assert {file: file.read_bytes() for file in write(run, tmp_path).iterdir()} == before
    assert len(before) == 1


def test_a_run_that_goes_on_is_appended_to(run: RunFolder, tmp_path: Path) -> None:
    rows = read_rows(run.metrics)
    write_rows(run.metrics, rows[:3])
    run.set_status("running")
    folder = write(run, tmp_path)
    assert len(read(folder).Scalars("train_loss")) == 3
    assert "_hparams_/session_end_info" not in read(folder).PluginTagToContent("hparams")
    write_rows(run.metrics, rows)
    run.set_status("finished")
    assert write(run, tmp_path) == folder
    reader = read(folder)
    assert [event.step for event in reader.Scalars("train_loss")] == [row.step for row in snapshot(run).rows]
    assert "_hparams_/session_end_info" in reader.PluginTagToContent("hparams")


def test_several_runs_lie_beside_each_other(run: RunFolder, other_run: RunFolder, tmp_path: Path) -> None:
    places = track([run, other_run], trackers.get("tensorboard"), Target(out=tmp_path / "events"))
    assert sorted(places.values()) == sorted(map(str, (tmp_path / "events").iterdir()))


def test_a_folder_that_cannot_be_made_is_one_line(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ThawlabError, match="cannot be written"):
        write(run, tmp_path / "file")
