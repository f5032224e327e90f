from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

import thawlab
from thawlab import api
from thawlab.deploy import output, predictor
from thawlab.deploy.opening import model_digest
from thawlab.deploy.prediction import Prediction
from thawlab.deploy.predictor import Predictor
from thawlab.errors import ThawlabError, UsageError
from thawlab.run import RunFolder
from thawlab.runner import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    from thawlab.recipe import parse_recipe

    phases = [{"train": "all", "epochs": 1, "batch_size": 32, "lr": 0.01}]
    data, system = {"source": "shapes:200x16", "image_size": 16}, {"threads": 1}
    recipe = parse_recipe({"data": data, "model": {"backbone": "cnn5"}, "phases": phases, "system": system})
    return train(recipe, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def images(photos: Path) -> Path:
    (photos / "red" / "damaged.png").write_bytes(b"no image")
    return photos


def into(run: RunFolder, images: Path, table: Path, **more: object) -> output.Written:
    return api.predict_into(run.path, [images], table, device="cpu", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".CSV"])
def test_a_table_says_what_predict_says(suffix: str, run: RunFolder, images: Path, tmp_path: Path) -> None:
    table = tmp_path / f"out{suffix}"
    assert into(run, images, table)[1:] == (25, 1)
    expected = [prediction.as_json() for prediction in api.predict(run.path, [images], device="cpu")]
    assert not table.with_name(f"{table.name}.partial").exists()
    if suffix == ".jsonl":
        assert [json.loads(line) for line in table.read_text().splitlines()] == expected
        return
    rows = pq.read_table(table).to_pylist() if suffix == ".parquet" else list(csv.DictReader(table.open()))
    assert len(rows) == 25
    for row, one in zip(rows, expected, strict=True):
        assert row["source"] == one["source"]
        if "error" in one:
            assert row["error"] == one["error"] and not row["class"]
            continue
        for number, pair in enumerate(one["predictions"]):
            end = f"_{number + 1}" if number else ""
            assert row[f"class{end}"] == pair["class"] and float(row[f"probability{end}"]) == pair["probability"]
        assert str(row["unsure"]) == str(one["unsure"])


