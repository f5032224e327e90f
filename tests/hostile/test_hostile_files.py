"""Hostile pictures, archives, weights, tables and records: nothing crashes, hangs, fills the memory or is executed.

The short forms; the whole ones, which `tools/hostile.py` runs as well and writes to results/hostile.txt, are marked slow.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile_weights import pickles
from ordeal import children
from ordeals import FINDS, Found, archives, made_pictures, picture_files, pictures, recipes, records, tables, weights

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from Linux' /proc")
_MOST_SECONDS, _MOST_BYTES = 5, 1_000_000_000


def assert_harmless(found: Found, least: int) -> None:
    trials = found.trials
    assert trials.tried >= least
    assert [(found.names(number), what) for number, what in trials.wrong] == []
    assert trials.seconds[0] < _MOST_SECONDS, found.names(trials.seconds[1])
    assert trials.rise < _MOST_BYTES, [[found.names(number) for number in numbers] for numbers, _ in trials.finds]


def test_mutated_pictures() -> None:
    assert_harmless(pictures(400, threads=4), 400)


def test_what_was_found_before() -> None:
    assert_harmless(picture_files(FINDS, threads=4), 10)


def test_crafted_pictures() -> None:
    assert_harmless(made_pictures(threads=4, whole=False), 9)


def test_archives() -> None:
    assert_harmless(archives(whole=False), 50)


def test_tables() -> None:
    assert_harmless(tables(whole=False), 90)


def test_recipes() -> None:
    assert_harmless(recipes(whole=False), 40)


def test_records() -> None:
    assert_harmless(records(step=17), 12)


def test_pickles_and_weights() -> None:
    assert_harmless(weights(step=31), 50)


def test_the_pickles_do_what_they_are_kept_from(tmp_path: Path) -> None:
    """The canary is made where such a file is unpickled: else the tests above would show nothing."""
    import pickle

    canary = tmp_path / "canary"
    files = pickles(canary)
    for name in ("system.plain", "exec.plain", "eval.plain", "touch.plain", "opcodes.plain"):
        canary.unlink(missing_ok=True)
        pickle.loads(files[name])
        assert canary.exists(), name


def test_what_kills_a_process_is_named() -> None:
    """Of 20 numbers the 7th kills its process, and the 12th raises what is not ours."""
    found = list(children("doomed:doomed", range(20), 3, 20))
    assert sum(part.tried for part in found) == 20
    wrong = dict(item for part in found for item in part.wrong)
    assert set(wrong) == {7, 12} and "ended with -9" in wrong[7] and wrong[12] == "ZeroDivisionError: twelve"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_mutated_pictures() -> None:
    assert_harmless(pictures(100_000, threads=4), 100_000)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("threads", [1, 8, 16])
def test_all_crafted_pictures_whatever_the_number_of_threads(threads: int) -> None:
    assert_harmless(made_pictures(threads, whole=True, times=2 if threads > 1 else 1), 40)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_archives_and_tables() -> None:
    assert_harmless(archives(whole=True), 60)
    assert_harmless(tables(whole=True), 100)
    assert_harmless(recipes(whole=True), 40)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_pickles_and_weights_in_every_place() -> None:
    assert_harmless(weights(step=1), 1_600)
    assert_harmless(records(step=1), 200)
