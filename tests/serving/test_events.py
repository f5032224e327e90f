from __future__ import annotations

import asyncio
import http.client
import json
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import Server

from thawlab.run import RunFolder
from thawlab.serving.events import Streams, Tail, event
from thawlab.serving.refusals import RefusedError

ROW = {
    "phase": "a",
    "epoch": 1,
    "step": 3,
    "seconds": 0.5,
    "train_loss": 1.0,
    "val_loss": None,
    "val_accuracy": 0.5,
    "lr": 0.1,
    "images_per_second": None,
    "val_balanced_accuracy": None,
    "val_macro_f1": None,
}


def line(epoch: int) -> str:
    return json.dumps({**ROW, "epoch": epoch}) + "\n"


def epochs(tail: Tail) -> tuple[bool, list[int], str]:
    found = tail.read()
    return found.again, [row.epoch for row in found.rows], found.problem


def replaced(file: Path, text: str) -> None:
    """Replace a file as a run does: under another name, then renamed."""
    other = file.with_name("other")
    other.write_text(text)
    other.replace(file)


def test_a_tail_gives_each_row_once(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    tail = Tail(file)
    assert epochs(tail) == (False, [], "")
    file.write_text(line(1) + line(2)[:20])
    assert epochs(tail) == (False, [1], "")
    assert epochs(tail) == (False, [], "")
    replaced(file, line(1) + line(2))
    assert epochs(tail) == (False, [2], "")
    with file.open("a") as more:
        more.write(line(3) + line(4))
    assert epochs(tail) == (False, [3, 4], "")


def test_a_tail_begins_again_where_a_run_went_back(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    tail = Tail(file)
    file.write_text(line(1) + line(2) + line(3))
    assert epochs(tail) == (False, [1, 2, 3], "")
    replaced(file, line(1))
    assert epochs(tail) == (True, [1], "")
    replaced(file, line(1) + line(2).replace("0.5", "0.6"))
    assert epochs(tail) == (False, [2], "")
    replaced(file, line(1) + line(2).replace("0.5", "0.7") + line(3))
    assert epochs(tail) == (True, [1, 2, 3], "")
    file.unlink()
    assert epochs(tail) == (True, [], "")
    file.write_text(line(1))
    assert epochs(tail) == (False, [1], "")


def test_a_tail_names_a_damaged_row_and_gives_the_others(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    for damage in (b"\xff{}\n", b"\n", line(2).replace("0.1", "NaN").encode()):
        file.write_bytes(line(1).encode() + damage + line(3).encode())
        again, found, problem = epochs(Tail(file))
        assert (again, found) == (False, [1, 3])
        assert str(file) in problem


def test_a_long_file_is_read_in_portions_and_a_pipe_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thawlab.serving.events._PORTION", 2 * len(line(1)) + 9)
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(map(line, range(1, 6))))
    tail = Tail(file)
    assert [epochs(tail) for _ in range(4)] == [(False, [1, 2], ""), (False, [3, 4], ""), (False, [5], ""), (False, [], "")]
    file.unlink()
    os.mkfifo(file)
    assert epochs(Tail(file)) == (False, [], "")


def test_an_event_is_one_block() -> None:
    assert event("state", json.dumps({"a": "x\ny\r"})) == b'event: state\ndata: {"a": "x\\ny\\r"}\n\n'


def test_silence_is_broken_by_heartbeats_and_the_end_ends_all_streams(studio_folder: Path) -> None:
    folder = unfinished(studio_folder)

    async def watch() -> list[bytes]:
        streams, found = Streams(heartbeat=0.1), []
        async for piece in streams.watch(folder, folder.name):
            found.append(piece)
            if len(found) == 3:
                streams.end()
        return found

    first, *rest = asyncio.run(asyncio.wait_for(watch(), 20))
    assert first.count(b"event: row") == 2
    assert rest == [b": still here\n\n"] * 2


def test_too_many_streams_are_refused(studio_folder: Path) -> None:
    folder = unfinished(studio_folder)
    streams = Streams(most=2)
    for _ in range(2):
        streams.watch(folder, folder.name)
    with pytest.raises(RefusedError) as refused:
        streams.watch(folder, folder.name)
    assert refused.value.status == 503
    streams.left()
    streams.watch(folder, folder.name)


def unfinished(root: Path) -> RunFolder:
    """Turn a run into one that this process trains."""
    folder = RunFolder(next((root / "runs").glob("plain-*")))
    folder.results.unlink()
    folder.set_status("running")
    (folder.path / ".owner").write_text(f"process {os.getpid()} on {platform.node()}")
    return folder


def stream(server: Server, name: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", f"/api/runs/{name}/events")
    return connection, connection.getresponse()


def events(response: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    kind = ""
    for text in iter(response.readline, b""):
        field, _, value = text.decode().strip().partition(": ")
        kind = value if field == "event" else kind
        if field == "data":
            yield kind, json.loads(value)


def test_a_run_is_watched_until_it_has_finished(studio: Server, studio_folder: Path) -> None:
    name = next((studio_folder / "runs").glob("plain-*")).name
    results = (studio_folder / "runs" / name / "results.json").read_text()
    folder = unfinished(studio_folder)
    connection, response = stream(studio, name)
    assert response.getheader("content-type", "").startswith("text/event-stream")
    found = events(response)
    assert [next(found)[1]["epoch"] for _ in range(2)] == [1, 2]
    assert next(found)[1]["status"] == "running"
    row = json.loads(folder.metrics.read_text().splitlines()[-1])
    with folder.metrics.open("a") as file:
        file.write(json.dumps({**row, "epoch": 3})[:30])
        file.flush()
        time.sleep(0.7)
        file.write(json.dumps({**row, "epoch": 3})[30:] + "\n")
    kinds = [next(found), next(found)]
    assert {kind: value["epoch"] for kind, value in kinds} == {"row": 3, "state": 3}
    folder.results.write_text(results)
    folder.set_status("finished")
    *rest, last = list(found)
    assert [value["status"] for kind, value in rest if kind == "state"][-1] == "finished"
    assert last == ("end", "finished")
    connection.close()


def test_at_most_64_are_watched_at_once_and_who_leaves_makes_room(studio: Server, studio_folder: Path) -> None:
    name = unfinished(studio_folder).name
    held = [stream(studio, name) for _ in range(64)]
    assert {response.status for _, response in held} == {200}
    refused = studio.ask("GET", f"/api/runs/{name}/events")
    assert refused.status == 503
    assert "retry-after" in refused.headers
    for connection, response in held:
        response.close()
        connection.close()
    for _ in range(100):
        connection, response = stream(studio, name)
        if response.status == 200:
            break
        connection.close()
        time.sleep(0.1)
    assert response.status == 200
    connection.close()


def test_streams_end_at_once_when_the_server_is_told_to_stop(studio_folder: Path, start: Callable[..., Server]) -> None:
    server = start("--runs", str(studio_folder / "runs"), verb="studio", models=())
    name = unfinished(studio_folder).name
    held = [stream(server, name) for _ in range(8)]
    for _, response in held:
        assert response.readline().startswith(b"event:")
    begin = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=20) is not None
    assert time.monotonic() - begin < 4
    for connection, response in held:
        assert not response.read().endswith(b"event: end")
        connection.close()
