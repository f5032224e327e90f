"""Compare thawlab with the programs that its users would otherwise write: `make bench`.

Every variant is a whole process. The variants of one work run in turn, repetition by repetition, so that a drifting machine
meets them all; ratios are taken against the fastest peer of the same repetition, and their median is reported. Long works
screen their peers with fewer epochs first; a peer that is far behind the fastest one there, or in the first repetition, cannot
become the fastest and is not run again. Its time stays in the result. Nor are peers run again that take ten times as long as
thawlab: with their times in the first repetition those of later ones are compared.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import memory
import options
from material import prepare_backbones, prepare_data, prepare_jpegs
from table import WORDS
from works import LITE, Variant, Work, prepare_rounded, prepare_run, works

# What is compared in minutes, on a tenth of the material and once.
QUICK = ("head", "head-again", f"all-{LITE}-96", "all-mobilenetv2_100-96", "input-first", "predict")
SHARE = 0.1
JPEGS = 10_000
# A peer this many times as slow as the fastest one is dropped.
HOPELESS = 1.25
# And all that are left where the fastest of them is this many times as slow as thawlab: it takes long to measure again.
SETTLED = 10.0


def run_once(variant: Variant, work: Work, caches: Path) -> dict[str, Any]:
    """Start a variant and return its seconds, whole and of its parts, and its peak memory."""
    runs = Path(tempfile.mkdtemp(prefix="bench-runs-"))
    cache = Path(tempfile.mkdtemp(prefix="bench-cache-")) if variant.fresh_cache else caches
    command = list(variant.command)
    if variant.kind == "train":
        command += ["--runs", str(runs), "--cache-dir", str(cache), "--json"]
    started = time.perf_counter()
    if work.part == "memory":
        document: dict[str, Any] = {"seconds": {}, **memory.peak_of(command, work.lasts)}
    else:
        document = _finished(command, variant.kind)
    seconds = time.perf_counter() - started
    shutil.rmtree(runs)
    if variant.fresh_cache:
        shutil.rmtree(cache)
    return {"variant": variant.name, "work": work.name, "whole": seconds, **document}


def _finished(command: list[str], kind: str) -> dict[str, Any]:
    """Run a command to its end and return what it reports."""
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{process.stderr[-2000:]}")
    if kind == "whole":
        return {"seconds": {}}
    document = json.loads(process.stdout[process.stdout.index("{") :])
    if kind == "program":
        return dict(document)
    parts = {phase["name"]: phase["seconds"] for phase in document["phases"]}
    arithmetic = [phase["precision"] for phase in document["phases"]]
    return {"seconds": parts, "accuracy": document["test"]["accuracy"], "precision": arithmetic}


def run_known(
    variant: Variant, work: Work, caches: Path, known: dict[tuple[str, ...], dict[str, Any]], repetition: int
) -> dict[str, Any]:
    """Run a variant once per repetition: works may share their peers."""
    key = (str(repetition), *variant.command)
    if key not in known:
        known[key] = run_once(variant, work, caches)
    return known[key]


def screened_peers(work: Work, caches: Path, known: dict[tuple[str, ...], dict[str, Any]]) -> list[Variant]:
    """Return the peers of a long task that are worth running in full, after a short run of each."""
    if not work.screen:
        return work.peers
    full, short = work.screen
    for peer in work.peers:
        quick = Variant(peer.name, [short if part == full else part for part in peer.command])
        row = run_known(quick, work, caches, known, -1)
        work.screened.append(row)
        print(f"{work.name} screening {peer.name}: {row['whole']:.1f} s", flush=True)
    return in_the_race(work.peers, work.screened, "whole")


def in_the_race(peers: list[Variant], rows: list[dict[str, Any]], part: str) -> list[Variant]:
    """Return the peers that are not far behind the fastest one."""
    seconds = {row["variant"]: value_of(row, part) for row in rows if row["variant"] != "thawlab"}
    return [peer for peer in peers if seconds[peer.name] <= HOPELESS * min(seconds.values())]


def value_of(row: dict[str, Any], part: str) -> float:
    """Return the seconds, or MiB, that a task compares."""
    if part == "memory":
        return float(row["peak_mib"])
    return float(row["whole"] if part == "whole" else row["seconds"][part])


def summarize(work: Work) -> dict[str, Any]:
    """Return medians, and the median of the ratios to the fastest peer of the same repetition."""
    repetitions = sorted({row["repetition"] for row in work.rows})
    ratios, theirs = [], 0.0
    for repetition in repetitions:
        rows = [row for row in work.rows if row["repetition"] == repetition]
        mine = next(value_of(row, work.part) for row in rows if row["variant"] == "thawlab")
        peers = [value_of(row, work.part) for row in rows if row["variant"] != "thawlab"]
        theirs = min(peers) if peers else theirs  # settled before
        ratios.append(theirs / mine)
    names = list(dict.fromkeys(row["variant"] for row in work.rows))
    medians = {n: statistics.median(value_of(r, work.part) for r in work.rows if r["variant"] == n) for n in names}
    return {
        "work": work.name,
        "compares": work.part,
        "target": work.target,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "median_mib" if work.part == "memory" else "median_seconds": medians,
        "screened": work.screened,
        "rows": work.rows,
    }


def save(path: Path, summaries: list[dict[str, Any]], ceiling: dict[str, float], share: float) -> None:
    """Write what has been measured so far."""
    content = {**machine.described(), "share of the material": share, "machine": ceiling, "works": summaries}
    path.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    """Run the selected comparisons and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cifar10", type=options.folder, required=True, help="CIFAR-10: a folder of Parquet files or of images")
    parser.add_argument(
        "--keras-python", type=options.program, help="the Python of a virtual environment with TensorFlow; without it, no Keras"
    )
    parser.add_argument("--repetitions", type=options.count, help="three if omitted, one if quick")
    parser.add_argument("--quick", action="store_true", help="fewer works on a tenth of the material: minutes, rougher ratios")
    parser.add_argument("--only", default="", help="names of tasks, separated by commas")
    parser.add_argument("--work-dir", type=Path, default=Path(tempfile.gettempdir()) / "thawlab-bench")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    wanted = [name for name in arguments.only.split(",") if name] or (QUICK if arguments.quick else ())
    if unknown := [name for name in wanted if name not in WORDS]:
        parser.error(f"--only: there is no work '{unknown[0]}', but {', '.join(WORDS)}")
    share = SHARE if arguments.quick else 1.0
    folder = arguments.work_dir / "quick" if arguments.quick else arguments.work_dir
    prepare_data(folder, arguments.cifar10, share)
    prepare_backbones(folder)
    prepare_jpegs(folder / "jpegs", folder, round(share * JPEGS))
    prepare_run(folder)
    ceiling = machine.measure()
    print(ceiling, flush=True)
    chosen = [work for work in works(folder, arguments.keras_python) if not wanted or work.name in wanted]
    if ceiling["gflops_bfloat16"] < machine.EMULATED:  # a peer in bfloat16 would take hours
        for work in chosen:
            work.peers = [peer for peer in work.peers if "bfloat16" not in peer.name]
        chosen = [work for work in chosen if work.name != "predict-bfloat16"]
    elif any(work.name == "predict-bfloat16" for work in chosen):
        prepare_rounded(folder)
    repetitions = arguments.repetitions or (1 if arguments.quick else 3)
    known: dict[tuple[str, ...], dict[str, Any]] = {}
    summaries = []
    for work in chosen:
        caches = Path(tempfile.mkdtemp(prefix="bench-kept-"))
        if not work.ours.fresh_cache:
            run_once(work.ours, work, caches)  # fills the cache that this work finds
        unit = "MiB" if work.part == "memory" else "s"
        peers = screened_peers(work, caches, known)
        for repetition in range(repetitions):
            for variant in [*peers, work.ours]:
                row = run_known(variant, work, caches, known, repetition)
                work.rows.append({**row, "repetition": repetition})
                print(f"{work.name} {repetition} {variant.name}: {value_of(row, work.part):.1f} {unit}", flush=True)
            if peers:
                peers = in_the_race(peers, [row for row in work.rows if row["repetition"] == repetition], work.part)
            if summarize(work)["ratio"] >= SETTLED:
                peers = []
        shutil.rmtree(caches)
        summaries.append(summarize(work))
        save(arguments.out, summaries, ceiling, share)
        print(f"{work.name}: {summaries[-1]['ratio']:.1f}× (target {work.target}×)", flush=True)


if __name__ == "__main__":
    main()
