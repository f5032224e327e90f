"""A hub of weights on this machine, and one that cannot be reached."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

_COMMIT = "0" * 39 + "1"


def _point_hub_at(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def closed_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A hub's address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
    _point_hub_at(endpoint, tmp_path / "hub-cache", monkeypatch)
    return endpoint


@pytest.fixture
def requests() -> list[str]:
    """What the hub was asked for."""
    return []


@pytest.fixture
def local_hub(tmp_path: Path, requests: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served as a hub serves: OWNER/NAME/FILE under it is that repository's file."""
    root = tmp_path / "hub"
    root.mkdir()

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            requests.append(self.path)
            file = root / self.path.lstrip("/").replace("/resolve/main/", "/").replace(f"/resolve/{_COMMIT}/", "/")
            content = file.read_bytes() if file.is_file() else b""
            self.send_response(200 if file.is_file() or self.path == "/" else 404)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", _COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            if not file.is_file():
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    _point_hub_at(f"http://127.0.0.1:{server.server_port}", tmp_path / "hub-cache", monkeypatch)
    yield root
    server.shutdown()
    server.server_close()
