"""Pictures in S3, from a real server on this machine that fails now and then; skips where s3fs and moto are not installed."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from packing import named_pictures, parquet_of, shard_of

from thawlab import api
from thawlab.deploy.cluster import places
from thawlab.deploy.cluster.blocks import blocks_of
from thawlab.deploy.cluster.places import UnreachedError
from thawlab.deploy.cluster.reading import pictures_of
from thawlab.errors import ThawlabError
from thawlab.run import RunFolder

fsspec, boto3 = pytest.importorskip("fsspec"), pytest.importorskip("boto3")
pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.moto_server.werkzeug_app")

Answer = tuple[str, list[tuple[str, str]], list[bytes]]
PICTURES = named_pictures(60)
pytestmark = pytest.mark.slow


class Faulty:
    """The server; `fault` changes its answers to questions for objects, given their number."""

    def __init__(self) -> None:
        from werkzeug.serving import make_server

        self.app = moto.DomainDispatcherApplication(moto.create_backend_app)
        self.fault: Callable[[int, Answer], Answer] | None = None
        self.numbers = itertools.count()
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        said: list[Any] = []
        body = list(self.app(environ, lambda status, headers, _=None: said.extend((status, headers))))
        answer: Answer = (said[0], said[1], body)
        if self.fault is not None and environ["REQUEST_METHOD"] == "GET" and "." in environ["PATH_INFO"]:
            answer = self.fault(next(self.numbers), answer)
        start(*answer[:2])
        return answer[2]


def third(kind: str, number: int, answer: Answer) -> Answer:
    """Spoil every third answer."""
    status, headers, body = answer
    if number % 3:
        return answer
    if kind == "500":
        return "500 Internal Server Error", [("Content-Length", "0")], []
    if kind == "slow":
        time.sleep(0.3)
        return answer
    whole = b"".join(body)
    return status, headers, [whole[: len(whole) // 2]]  # fewer bytes than the headers promise: the connection is cut


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    server = Faulty()
    for key, value in (("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", server.address)  # for processes of Ray's
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": server.address, "skip_instance_cache": True})
    monkeypatch.setattr(places, "_PAUSES", (0.01, 0.01, 0.01))
    client = boto3.client("s3", endpoint_url=server.address)
    client.create_bucket(Bucket="bucket")
    for name, content in PICTURES.items():
        client.put_object(Bucket="bucket", Key=f"photos/{name}", Body=content)
    for key, content in (("shards/a.tar", shard_of(PICTURES)), ("tables/a.parquet", parquet_of(PICTURES))):
        client.put_object(Bucket="bucket", Key=key, Body=content)
    yield server
    server.server.shutdown()


def read(source: str) -> list[bytes]:
    flaws: list[str] = []
    found = [content for block in blocks_of([source]) for _, content in pictures_of(block, flaws)]
    assert flaws == []
    return [content if isinstance(content, bytes) else content() for content in found]


@pytest.mark.parametrize("kind", ["none", "500", "cut", "slow"])
def test_every_form_is_read_whole_whatever_the_server_does(kind: str, s3: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_PIECE", 20_000)
    if kind != "none":
        s3.fault = lambda number, answer: third(kind, number, answer)
    assert read("s3://bucket/photos") == [PICTURES[name] for name in sorted(PICTURES)]
    assert read("s3://bucket/shards/*.tar") == list(PICTURES.values())
    assert read("s3://bucket/tables") == list(PICTURES.values())


def test_a_version_is_told_by_the_storage(s3: Faulty) -> None:
    [before] = blocks_of(["s3://bucket/shards"])
    assert [before] == blocks_of(["s3://bucket/shards"])
    other = bytearray(shard_of(PICTURES))
    other[-1] = 1  # of the same size
    boto3.client("s3", endpoint_url=s3.address).put_object(Bucket="bucket", Key="shards/a.tar", Body=bytes(other))
    [after] = blocks_of(["s3://bucket/shards"])
    assert after.part != before.part and after.size == before.size


def test_a_server_that_never_answers_well_is_one_line(s3: Faulty) -> None:
    [block] = blocks_of(["s3://bucket/shards"])
    s3.fault = lambda _number, _answer: ("403 Forbidden", [("Content-Length", "0")], [])
    with pytest.raises(UnreachedError, match="lets nobody in with these credentials") as told:
        list(pictures_of(block, []))
    assert "\n" not in str(told.value)


def test_a_wrong_key_is_one_line(s3: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.core.responses import ActionAuthenticatorMixin

    monkeypatch.setattr(ActionAuthenticatorMixin, "request_count", 0)
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    with pytest.raises(ThawlabError, match=r"s3://bucket/photos: cannot be read: the storage lets nobody in") as told:
        blocks_of(["s3://bucket/photos"])
    assert "\n" not in str(told.value)
    s3.server.shutdown()


@pytest.mark.usefixtures("s3")
def test_an_endpoint_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": "http://127.0.0.1:1", "skip_instance_cache": True})
    start = time.monotonic()
    with pytest.raises(ThawlabError, match=r"s3://bucket/photos: cannot be read, tried 4 times: .*127\.0\.0\.1:1") as told:
        blocks_of(["s3://bucket/photos"])
    assert "\n" not in str(told.value) and time.monotonic() - start < 120


def test_a_cluster_predicts_what_lies_in_s3(s3: Faulty, shapes_run: RunFolder, tmp_path: Path) -> None:
    pytest.importorskip("ray.data")
    s3.fault = lambda number, answer: third("cut", number, answer)
    sources = [f"s3://bucket/{folder}" for folder in ("photos", "shards", "tables")]
    done = api.predict_on_ray(shapes_run.path, sources, tmp_path / "out", "local", device="cpu")
    assert (done.total, done.failed, done.flaws) == (180, 0, ())
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert len({row["source"] for row in rows}) == 180
    by_name: dict[str, set[tuple[Any, ...]]] = {}
    for row in rows:
        by_name.setdefault(row["source"].rpartition("/")[2], set()).add(tuple((row | {"source": ""}).values()))
    assert len(by_name) == 60 and all(len(answers) == 1 for answers in by_name.values())
