"""`thawlab serve` as a process, asked over HTTP."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import Server, encoded, form, picture
from PIL import Image

import thawlab

FORMATS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 90},
    "WEBP": {"quality": 80},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "PPM": {},
    "TGA": {},
    "JPEG2000": {},
    "ICO": {"sizes": [(48, 48)]},
    "AVIF": {},
    "HEIF": {},
}


def photo(seed: int, side: int = 60) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((side + 9, side), Image.Resampling.BICUBIC))


def said(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: answer.get(key) for key in ("predictions", "prediction_set", "unsure", "novel")}


@pytest.mark.parametrize("kind", FORMATS)
def test_answers_are_those_of_predict_bit_for_bit(
    kind: str, server: Server, runs: Path, names: Sequence[str], tmp_path: Path
) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    files = []
    for seed in range(3):
        files.append(tmp_path / f"{seed}.bin")
        files[-1].write_bytes(encoded(photo(seed), kind, **FORMATS[kind]))
    found = server.predict([file.read_bytes() for file in files], "?top_k=4").json["pictures"]
    for place, name in enumerate(names):
        expected = thawlab.load(name, runs).predict_many(files, top_k=4)
        for row, prediction in zip(found, expected, strict=True):
            assert row["answers"][place]["model"] == name
            assert said(row["answers"][place]) == said(prediction.as_json())


def test_answers_do_not_depend_on_who_else_asks(server: Server, runs: Path, names: Sequence[str]) -> None:
    pictures = [picture(number) for number in range(80)]
    expected = thawlab.load(names[0], runs).predict_many([Image.open(io.BytesIO(one)) for one in pictures])
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda one: server.predict([one], f"?model={names[0]}"), pictures))
    assert [said(one.json["pictures"][0]["answers"][0]) for one in answers] == [said(one.as_json()) for one in expected]


def test_an_engine_answers_as_predict_does_with_it(start: Callable[..., Server], runs: Path, names: Sequence[str]) -> None:
    pytest.importorskip("onnxruntime")
    thawlab.export(names[0], ["onnx"], runs=runs)
    engine = start("--engine", "onnx", models=("one",))
    found = engine.predict([picture(1)]).json["pictures"][0]["answers"][0]
    expected = thawlab.load(names[0], runs, engine="onnx").predict(Image.open(io.BytesIO(picture(1)))).as_json()
    assert [row["class"] for row in found["predictions"]] == [row["class"] for row in expected["predictions"]]
    near = [row["probability"] for row in expected["predictions"]]
    assert [row["probability"] for row in found["predictions"]] == pytest.approx(near, abs=1e-5)
    assert engine.ask("GET", "/v1/models").json["models"][0]["engine"] == "onnx"


def test_a_picture_may_be_the_body_itself(server: Server, names: Sequence[str]) -> None:
    for kind in ("image/png", "application/octet-stream", "image/jpeg; charset=x"):  # the content says what it is
        answer = server.ask("POST", f"/v1/predict?model={names[1]}&top_k=1", picture(0), {"Content-Type": kind})
        [one] = answer.json["pictures"][0]["answers"]
        assert answer.status == 200 and one["model"] == names[1] and len(one["predictions"]) == 1


def test_a_picture_that_cannot_be_read_stops_no_other(server: Server) -> None:
    found = server.predict([picture(0), b"no picture", picture(1)]).json["pictures"]
    assert [one["error"] for one in found] == [None, "not an image in a supported format", None]
    assert [one["picture"] for one in found] == [0, 1, 2] and found[1]["answers"] == []


def test_models_say_what_they_were_trained_on_and_how_good_they_are(server: Server, runs: Path, names: Sequence[str]) -> None:
    models = server.ask("GET", "/v1/models").json["models"]
    results = thawlab.open_run(names[0], runs).results
    assert [model["name"] for model in models] == list(names)
    assert models[0]["test_accuracy"] == results.test.accuracy and models[0]["n_train"] == results.dataset.n_train
    assert tuple(models[0]["test_accuracy_ci95"]) == results.test.accuracy_ci95 and models[0]["size"] == 16


def test_explain_shows_the_picture_beside_what_speaks_for_a_class(server: Server, runs: Path, names: Sequence[str]) -> None:
    answer = server.ask("POST", f"/v1/explain?model={names[1]}&class=star", picture(3), {"Content-Type": "image/png"})
    shown = np.asarray(Image.open(io.BytesIO(answer.body)))
    expected = thawlab.load(names[1], runs).explain(Image.open(io.BytesIO(picture(3))), "star")
    assert answer.headers["content-type"] == "image/png" and np.array_equal(shown, expected)
    wrong = server.ask("POST", "/v1/explain?class=stra", picture(3), {"Content-Type": "image/png"})
    assert wrong.status == 422 and "did you mean 'star'" in wrong.message


HUGE = np.zeros((5001, 5000, 3), np.uint8)
REFUSED = {
    "no such page": ("GET", "/v2/predict", b"", {}, 404, "no such page"),
    "method": ("GET", "/v1/predict", b"", {}, 405, "not allowed"),
    "type": ("POST", "/v1/predict", b"{}", {"Content-Type": "application/json"}, 415, "fields named 'pictures'"),
    "no type": ("POST", "/v1/predict", b"abc", {}, 415, "image/jpeg"),
    "empty body": ("POST", "/v1/predict", b"", {"Content-Type": "image/png"}, 422, "empty"),
    "no picture": ("POST", "/v1/predict", b"hello", {"Content-Type": "image/png"}, 422, "not an image"),
    "no parts": ("POST", "/v1/predict", b"--XX--\r\n", {"Content-Type": "multipart/form-data; boundary=XX"}, 422, "no picture"),
    "no boundary": ("POST", "/v1/predict", b"--XX--\r\n", {"Content-Type": "multipart/form-data"}, 400, "boundary"),
    "not a form": ("POST", "/v1/predict", b"xyz", {"Content-Type": "multipart/form-data; boundary=XX"}, 400, "cannot be read"),
    "broken off": ("POST", "/v1/predict", form([b"a"])[0][:-12], {"Content-Type": form([])[1]}, 400, "ends in the middle"),
    "other field": ("POST", "/v1/predict", form([b"a"], name="file")[0], {"Content-Type": form([])[1]}, 422, "'pictures'"),
    "long name": ("POST", "/v1/predict", form([b"a"], file="n" * 9000)[0], {"Content-Type": form([])[1]}, 400, "header size"),
    "model": ("POST", "/v1/predict?model=on", b"a", {"Content-Type": "image/png"}, 404, "no model 'on'"),
    "top_k": ("POST", "/v1/predict?top_k=0", b"a", {"Content-Type": "image/png"}, 422, "top_k"),
    "top_k no number": ("POST", "/v1/predict?top_k=x", b"a", {"Content-Type": "image/png"}, 422, "top_k"),
    "pixels": (
        "POST",
        "/v1/predict",
        encoded(np.zeros((5001, 5000, 3), np.uint8)),
        {"Content-Type": "image/png"},
        422,
        "too large",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str, server: Server) -> None:
    method, path, body, headers, status, said = REFUSED[name]
    answer = server.ask(method, path, body, headers)
    assert answer.status == status and said in answer.message
    assert answer.json["error"]["request_id"] == answer.headers["x-request-id"]


def test_too_many_and_too_large_pictures_are_refused(server: Server) -> None:
    many = server.predict([b"x"] * 33)
    assert many.status == 413 and "32 pictures" in many.message
    large, kind = form([b"\0" * 10_000_001])
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:  # it is refused before all is sent
        head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(large)}\r\n\r\n"
        client.sendall(head.encode() + large[:10_000_200])
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_other_hosts_and_other_sites_are_refused(server: Server) -> None:
    assert server.ask("GET", "/v1/models", headers={"Host": "evil.example"}).status == 421
    assert server.ask("GET", "/", headers={"Host": "evil.example:80"}).status == 421
    assert server.ask("GET", "/v1/models", headers={"Host": "localhost:1234"}).status == 200
    assert server.ask("GET", "/v1/models", headers={"Origin": "https://evil.example"}).status == 403
    own = f"http://127.0.0.1:{server.port}"
    assert server.ask("GET", "/v1/models", headers={"Origin": own}).status == 200
    assert "access-control-allow-origin" not in server.ask("GET", "/v1/models", headers={"Origin": own}).headers


def raw(port: int, text: bytes, wait: float = 5.0) -> bytes:
    """Send bytes as they are and return the beginning of what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as client:
        client.sendall(text)
        return client.recv(4096)


