"""Predictions of any number of files as a table, written as they come, and resumed where they were interrupted."""

import csv
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from thawlab import progress
from thawlab.data.folders import image_files_below
from thawlab.deploy.prediction import Prediction
from thawlab.deploy.predictor import Predictor
from thawlab.errors import ThawlabError, UsageError, listed
from thawlab.files import write_atomically

# Predictions are put on the disk after so many, and a Parquet file has so many rows in a group.
_FLUSHED, _GROUP = 256, 10_000


class Written(NamedTuple):
    """What was written: the table, how many files it names, and how many of them could not be read."""

    table: Path
    total: int
    failed: int


def write_predictions(
    predictor: Predictor, files: Sequence[Path], table: Path, top_k: int, model: str, workers: int | None = None
) -> Written:
    """Predict files into a table.

    Until all are predicted they lie in a file of lines beside it (`TABLE.partial`); the same call goes on from there.

    Args:
        predictor: of the model.
        files: to predict.
        table: .csv, .jsonl or .parquet.
        top_k: how many classes each prediction names.
        model: a digest of the model.
        workers: threads that decode.

    Raises:
        UsageError: for another suffix, or where what was interrupted is of another model or `top_k`.
        ThawlabError: if the table cannot be written.
    """
    write = _WRITERS.get(table.suffix.lower())
    if write is None:
        raise UsageError(f"{table}: a table of predictions ends in {listed(_WRITERS)}")
    partial = table.with_name(f"{table.name}.partial")
    named = {_printable(str(file)): file for file in files}
    done = _begun(partial, {"model": model, "top_k": top_k})
    left = [file for name, file in named.items() if name not in done]
    with _writing(partial), partial.open("a", encoding="utf-8") as lines, progress.task("predicting", len(left)) as advance:
        for number, prediction in enumerate(predictor.stream(left, top_k, workers), start=1):
            lines.write(_line(prediction))
            if not number % _FLUSHED:
                lines.flush()
            advance(1)
    counts = {"all": 0, "failed": 0}

    def rows() -> Iterator[dict[str, Any]]:
        for row in _lines(partial):
            if row["source"] in named:
                counts["all"] += 1
                counts["failed"] += "error" in row
                yield row

    write_atomically(table, lambda file: write(file, rows(), top_k))
    partial.unlink()
    return Written(table, counts["all"], counts["failed"])


def watch_folder(
    predictor: Predictor, folder: Path, table: Path, top_k: int, model: str, pause: float, workers: int | None = None
) -> Iterator[Prediction]:
    """Predict the images of a folder as they come, add each to a file of lines, and yield it; without an end.

    A file is read once two looks, `pause` seconds apart, found it the same: until then it may be being written.

    Raises:
        UsageError: if there is no such folder, the file does not end in .jsonl, or holds something else.
        ThawlabError: if the file cannot be written.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder to watch")
    if table.suffix.lower() != ".jsonl":
        raise UsageError(f"{table}: predictions that are added as they come are lines of JSON; let it end in .jsonl")
    done = _begun(table, {"model": model, "top_k": top_k})
    before: dict[Path, tuple[int, int]] = {}
    while True:
        now = {file: _look(file) for file in image_files_below(folder) if _printable(str(file)) not in done}
        settled = [file for file, look in now.items() if before.get(file) == look]
        for prediction in predictor.stream(settled, top_k, workers):
            with _writing(table), table.open("a", encoding="utf-8") as lines:
                lines.write(_line(prediction))
            done.add(_printable(prediction.source))
            yield prediction
        before = now
        time.sleep(pause)


def _look(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return -1, time.monotonic_ns()  # gone, or not there yet: never the same
    return found.st_size, found.st_mtime_ns


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise ThawlabError(f"{file}: cannot be written: {reason}; the same command goes on from what it holds") from None


def _begun(file: Path, header: Mapping[str, Any]) -> set[str]:
    """Begin a file of lines, or find one that was begun, and return the sources that it holds.

    Its first line says of which model it is. A line that an interruption cut short is taken off; nothing else is changed.

    Raises:
        UsageError: if the file is of another model or `top_k`, or is none of ours.
        ThawlabError: if it cannot be written, or a line of it is damaged.
    """
    first = json.dumps(header) + "\n"
    with _writing(file):
        content = file.read_bytes() if file.exists() else b""
        if first.encode().startswith(content):  # not there, empty, or interrupted within its first line
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(first, encoding="utf-8")
            return set()
        if not content.startswith(first.encode()):
            raise UsageError(
                f"{file}: holds predictions of another model, or with another --top-k or --engine, or something else; move it "
                "away, or give another --out"
            )
        if not content.endswith(b"\n"):
            os.truncate(file, content.rfind(b"\n") + 1)
    try:
        return {row["source"] for row in _lines(file)}
    except (ValueError, KeyError, TypeError):
        raise ThawlabError(f"{file}: a line of it is damaged; move it away to predict everything again") from None


def _lines(partial: Path) -> Iterator[dict[str, Any]]:
    with partial.open(encoding="utf-8") as lines:
        next(lines, None)
        yield from map(json.loads, lines)


def _line(prediction: Prediction) -> str:
    return json.dumps(row_of(prediction), ensure_ascii=False) + "\n"


def row_of(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as JSON values that can be written."""
    return {**prediction.as_json(), "source": _printable(prediction.source)}


def _printable(text: str) -> str:
    """Return a name with the bytes escaped that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _flat(row: Mapping[str, Any], top_k: int) -> dict[str, Any]:
    """Return a prediction as a row of a table: `class` and `probability` of the first class, then `class_2` and so on."""
    flat: dict[str, Any] = {"source": row["source"]}
    pairs = row.get("predictions", [])
    for number in range(top_k):
        pair = pairs[number] if number < len(pairs) else {"class": None, "probability": None}
        end = f"_{number + 1}" if number else ""
        flat |= {f"class{end}": pair["class"], f"probability{end}": pair["probability"]}
    return {**flat, **{key: row.get(key) for key in ("unsure", "novel", "error")}}


def _write_csv(file: BinaryIO, rows: Iterable[Mapping[str, Any]], top_k: int) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.DictWriter(text, _flat({"source": ""}, top_k), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_flat(row, top_k) for row in rows)
    text.detach()


def _write_lines(file: BinaryIO, rows: Iterable[Mapping[str, Any]], top_k: int) -> None:  # noqa: ARG001 - as the others
    for row in rows:
        file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8"))


def write_parquet(
    file: BinaryIO, rows: Iterable[Mapping[str, Any]], top_k: int, note: Callable[[], Mapping[str, str]] | None = None
) -> None:
    """Write predictions as Parquet.

    Args:
        file: to write to.
        rows: predictions as JSON values.
        top_k: how many classes each names at most.
        note: gives, once all rows are written, what the file's metadata say of them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"source": pa.string(), "error": pa.string(), "unsure": pa.bool_(), "novel": pa.bool_()}
    names = list(_flat({"source": ""}, top_k))
    schema = pa.schema([(name, kinds.get(name, pa.string() if name.startswith("class") else pa.float64())) for name in names])
    with pq.ParquetWriter(file, schema) as writer:
        group: list[dict[str, Any]] = []
        for row in rows:
            group.append(_flat(row, top_k))
            if len(group) == _GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        writer.write_table(pa.Table.from_pylist(group, schema))
        if note is not None:
            writer.add_key_value_metadata(note())


_WRITERS: dict[str, Callable[[BinaryIO, Iterable[Mapping[str, Any]], int], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_lines,
    ".parquet": write_parquet,
}
