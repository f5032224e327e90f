"""Send hostile requests to a server of `thawlab serve`, beside good ones, and write what became of it.

    python tools/hostile_requests.py RUN --runs runs/ --out results/serve/hostile.json

Starts the server, measures good requests alone, then sends `--count` hostile ones of all kinds from several threads while the
good ones go on. Every hostile request must be refused (4xx or 5xx, or a closed connection where it is no HTTP at all); mutated
pictures may also be answered. Memory is that of the server and its decoders together (private and shared pages, from /proc).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import multiprocessing
import os
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from thawlab.environment import choose_device, environment

HEAD = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
PART = b'--XX\r\nContent-Disposition: form-data; name="pictures"; filename="%s"\r\n\r\n'
Hostile = Callable[[int, random.Random], str]


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def png_head(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG that promises a size and holds a megabyte of zeros."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)

    head = width.to_bytes(4) + height.to_bytes(4) + bytes([depth, colour, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


def pictures() -> dict[str, bytes]:
    """Return pictures made to exhaust a decoder; those of 24.9 megapixels are allowed, and large."""
    ramp = np.broadcast_to(np.arange(4990, dtype=np.uint8)[None, :, None], (4990, 4990, 4))
    grey = np.broadcast_to((np.arange(4990) * 13).astype(np.uint16)[None, :], (4990, 4990))
    return {
        "promises 400 megapixels": png_head(20_000, 20_000),
        "promises 2³¹ pixels a side": png_head(2**31 - 1, 2**31 - 1),
        "25.1 megapixels": encoded(np.zeros((5010, 5010), np.uint8), "PNG"),
        "promises 24 megapixels": png_head(4_900, 4_900),
        "24.9 megapixels, RGBA": encoded(np.ascontiguousarray(ramp), "PNG", compress_level=1),
        "24.9 megapixels, 16 bits": encoded(np.ascontiguousarray(grey), "PNG", compress_level=1),
        "24.9 megapixels, JPEG": encoded(np.ascontiguousarray(ramp[..., :3]), "JPEG", progressive=True),
        "24.9 megapixels, WebP": encoded(np.zeros((4990, 4990, 3), np.uint8), "WEBP", method=0),
    }


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return a picture with bytes changed, cut out, doubled, or its end missing."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 20)):
        place = rng.randrange(len(changed))
        what = rng.randrange(4)
        if what == 0:
            changed[place] = rng.randrange(256)
        elif what == 1:
            del changed[place : place + rng.randint(1, 64)]
        elif what == 2:
            changed[place:place] = changed[place : place + rng.randint(1, 64)]
        else:
            del changed[rng.randint(1, len(changed)) :]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def exchange(port: int, pieces: Iterator[bytes], wait: float = 30.0) -> str:
    """Send pieces until they end or the other side answers; return the status, or how the connection ended."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as client:
        try:
            for piece in pieces:
                client.sendall(piece)
        except OSError:
            pass
        try:
            answer = client.recv(65536)
        except TimeoutError:
            return "no answer"
        except OSError:
            return "closed"
        return answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "closed"


def sized(body: bytes, kind: str = "image/png", head: str = HEAD) -> Iterator[bytes]:
    yield f"{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    yield body


def chunked(head: str, first: bytes, size: int) -> Iterator[bytes]:
    """Yield a chunked body of zeros."""
    yield f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"%x\r\n%s\r\n" % (len(first), first)
    block = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    for _ in range(size >> 20):
        yield block


def dribbled(text: bytes, seconds: float) -> Iterator[bytes]:
    """Yield a request byte by byte, so slowly that it never ends."""
    deadline = time.monotonic() + seconds
    for byte in text:
        if time.monotonic() > deadline:
            return
        yield bytes([byte])
        time.sleep(1.0)


FORM = "multipart/form-data; boundary=XX"
SMUGGLED = [
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 2_000_000 + b"\r\n\r\n",
]
PATHS = [
    "/../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/v1/../../etc/passwd",
    "//etc/passwd",
    "/serve.js/../../x",
    "/%00",
    "/v1/models/..",
]


