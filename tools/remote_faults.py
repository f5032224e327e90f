"""Stream shards from a real S3 server whose answers are cut, refused or late, and compare with the same shards on this disk.

Starts moto's S3 server on this machine and, before it, a proxy that spoils answers by a seed: it cuts them in the middle, says
500, or waits. Every image of an epoch must come once, in the order that the recipe has, with the same bits.

    pip install 'thawlab[remote]' 'moto[server]'
    python tools/remote_faults.py --out results/scale/remote-faults.json
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

FAULTS = ("cut", "500", "slow")
BUCKET, BUFFER, LATE = "photos", 500, 1.5


class Spoiler(BaseHTTPRequestHandler):
    """Hands requests on to the server behind it, and spoils a share of the answers."""

    protocol_version = "HTTP/1.1"
    behind: tuple[str, int]
    share: float
    draw: random.Random
    counts: Counter[str]
    lock = threading.Lock()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _pass(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        behind = http.client.HTTPConnection(*self.behind, timeout=60)
        headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
        behind.request(self.command, self.path, body, headers)
        answer = behind.getresponse()
        content = answer.read()
        with self.lock:
            self.counts["requests"] += 1
            spoiled = self.draw.random() < self.share
            fault = self.draw.choice(FAULTS) if spoiled else ""
            self.counts[fault or "whole"] += 1
        if fault == "500":
            self.send_error(500, "Internal Server Error")
            return
        if fault == "slow":
            time.sleep(LATE)
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in {"transfer-encoding", "connection", "content-length", "date", "server"}:
                self.send_header(key, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
        if fault == "cut":
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815 - the names are the library's


def stream(source: str, images: int) -> dict[str, Any]:
    """Take an epoch as a phase of training takes it; return what came."""
    from thawlab.data.batches import batch_spans, buffered_order, prefetched
    from thawlab.data.dataset import load_dataset
    from thawlab.data.preprocessing import Preprocessing
    from thawlab.recipe import parse_recipe

    data = {"source": source, "cache": "none", "shuffle_buffer": BUFFER}
    recipe = parse_recipe({"data": data, "model": {"backbone": "bundled"}, "phases": [{"epochs": 1}]})
    started = time.monotonic()
    dataset = load_dataset(recipe, Preprocessing(size=32, mean=(0.5,) * 3, std=(0.5,) * 3))
    assert dataset.shards is not None
    train = dataset.splits.train
    order = train[buffered_order(0, 0, 0, dataset.shards[train], BUFFER)]
    spans, rows, seen, digest = batch_spans(len(order), 64), dataset.images, [], hashlib.sha256()
    rows.expect(order)  # type: ignore[attr-defined] - images that are decoded as they are taken
    for span, pixels in prefetched(spans, lambda span: np.take(rows, order[slice(*span)], axis=0)):
        digest.update(pixels)
        seen += [dataset.ids[index] for index in order[slice(*span)].tolist()]
    return {
        "images": len(seen),
        "different_images": len(set(seen)),
        "in_source": images,
        "order": hashlib.sha256("\n".join(seen).encode()).hexdigest(),
        "pixels": digest.hexdigest(),
        "seconds": round(time.monotonic() - started, 1),
    }


def in_a_process(environment: dict[str, str], source: str, images: int) -> dict[str, Any]:
    """Stream in a process of its own, with an empty cache."""
    with tempfile.TemporaryDirectory(prefix="remote-faults-") as cache:
        command = [sys.executable, __file__, "--stream", source, "--images", str(images)]
        done = subprocess.run(
            command, env={**os.environ, **environment, "THAWLAB_CACHE": cache}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return {"exit": done.returncode, "said": done.stderr.strip().splitlines()[-1:]}
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--share", type=float, default=0.3, help="of answers that are spoiled")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--stream")
    wanted = parser.parse_args()
    if wanted.stream:
        print(json.dumps(stream(wanted.stream, wanted.images)))
        return
    from moto.server import ThreadedMotoServer

    from thawlab.data.shards.writer import write_shards
    from thawlab.data.sources import open_source

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    place = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{place[0]}:{place[1]}",
    }
    os.environ.update(environment)
    with tempfile.TemporaryDirectory(prefix="remote-faults-") as folder:
        shards = Path(folder) / "shards"
        index, _ = write_shards(open_source(f"shapes:{wanted.images}x32"), shards, 1 << 18)
        import fsspec

        files = fsspec.filesystem("s3")
        files.mkdir(BUCKET)
        for path in shards.iterdir():
            files.pipe_file(f"{BUCKET}/set/{path.name}", path.read_bytes())
        here = in_a_process({}, str(shards), wanted.images)
        result: dict[str, Any] = {"shards": len(index.shards), "share_spoiled": wanted.share, "here": here, "runs": []}
        for seed in range(wanted.seeds + 1):
            share = wanted.share if seed else 0.0
            handler = type(
                "Handler", (Spoiler,), {"behind": place, "share": share, "draw": random.Random(seed), "counts": Counter()}
            )
            proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{proxy.server_address[1]}"
            there = in_a_process({"AWS_ENDPOINT_URL": address}, f"s3://{BUCKET}/set", wanted.images)
            proxy.shutdown()
            same = all(there.get(key) == here[key] for key in ("images", "different_images", "order", "pixels"))
            result["runs"].append({"seed": seed, "answers": dict(handler.counts), "same": same, **there})
            print(json.dumps(result["runs"][-1]), flush=True)
    server.stop()
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