AMBIGUOUS = [
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_ambiguous_requests_are_refused(text: bytes, server: Server) -> None:
    got = raw(server.port, text)
    assert got.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501")), got[:200]
    assert b"HTTP/1.1" not in got[10:], "what follows was taken for a second request"


def test_answers_tell_browsers_what_they_may_do(server: Server) -> None:
    page = server.ask("GET", "/")
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    assert "unsafe" not in page.headers["content-security-policy"] and b"<script>" not in page.body
    assert page.headers["x-content-type-options"] == "nosniff" and "server" not in page.headers
    for path in ("/base.css", "/serve.js", "/healthz", "/metrics", "/v2"):
        assert "default-src 'none'" in server.ask("GET", path).headers["content-security-policy"]
    assert server.ask("GET", "/docs").status == 404  # would load scripts of another site


def test_requests_are_logged_and_counted(server: Server) -> None:
    answer = server.ask("POST", "/v1/predict?x=1", picture(0), {"Content-Type": "image/png", "X-Request-Id": "my-1"})
    assert answer.headers["x-request-id"] == answer.json["request_id"] == "my-1"
    assert server.ask("GET", "/healthz", headers={"X-Request-Id": "a b\tc"}).headers["x-request-id"] != "a b\tc"
    [line] = [line for line in server.logged() if line["id"] == "my-1"]
    assert line["status"] == 200 and line["path"] == "/v1/predict" and line["pictures"] == 1 and line["seconds"] > 0
    figures = server.ask("GET", "/metrics").body.decode()
    assert 'thawlab_requests_total{route="/v1/predict",status="200"}' in figures
    assert 'thawlab_pictures_total{outcome="predicted"}' in figures and "thawlab_batch_pictures_bucket" in figures


def test_the_schema_describes_what_is_sent_and_answered(server: Server) -> None:
    schema = server.ask("GET", "/openapi.json").json
    predict = schema["paths"]["/v1/predict"]["post"]
    assert {"200", "400", "413", "415", "422", "503"} <= predict["responses"].keys()
    assert "multipart/form-data" in predict["requestBody"]["content"]
    assert set(schema["paths"]) == {"/v1/models", "/v1/predict", "/v1/explain", "/healthz", "/readyz", "/metrics"}


def test_a_token_is_needed_where_there_is_one(start: Callable[..., Server], tmp_path: Path) -> None:
    secret = "a-secret-of-many-letters"
    (tmp_path / "token").write_text(secret + "\n")
    guarded = start("--token-file", str(tmp_path / "token"), models=("one",))
    for path in ("/v1/models", "/metrics", "/openapi.json"):
        assert guarded.ask("GET", path).status == 401
        assert guarded.ask("GET", path, headers={"Authorization": f"Bearer {secret}x"}).status == 401
        assert guarded.ask("GET", path, headers={"Authorization": f"Basic {secret}"}).status == 401
        assert guarded.ask("GET", path, headers={"Authorization": f"Bearer {secret}"}).status == 200
    assert guarded.ask("GET", "/v1/models").headers["www-authenticate"] == "Bearer"
    for path in ("/", "/serve.js", "/healthz", "/readyz"):
        assert guarded.ask("GET", path).status == 200


def test_pages_of_a_named_origin_may_ask(start: Callable[..., Server]) -> None:
    shared = start("--cors", "https://example.org", "--allow-host", "photos.example", models=("one",))
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    assert shared.ask("OPTIONS", "/v1/predict", headers=asked).headers["access-control-allow-origin"] == "https://example.org"
    answer = shared.ask("GET", "/v1/models", headers={"Origin": "https://example.org", "Host": "photos.example"})
    assert answer.status == 200 and answer.headers["access-control-allow-origin"] == "https://example.org"
    assert shared.ask("GET", "/v1/models", headers={"Origin": "https://example.com"}).status == 403


def test_sigterm_lets_requests_be_answered_and_ends_within_five_seconds(start: Callable[..., Server]) -> None:
    leaving = start(models=("one",))
    slow = socket.create_connection(("127.0.0.1", leaving.port), timeout=20)
    body, kind = form([picture(0)])
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    slow.sendall(head.encode() + body[:200])
    idle = socket.create_connection(("127.0.0.1", leaving.port), timeout=20)
    time.sleep(0.3)
    begin = time.monotonic()
    leaving.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    slow.sendall(body[200:])
    assert slow.recv(100).startswith(b"HTTP/1.1 200")
    leaving.process.wait(timeout=10)
    assert time.monotonic() - begin < 5
    idle.close()


def descendants(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [int(one) for one in found] + [below for one in found for below in descendants(int(one))]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="decoders die with their server on Linux only")
def test_killed_it_leaves_no_process_and_starts_again(start: Callable[..., Server]) -> None:
    killed = start(models=("one",))
    killed.predict([picture(0)])
    below = descendants(killed.process.pid)
    assert len(below) >= 2
    killed.process.kill()
    killed.process.wait()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in below) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists()]
    again = start("--port", str(killed.port), models=("one",))
    assert again.port == killed.port and again.predict([picture(0)]).status == 200


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs Linux")
def test_a_decoder_that_dies_is_replaced(start: Callable[..., Server]) -> None:
    wounded = start(models=("one",))
    wounded.predict([picture(0)])
    for pid in descendants(wounded.process.pid):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"spawn_main" in command:
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while wounded.predict([picture(0)]).status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
