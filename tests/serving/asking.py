"""Asking a server over HTTP, and pictures to ask it about."""

from __future__ import annotations

import http.client
import io
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Answered:
    """An answer of a server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """Of a refusal."""
        return str(self.json["error"]["message"])


@dataclass
class Server:
    """A server that runs."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    base: dict[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, *, chunked: bool = False
    ) -> Answered:
        """Send one request and return the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {**self.base, **(headers or {})}, encode_chunked=chunked)
            response = connection.getresponse()
            found = {key.lower(): value for key, value in response.getheaders()}
            return Answered(response.status, found, response.read())
        finally:
            connection.close()

    def predict(self, pictures: Sequence[bytes], query: str = "") -> Answered:
        """Send pictures as a form."""
        body, kind = form(pictures)
        return self.ask("POST", f"/v1/predict{query}", body, {"Content-Type": kind})

    def logged(self, event: str = "request") -> list[dict[str, Any]]:
        """Return the log's lines of a kind."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]


def form(pictures: Sequence[bytes], name: str = "pictures", file: str = "photo") -> tuple[bytes, str]:
    """Return a multipart body and its content type."""
    head = f'--XX\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n\r\n'.encode()
    return b"".join(head + picture + b"\r\n" for picture in pictures) + b"--XX--\r\n", "multipart/form-data; boundary=XX"


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def picture(number: int, side: int = 48) -> bytes:
    """Return an encoded picture, another for every number."""
    noise = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return encoded(np.asarray(Image.fromarray(noise).resize((side, side + number % 7), Image.Resampling.BILINEAR)))