@pytest.mark.parametrize("stop", [1, 7, 24])
def test_what_was_interrupted_goes_on_where_it_stopped(
    stop: int, run: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into(run, images, tmp_path / "whole.csv")
    table, asked = tmp_path / "cut.csv", []
    monkeypatch.setattr(predictor, "_PORTION", 4)
    real = Predictor._portion

    def counted(self: Predictor, given: list[object], *rest: object) -> object:
        asked.extend(given)
        return real(self, given, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "_portion", counted)
    line = output._line
    written = 0

    def interrupted(prediction: object) -> str:
        nonlocal written
        written += 1
        if written > stop:
            raise KeyboardInterrupt
        return line(prediction)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(output, "_line", interrupted)
        into(run, images, table)
    partial = tmp_path / "cut.csv.partial"
    assert not table.exists() and partial.exists()
    with partial.open("a") as lines:
        lines.write('{"source": "half a li')  # a kill in the middle of a line
    asked.clear()
    assert into(run, images, table)[1:] == (25, 1)
    assert len(asked) == 25 - stop
    assert table.read_bytes() == (tmp_path / "whole.csv").read_bytes() and not partial.exists()


def test_what_another_model_began_is_not_continued(run: RunFolder, images: Path, tmp_path: Path) -> None:
    partial = tmp_path / "out.csv.partial"
    partial.write_text('{"model": "another", "top_k": 3}\n')
    with pytest.raises(
        UsageError, match=r"out\.csv\.partial: holds predictions of another model, or with another --top-k or --engine"
    ):
        into(run, images, tmp_path / "out.csv")
    partial.write_text("a note of mine\n")
    with pytest.raises(UsageError, match="holds predictions of another model"):
        into(run, images, tmp_path / "out.csv")
    assert partial.read_text() == "a note of mine\n"


@pytest.mark.parametrize("content", ["a note of mine", "{", '{"model"', '{"model": "x', "{}\n", "[]", "\n", "\0"])
def test_nothing_of_a_file_that_is_not_ours_is_lost(content: str, run: RunFolder, images: Path, tmp_path: Path) -> None:
    for table, begun in (("out.csv", "out.csv.partial"), ("out.jsonl", "out.jsonl")):
        (tmp_path / begun).write_text(content)
        is_ours = '{"model": "'.startswith(content)
        if begun == "out.jsonl" and not is_ours:
            with pytest.raises(UsageError, match="or something else; move it away"):
                next(api.watch(run.path, images, tmp_path / table, device="cpu"))
        if begun == "out.csv.partial" and not is_ours:
            with pytest.raises(UsageError, match="or something else; move it away"):
                into(run, images, tmp_path / table)
        assert is_ours or (tmp_path / begun).read_text() == content


def test_a_damaged_line_is_said_and_kept(run: RunFolder, images: Path, tmp_path: Path) -> None:
    partial = tmp_path / "out.csv.partial"
    for line in ("half a li\n", "{}\n", "3\n", "[]\n"):
        content = json.dumps({"model": model_digest(run), "top_k": 3}) + "\n" + line
        partial.write_text(content)
        with pytest.raises(ThawlabError, match=r"out\.csv\.partial: a line of it is damaged; move it away"):
            into(run, images, tmp_path / "out.csv")
        assert partial.read_text() == content


def test_missing_folders_are_made(run: RunFolder, images: Path, tmp_path: Path) -> None:
    assert into(run, images, tmp_path / "a" / "b" / "out.csv").total == 25


def test_files_that_were_taken_away_meanwhile_are_not_in_the_table(run: RunFolder, images: Path, tmp_path: Path) -> None:
    into(run, images, tmp_path / "first.jsonl")
    lines = (tmp_path / "first.jsonl").read_text().splitlines(keepends=True)
    header = json.dumps({"model": model_digest(run), "top_k": 3}) + "\n"
    (tmp_path / "out.jsonl.partial").write_text(header + "".join(lines))
    (images / "red" / "damaged.png").unlink()
    assert into(run, images, tmp_path / "out.jsonl")[1:] == (24, 0)


def test_bad_input_is_one_line(run: RunFolder, images: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a table of predictions ends in \.csv, \.jsonl, \.parquet"):
        into(run, images, tmp_path / "out.txt")
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        into(run, images, tmp_path / "out.csv")
    assert into(run, images, tmp_path / "out.csv", force=True).total == 25
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(ThawlabError, match="cannot be written"):
            into(run, images, tmp_path / "closed" / "out.csv")
    with pytest.raises(ThawlabError, match="cannot be written"):
        into(run, images, Path("/proc/no/out.csv"))


def test_names_that_are_not_utf_8_are_written_escaped(run: RunFolder, images: Path, tmp_path: Path) -> None:
    shutil.copy(images / "red" / "00.png", os.fsencode(images / "red") + b"/caf\xe9.png")
    for suffix in (".csv", ".jsonl", ".parquet"):
        table = tmp_path / f"out{suffix}"
        assert into(run, images, table).total == 26
        text = str(pq.read_table(table).column("source").to_pylist()) if suffix == ".parquet" else table.read_text()
        assert "caf\\udce9.png" in text.replace("\\\\", "\\")


def test_a_folder_is_watched_and_nothing_is_predicted_twice(
    run: RunFolder, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, box = tmp_path / "out.jsonl", tmp_path / "box"
    box.mkdir()
    shutil.copy(photos / "red" / "00.png", box / "a.png")
    looks = iter(range(100))

    def pause(_: float) -> None:
        look = next(looks)
        if look == 1:
            (box / "sub").mkdir()
            shutil.copy(photos / "blue" / "00.png", box / "sub" / "b.png")
        if look == 2:  # still being written
            content = (photos / "blue" / "01.png").read_bytes()
            (box / "c.png").write_bytes(content[:50])
        if look == 3:
            (box / "c.png").write_bytes((photos / "blue" / "01.png").read_bytes())
        if look == 6:
            raise KeyboardInterrupt

    stream, threads = Predictor.stream, []

    def counted(self: Predictor, images: Any, top_k: int, workers: int | None) -> Iterator[Prediction]:
        threads.append(workers)
        return stream(self, images, top_k, workers)

    monkeypatch.setattr(Predictor, "stream", counted)
    monkeypatch.setattr(output.time, "sleep", pause)
    found = []
    with pytest.raises(KeyboardInterrupt):
        for prediction in api.watch(run.path, box, table, workers=1, device="cpu"):
            found.append(prediction)
    assert [Path(prediction.source).name for prediction in found] == ["a.png", "b.png", "c.png"]
    assert set(threads) == {1}
    assert all(prediction.error is None for prediction in found)
    Image.new("RGB", (20, 20), "red").save(box / "d.png")
    looks = iter(range(4, 100))
    with pytest.raises(KeyboardInterrupt):
        for prediction in api.watch(run.path, box, table, device="cpu"):
            found.append(prediction)
    assert [Path(prediction.source).name for prediction in found] == ["a.png", "b.png", "c.png", "d.png"]
    assert [json.loads(line)["source"] for line in table.read_text().splitlines()[1:]] == [p.source for p in found]
    with pytest.raises(UsageError, match="there is no such folder to watch"):
        next(api.watch(run.path, tmp_path / "nowhere", table))
    with pytest.raises(UsageError, match=r"let it end in \.jsonl"):
        next(api.watch(run.path, box, tmp_path / "out.csv"))


def test_a_stream_holds_a_few_portions_whatever_its_length(run: RunFolder, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor, "_PORTION", 4)
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield photos / "red" / "00.png"

    stream = thawlab.load(run.path, device="cpu").stream(endless(), 1)  # type: ignore[arg-type]
    for number in range(1, 40):
        assert next(stream).classes
        assert taken <= number + 8
    stream.close()