def kinds(good: bytes) -> dict[str, Hostile]:
    """Return the kinds of hostile requests by name."""
    bombs = list(pictures().items())
    raw, several = f"{HEAD}Content-Type: image/png\r\n", f"{HEAD}Content-Type: {FORM}\r\n"

    def parts(port: int, _: random.Random) -> str:
        return exchange(port, sized((PART % b"a" + b"x\r\n") * 10_000 + b"--XX--\r\n", FORM))

    def named(port: int, _: random.Random) -> str:
        head = b'--XX\r\nContent-Disposition: form-data; name="pictures"; filename="'
        return exchange(port, sized(head + b"n" * 50_000_000 + b'"\r\n\r\nx\r\n--XX--\r\n', FORM))

    def escaping(port: int, rng: random.Random) -> str:
        if rng.random() < 0.5:
            return exchange(port, iter([f"GET {rng.choice(PATHS)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()]))
        return exchange(port, sized(PART % b"../../etc/passwd" + b"x\r\n--XX--\r\n", FORM))

    def lying(port: int, rng: random.Random) -> str:
        length = rng.choice(["9999999999999999999", "-5", "1e9", "0x10", "10000000000"])
        return exchange(port, iter([f"{raw}Content-Length: {length}\r\n\r\n".encode(), bytes(1000)]), wait=20)

    def typed(port: int, rng: random.Random) -> str:
        kind = rng.choice(
            ["application/json", "text/html", "multipart/mixed; boundary=XX", "", "multipart/form-data; boundary=" + "b" * 900]
        )
        return exchange(port, sized(b'{"picture": "http://169.254.169.254/"}', kind))

    return {
        "chunked 1 GB, one picture": lambda port, _: exchange(port, chunked(raw, b"\x89PNG", 1 << 30)),
        "chunked 1 GB, form": lambda port, _: exchange(port, chunked(several, PART % b"a", 1 << 30)),
        "file name of 50 MB": named,
        "slow head": lambda port, _: exchange(port, dribbled(HEAD.encode(), 25)),
        "slow body": lambda port, _: exchange(port, slow_body(raw, 80)),
        "nothing sent": lambda port, _: exchange(port, iter([]), wait=20),
        "../": escaping,
        "wrong type": typed,
        "picture made to exhaust": lambda port, rng: exchange(port, sized(rng.choice(bombs)[1])),
        "mutated picture": lambda port, rng: exchange(port, sized(mutated(good, rng))),
        "10,000 parts": parts,
        "wrong host": lambda port, _: exchange(port, iter([b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n"])),
        "smuggled": lambda port, rng: exchange(port, iter([rng.choice(SMUGGLED)])),
        "false length": lying,
        "garbage": lambda port, rng: exchange(port, iter([rng.randbytes(rng.randint(1, 5000)) + b"\r\n\r\n"]), wait=20),
    }


def slow_body(head: str, seconds: float) -> Iterator[bytes]:
    yield f"{head}Content-Length: 900\r\n\r\n".encode()
    yield from dribbled(bytes(900), seconds)


def resident(pid: int) -> float:
    """Return the memory of a process and all below it in MiB, shared pages by their share."""
    own, below = 0.0, list[str]()
    with contextlib.suppress(OSError):
        below = [one for file in Path(f"/proc/{pid}/task").glob("*/children") for one in file.read_text().split()]
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            own += int(line.split()[1]) / 1024 if line.startswith("Pss:") else 0
    return own + sum(resident(int(one)) for one in below)


def good_request(port: int, picture: bytes) -> float:
    """Send a good request and return its seconds."""
    start = time.perf_counter()
    status = exchange(port, sized(picture), wait=120)
    if status != "200":
        raise SystemExit(f"a good request was answered {status}")
    return time.perf_counter() - start


def good_ones(port: int, picture: bytes, until: Callable[[], bool], found: list[float], every: float = 0.1) -> None:
    while not until():
        found.append(good_request(port, picture))
        time.sleep(every)


def summary(seconds: list[float]) -> dict[str, float]:
    percentiles = statistics.quantiles(seconds, n=100)
    return {"n": len(seconds), "p50_ms": round(1e3 * percentiles[49], 1), "p99_ms": round(1e3 * percentiles[98], 1)}


def attack(port: int, good: bytes, count: int, at_once: int) -> dict[str, dict[str, int]]:
    """Send hostile requests of all kinds in turns, and return what became of them by kind."""
    os.nice(10)  # clients on other machines would not take this one's time
    every = kinds(good)
    plan = [name for name, _ in zip(list(every) * count, range(count), strict=False)]
    random.Random(0).shuffle(plan)
    outcomes: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in every}
    lock, left = threading.Lock(), list(enumerate(plan))

    def send() -> None:
        while True:
            with lock:
                if not left:
                    return
                number, name = left.pop()
            outcome = every[name](port, random.Random(number))
            with lock:
                outcomes[name][outcome] += 1

    threads = [threading.Thread(target=send) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: dict(counter) for name, counter in outcomes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--alone", type=float, default=30.0, help="seconds in which good requests are alone")
    parser.add_argument("--picture", type=Path, required=True, help="a good picture")
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()
    good = wanted.picture.read_bytes()
    program = "from thawlab.__main__ import run; run()"
    command = [sys.executable, "-c", program, "serve", wanted.run, "--runs", wanted.runs, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    port = int(server.stdout.readline().rsplit(":", 1)[1].split()[0])
    for _ in range(20):
        good_request(port, good)
    memory = [resident(server.pid)]
    alone: list[float] = []
    deadline = time.monotonic() + wanted.alone
    good_ones(port, good, lambda: time.monotonic() > deadline, alone)
    beside: list[float] = []
    start = time.monotonic()
    # In a process of their own: threads of this one would let the clock of the good requests wait for Python's lock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        attacking = pool.submit(attack, port, good, wanted.count, wanted.at_once)
        watcher = threading.Thread(target=good_ones, args=(port, good, attacking.done, beside))
        watcher.start()
        while not attacking.done():
            memory.append(resident(server.pid))
            time.sleep(0.5)
        watcher.join()
        outcomes = attacking.result()
    after = [good_request(port, good) for _ in range(20)]
    server.terminate()
    result = {
        "count": wanted.count,
        "at_once": wanted.at_once,
        "seconds": round(time.monotonic() - start, 1),
        "outcomes": outcomes,
        "memory_mib": {"before": round(memory[0]), "most": round(max(memory)), "rise": round(max(memory) - memory[0])},
        "good_requests": {"alone": summary(alone), "beside": summary(beside), "after": summary(after)},
        "environment": environment({}, choose_device("cpu")),
    }
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(
        json.dumps(
            {key: result[key] for key in ("seconds", "outcomes", "memory_mib", "good_requests")}, indent=1, ensure_ascii=False
        )
    )


if __name__ == "__main__":
    main()
