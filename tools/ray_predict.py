"""Predict pictures in folders, tar shards and Parquet files on a Ray cluster of three nodes on this machine, and lose nodes.

    python tools/ray_predict.py --out results/scale/predict-ray.json

The cluster has a head without cores and two nodes with one core each. In each repetition a node is killed once a random number of
parts is there, and a new one joins; in every second one the command is killed too, and given again. Every picture must have one
row, equal to the one that `thawlab predict --out` writes for the same picture in a folder on this machine, with both cores and no
cluster.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from ray.cluster_utils import Cluster

from thawlab import api, process
from thawlab.environment import choose_device, environment

_SHARDS, _TABLES = 8, 2
_BAD = 100  # every so many pictures one is damaged


def picture(number: int) -> bytes:
    """Return an encoded picture that no other number has; one in a hundred is cut short."""
    rng = np.random.default_rng(number)
    height, width = rng.integers(20, 100, 2)
    pixels = rng.integers(0, 256, 3) + rng.normal(0, 40, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, ("PNG", "JPEG")[number % 2])
    return buffer.getvalue() if number % _BAD else buffer.getvalue()[:100]


def write_pictures(count: int, place: Path) -> list[Path]:
    """Write a third each as files, tar shards and Parquet, and all of them as files beside that; return the three folders."""
    folders = [place / name for name in ("photos", "shards", "tables")]
    for folder in (*folders, place / "all"):
        folder.mkdir()
    parts: dict[str, list[tuple[str, bytes]]] = {}
    for number in range(count):
        name, content = f"{number:07d}.{('png', 'jpg')[number % 2]}", picture(number)
        (place / "all" / name).write_bytes(content)
        if number % 3 == 0:
            (folders[0] / name).write_bytes(content)
        else:
            where = f"shards/{number // 3 % _SHARDS}.tar" if number % 3 == 1 else f"tables/{number // 3 % _TABLES}.parquet"
            parts.setdefault(where, []).append((name, content))
    for where, members in parts.items():
        if where.endswith(".parquet"):
            cells = [{"bytes": content, "path": name} for name, content in members]
            pq.write_table(pa.table({"image": cells}), place / where, row_group_size=100)
            continue
        with tarfile.open(place / where, "w") as archive:
            for name, content in members:
                for member, data in ((name, content), (name.partition(".")[0] + ".cls", b"0")):
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return folders


def rows_of(table: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Return the rows by the picture's own name, and how many of them stand there twice."""
    rows = pq.read_table(table).to_pylist()
    found = {row["source"].rpartition("/")[2]: {**row, "source": ""} for row in rows}
    return found, len(rows) - len(found)


def compared(out: Path, expected: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Put the rows of all parts beside the local ones."""
    found, twice = rows_of(out)
    both = expected.keys() & found.keys()
    names = [name for name in next(iter(found.values())) if name.startswith("probability")]
    differences = (abs((expected[key][name] or 0) - (found[key][name] or 0)) for key in both for name in names)
    return {
        "rows": len(found),
        "twice": twice,
        "missing": len(expected.keys() - found.keys()),
        "unknown": len(found.keys() - expected.keys()),
        "differing_rows": sum(found[name] != expected[name] for name in both),
        "largest_difference": max(differences),
        "with_error": sum(row["error"] is not None for row in found.values()),
    }


class Bench(NamedTuple):
    """What all repetitions share: the cluster with its nodes that compute, the command without --out, and the local rows."""

    cluster: Any
    nodes: list[Any]
    command: list[str]
    expected: dict[str, dict[str, Any]]

    def begin(self, out: Path) -> subprocess.Popen[bytes]:
        """Start the command."""
        return subprocess.Popen([*self.command, "--out", str(out)])


def with_loss(bench: Bench, out: Path, after: int, killed_too: bool) -> dict[str, Any]:
    """Predict, kill a node once so many parts are there, perhaps the command too, and return the outcome in the end."""
    running = bench.begin(out)
    while parts_in(out) < after and running.poll() is None:
        time.sleep(0.05)
    row = {"parts_at_loss": parts_in(out), "killed_too": killed_too}
    bench.cluster.remove_node(bench.nodes.pop(0), allow_graceful=False)
    if killed_too:
        running.kill()
        running.wait()
    bench.nodes.append(bench.cluster.add_node(num_cpus=1))
    code = bench.begin(out).wait() if killed_too else running.wait()
    return {**row, "exit_code": code, "parts": parts_in(out), **compared(out, bench.expected)}


def parts_in(out: Path) -> int:
    return len(list(out.glob("part-*")))


def main() -> None:
    """Run everything, and write after each repetition what is known so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=12_000)
    parser.add_argument("--losses", type=int, default=5)
    parser.add_argument("--backbone", default="bundled")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()
    process.prepare()
    draws = random.Random(wanted.seed)
    result: dict[str, Any] = {**environment({}, choose_device("cpu")), "pictures": wanted.pictures}
    result |= {"backbone": wanted.backbone, "size": wanted.size}
    with tempfile.TemporaryDirectory(prefix="ray-predict-") as text:
        place = Path(text)
        settings: dict[str, Any] = {
            "phases.0.epochs": 1,
            "phases.1.epochs": wanted.epochs,
            "system.device": "cpu",
            "system.cache_dir": str(place / "cache"),
        }
        run = api.train("shapes:500x32", runs=place / "runs", backbone=wanted.backbone, size=wanted.size, **settings)
        folders = write_pictures(wanted.pictures, place)
        start = time.monotonic()
        api.predict_into(run, [place / "all"], place / "local.parquet", device="cpu")
        result["local_seconds"] = round(time.monotonic() - start, 1)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        verb = ["predict", str(run.path), *map(str, folders), "--ray", cluster.address, "--device", "cpu"]
        bench = Bench(cluster, nodes, [sys.executable, "-m", "thawlab", *verb], rows_of(place / "local.parquet")[0])
        start = time.monotonic()
        code = bench.begin(place / "whole").wait()
        seconds = round(time.monotonic() - start, 1)
        outcome = {"exit_code": code, **compared(place / "whole", bench.expected)}
        result |= {"ray_seconds": seconds, "undisturbed": outcome, "losses": []}
        print(outcome, flush=True)
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        for number in range(wanted.losses):
            row = with_loss(bench, place / f"out{number}", draws.randrange(1, parts_in(place / "whole")), bool(number % 2))
            print(row, flush=True)
            result["losses"].append(row)
            wanted.out.write_text(json.dumps(result, indent=1) + "\n")
        cluster.shutdown()


if __name__ == "__main__":
    main()
