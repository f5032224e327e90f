"""The values of a run: old ones are read, newer ones are refused, and nothing else than values comes out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from thawlab.errors import ThawlabError
from thawlab.results import ClassResult, EpochRow, Results, read_results, read_rows, write_results, write_rows

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = sorted([*(ROOT / "results").rglob("results.json"), *(ROOT / "results" / "cnn5").glob("seed-*.json")])


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_results_of_every_version_are_read_as_they_were_written(file: Path) -> None:
    written, results = json.loads(file.read_text(encoding="utf-8")), read_results(file)
    kept = results.as_json()
    assert results.test.accuracy == written["test"]["accuracy"] and results.schema_version == 1
    for key in ("name", "digest", "dataset", "model", "train", "val", "gap", "seed"):
        assert kept[key] == written[key], key
    assert all(kept["test"][key] == value for key, value in written["test"].items())
    assert [entry["id"] for entry in kept["diagnoses"]] == [entry["id"] for entry in written["diagnoses"]]
    rows = file.parent / "metrics.jsonl"
    if rows.is_file():
        assert [row.train_loss for row in read_rows(rows)] == [
            json.loads(line)["train_loss"] for line in rows.read_text(encoding="utf-8").splitlines()
        ]


def test_there_are_results_to_read() -> None:
    assert len(COMMITTED) > 10


def test_results_come_back_equal(tmp_path: Path) -> None:
    results = read_results(COMMITTED[0])
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results
    with pytest.raises(ValidationError):
        results.test.accuracy = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table | {"schema": 99}, "has schema 99, this thawlab reads 1"),
        (lambda table: table | {"gap": "wide"}, "gap: input should be a valid number"),
        (lambda table: {key: value for key, value in table.items() if key != "test"}, "test: field required"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, change: object, message: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(change(json.loads(COMMITTED[0].read_text(encoding="utf-8")))))  # type: ignore[operator]
    with pytest.raises(ThawlabError, match=message) as raised:
        read_results(file)
    assert "\n" not in str(raised.value) and str(file) in str(raised.value)


def test_rows_come_back_and_a_damaged_line_is_named(tmp_path: Path) -> None:
    row = EpochRow(
        phase="a", epoch=1, step=3, seconds=0.1, train_loss=1.0, val_loss=None, val_accuracy=None, lr=0.1, images_per_second=None
    )
    write_rows(tmp_path / "m.jsonl", [row, row])
    assert read_rows(tmp_path / "m.jsonl") == [row, row]
    write_rows(tmp_path / "m.jsonl", [row])  # rows are replaced as a whole
    assert read_rows(tmp_path / "m.jsonl") == [row]
    (tmp_path / "m.jsonl").write_text('{"phase": "a"')
    with pytest.raises(ThawlabError, match=r"m\.jsonl: is damaged"):
        read_rows(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ThawlabError, match=r"m\.jsonl: cannot be read"):
        read_rows(tmp_path / "m.jsonl")
    with pytest.raises(ThawlabError, match=r"n\.jsonl: is missing"):
        read_rows(tmp_path / "n.jsonl")


def test_the_schema_in_the_documentation_is_the_present_one() -> None:
    schema = json.dumps(Results.model_json_schema(by_alias=True), indent=1, ensure_ascii=False) + "\n"
    written = (ROOT / "docs" / "results.schema.json").read_text(encoding="utf-8")
    assert written == schema, "run `python tools/write_schema.py`"
    assert {"test", "phases", "diagnoses", "gap"} <= json.loads(written)["properties"].keys()


def test_three_thousand_classes_stay_small_on_disk(tmp_path: Path) -> None:
    count = 3000
    rng = np.random.default_rng(0)
    matrix = np.zeros((count, count), dtype=int)
    np.add.at(matrix, (rng.integers(0, count, 30_000), rng.integers(0, count, 30_000)), 1)
    names = tuple(f"class {number:04}" for number in range(count))
    rows = tuple(ClassResult(class_name=name, n=10, precision=0.1234567, recall=0.1234567, f1=0.1234567) for name in names)
    few = read_results(COMMITTED[0])
    test = few.test.model_copy(update={"confusion": tuple(map(tuple, matrix.tolist())), "per_class": rows})
    results = few.model_copy(update={"dataset": few.dataset.model_copy(update={"classes": names}), "test": test})
    write_results(tmp_path / "results.json", results)
    assert (tmp_path / "results.json").stat().st_size < 5_000_000
    read = read_results(tmp_path / "results.json")
    assert np.array_equal(read.test.confusion, matrix) and read.test == results.test
    assert few.as_json()["test"]["confusion"] == [list(row) for row in few.test.confusion]


@pytest.mark.parametrize("matrix", [{"n": 10**9, "cells": []}, {"n": 3, "cells": [[0, 5, 1]]}, {"n": 3, "cells": [[-1, 0, 1]]}])
def test_a_matrix_that_lies_is_refused_before_it_is_made(matrix: dict[str, object], tmp_path: Path) -> None:
    [old] = (Path(__file__).parent / "fixtures").glob("made-by-0.1.0-*")
    content = json.loads((old / "results.json").read_text())
    content["test"]["per_class"] = content["test"]["per_class"][:3]
    content["test"]["confusion"] = matrix
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(ThawlabError, match=r"test\.confusion: .*(a matrix of|lies outside)"):
        read_results(tmp_path / "results.json")
