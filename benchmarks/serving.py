"""Pictures per second of `thawlab serve`, at several numbers of clients, beside the bare predictor and a plain handler.

`python benchmarks/serving.py --photos FOLDER --backbone … --out FILE`: photographs through MobileNetV2-1.0 at 224 px in float32,
the same threads everywhere. Clients are threads of one process, each with a connection of its own and one picture per request;
they take their share of the same cores. Programs take turns within a repetition; the medians over the repetitions are reported.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine
from predicting import HERE, PEERS, classifier, network, photographs

CLIENTS = (1, 8, 32)
PREDICT = (
    "import sys, time, thawlab; from pathlib import Path\n"
    "files = sorted(Path(sys.argv[1]).rglob('*.jpg'))\n"
    "predictor = thawlab.load(sys.argv[2], engine=sys.argv[3] or None)\n"
    "predictor.predict_many(files[:64])\n"
    "start = time.perf_counter(); predictor.predict_many(files)\n"
    "print(len(files) / (time.perf_counter() - start))"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, path: str) -> Iterator[None]:
    """Run a server until it answers, and stop it afterwards."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", path)
                connection.getresponse().read()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise SystemExit(f"{' '.join(command)} does not answer")
        yield
    finally:
        process.terminate()
        process.wait(timeout=15)


def load(port: int, path: str, bodies: list[tuple[bytes, str]], clients: int) -> dict[str, float]:
    """Send each body once from several clients, and return the rate and the latencies."""
    left, lock, seconds = iter(bodies), threading.Lock(), []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            with lock:
                one = next(left, None)
            if one is None:
                return
            start = time.perf_counter()
            connection.request("POST", path, one[0], {"Content-Type": one[1]})
            response = connection.getresponse()
            content = response.read()
            seconds.append(time.perf_counter() - start)
            if response.status != 200:
                raise SystemExit(f"{path} answered {response.status}: {content[:200]!r}")

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = len(bodies) / (time.perf_counter() - start)
    percentiles = statistics.quantiles(seconds, n=100)
    return {"images_per_second": rate, "p50_ms": 1e3 * percentiles[49], "p99_ms": 1e3 * percentiles[98]}


def form(content: bytes) -> tuple[bytes, str]:
    head = b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head + content + b"\r\n--XX--\r\n", "multipart/form-data; boundary=XX"


def measure(place: Path, wanted: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what each program reaches, in turns."""
    photos = photographs(wanted.photos, place / "photos", wanted.count)
    run = classifier(place, photos, wanted.backbone)
    alone = str(network(place, run))
    contents = [file.read_bytes() for file in sorted(photos.rglob("*.jpg"))]
    raw, forms = [(content, "image/jpeg") for content in contents], [form(content) for content in contents]
    thawlab = str(Path(sys.executable).with_name("thawlab"))
    for repetition, engine in itertools.product(range(wanted.repetitions), ("", "onnx")):
        name = f"thawlab{f' --engine {engine}' if engine else ''}"
        bare = subprocess.run([sys.executable, "-c", PREDICT, str(photos), str(run), engine], capture_output=True, check=True)
        yield {
            "repetition": repetition,
            "program": f"{name}, bare predictor",
            "images_per_second": float(bare.stdout.split()[-1]),
        }
        port = free_port()
        command = [thawlab, "serve", str(run), "--port", str(port), *(["--engine", engine] if engine else [])]
        with running(command, port, "/readyz"):
            load(port, "/v1/predict", raw[:64], 8)
            for clients in CLIENTS:
                yield {"repetition": repetition, "program": name, "clients": clients, **load(port, "/v1/predict", raw, clients)}
        if engine:
            continue
        port = free_port()
        plain = [sys.executable, str(PEERS / "plain_server.py"), alone, "--side", "224", "--port", str(port)]
        with running([*plain, "--threads", str(wanted.threads)], port, "/docs"):
            load(port, "/predict", forms[:64], 8)
            for clients in CLIENTS:
                found = load(port, "/predict", forms, clients)
                yield {"repetition": repetition, "program": "FastAPI and ONNX Runtime", "clients": clients, **found}


def main() -> None:
    """Measure, and write after each program what is known so far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(wanted.threads)
    sys.path.insert(0, str(HERE))
    result: dict[str, Any] = {**machine.measure("float32"), "count": wanted.count, "rows": [], "medians": []}
    with tempfile.TemporaryDirectory(prefix="bench-serving-") as place:
        for row in measure(Path(place), wanted):
            print(row, flush=True)
            result["rows"].append(row)
            groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
            for one in result["rows"]:
                groups.setdefault((one["program"], one.get("clients", 0)), []).append(one)
            result["medians"] = [
                {
                    "program": program,
                    "clients": clients or None,
                    "n": len(rows),
                    **{
                        key: round(statistics.median(one[key] for one in rows), 1)
                        for key in ("images_per_second", "p50_ms", "p99_ms")
                        if key in rows[0]
                    },
                }
                for (program, clients), rows in groups.items()
            ]
            wanted.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
