"""Predict pictures in folders, tar shards and Parquet files on a Ray cluster of three nodes on this machine, and lose nodes.

    python tools/ray_predict.py --out results/scale/predict-ray.json

The cluster has a head without cores and two nodes with one core each. A node is killed at a random moment of each repetition and a
new one joins; in every second one the command is killed too, and given again. Every picture must have one row, equal to the one that
`thawlab predict --out` writes for the same picture in a folder on this machine, with both cores and no cluster.
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
from typing import Any

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


def largest_difference(one: dict[str, dict[str, Any]], two: dict[str, dict[str, Any]]) -> float:
    names = [name for name in next(iter(one.values())) if name.startswith("probability")]
    return max(abs((one[key][name] or 0) - (two[key][name] or 0)) for key in one.keys() & two.keys() for name in names)


def main() -> None:
    """Run everything, and write after each repetition what is known so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=12_000)
    parser.add_argument("--losses", type=int, default=5)
    parser.add_argument("--backbone", default="bundled")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()
    process.prepare()
    draws = random.Random(wanted.seed)
    result: dict[str, Any] = {**environment({}, choose_device("cpu")), "pictures": wanted.pictures, "losses": []}
    result |= {"backbone": wanted.backbone, "size": wanted.size}
    with tempfile.TemporaryDirectory(prefix="ray-predict-") as text:
        place = Path(text)
        settings = {"phases.0.epochs": 1, "system.device": "cpu", "system.cache_dir": str(place / "cache")}
        run = api.train("shapes:500x32", runs=place / "runs", backbone=wanted.backbone, size=wanted.size, **settings)
        folders = write_pictures(wanted.pictures, place)
        start = time.monotonic()
        api.predict_into(run, [place / "all"], place / "local.parquet", device="cpu")
        result["local_seconds"] = round(time.monotonic() - start, 1)
        expected, _ = rows_of(place / "local.parquet")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]

        def begin(out: Path) -> subprocess.Popen[bytes]:
            verb = ["predict", str(run.path), *map(str, folders), "--ray", cluster.address, "--out", str(out), "--device", "cpu"]
            return subprocess.Popen([sys.executable, "-m", "thawlab", *verb])

        def compared(out: Path) -> dict[str, Any]:
            found, twice = rows_of(out)
            missing = len(expected.keys() - found.keys())
            differing = sum(found[name] != expected[name] for name in expected.keys() & found.keys())
            unknown = len(found.keys() - expected.keys())
            counts = {"rows": len(found), "twice": twice, "missing": missing, "unknown": unknown, "differing_rows": differing}
            errors = sum(row["error"] is not None for row in found.values())
            return {**counts, "with_error": errors, "largest_difference": largest_difference(expected, found)}

        start = time.monotonic()
        code = begin(place / "whole").wait()
        seconds = time.monotonic() - start
        result["undisturbed"] = {"exit_code": code, "ray_seconds": round(seconds, 1), **compared(place / "whole")}
        print(result["undisturbed"], flush=True)
        for number in range(wanted.losses):
            out, after = place / f"out{number}", draws.uniform(0.3, 0.9) * seconds
            running = begin(out)
            time.sleep(after)
            cluster.remove_node(nodes.pop(0), allow_graceful=False)
            row: dict[str, Any] = {"lost_after": round(after, 1), "parts_then": len(list(out.glob("part-*")))}
            if number % 2:
                running.kill()
                running.wait()
                row["killed_too"] = True
            nodes.append(cluster.add_node(num_cpus=1))
            code = begin(out).wait() if number % 2 else running.wait()
            result["losses"].append({**row, "exit_code": code, "parts": len(list(out.glob("part-*"))), **compared(out)})
            print(result["losses"][-1], flush=True)
            wanted.out.parent.mkdir(parents=True, exist_ok=True)
            wanted.out.write_text(json.dumps(result, indent=1) + "\n")
        cluster.shutdown()


if __name__ == "__main__":
    main()
