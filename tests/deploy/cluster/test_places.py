"""Files read in pieces: what a storage does wrong is tried again, and never taken for the end of a file."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import numpy as np
import pytest

from thawlab.deploy.cluster import places
from thawlab.deploy.cluster.places import Place, UnreachedError
from thawlab.errors import UsageError

CONTENT = np.random.default_rng(0).bytes(100_000)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(places, "_PIECE", 4096)


@pytest.fixture
def memory() -> Iterator[Any]:
    storage = fsspec.filesystem("memory")
    storage.pipe("/a/file", CONTENT)
    yield storage
    storage.store.clear()


@pytest.fixture
def spoilt(memory: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[bytes, int], bytes]], list[int]]:
    """Change what the storage answers, given the right answer and the number of the question; returns what was asked."""
    asked: list[int] = []

    def spoil(change: Callable[[bytes, int], bytes]) -> list[int]:
        right = type(memory).cat_file
        numbers = itertools.count()

        def cat_file(self: Any, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
            asked.append(start or 0)
            return change(right(self, path, start, end, **more), next(numbers))

        monkeypatch.setattr(type(memory), "cat_file", cat_file)
        return asked

    return spoil


def test_any_piece_is_the_files(memory: Any) -> None:  # noqa: ARG001 - holds the file
    draws = random.Random(0)
    with Place("memory://a/file").open(len(CONTENT)) as file:
        for _ in range(200):
            start, count = draws.randrange(len(CONTENT)), draws.randrange(9000)
            file.seek(start)
            assert file.read(count) == CONTENT[start : start + count]
        file.seek(-10, 2)
        assert file.read() == CONTENT[-10:] and file.read() == b""


@pytest.mark.parametrize("fault", ["cut", "error", "refused"])
def test_a_fault_now_and_then_costs_nothing(fault: str, spoilt: Any) -> None:
    def change(right: bytes, number: int) -> bytes:
        if number % 3 == 0:
            if fault == "cut":
                return right[: len(right) // 2]
            raise OSError("500 internal error") if fault == "error" else ConnectionRefusedError(111, "Connection refused")
        return right

    spoilt(change)
    with Place("memory://a/file").open(len(CONTENT)) as file:
        assert file.read() == CONTENT


def test_a_connection_that_is_always_cut_is_no_end(spoilt: Any) -> None:
    asked = spoilt(lambda right, _: right[:-1])
    with Place("memory://a/file").open(len(CONTENT)) as file, pytest.raises(UnreachedError) as told:
        file.read(10)
    assert str(told.value) == "memory://a/file: cannot be read, tried 4 times: 4,095 bytes came where 4,096 were asked for"
    assert len(asked) == 4


def test_a_server_that_gives_whole_files_only_is_asked_once(spoilt: Any) -> None:
    asked = spoilt(lambda _right, _number: CONTENT)
    with Place("memory://a/file").open(len(CONTENT)) as file:
        assert file.read() == CONTENT
    assert len(asked) == 1


class NoCredentialsError(Exception):
    """As botocore's is called."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError("Forbidden"), "lets nobody in with these credentials"),
        (NoCredentialsError("Unable to locate credentials"), "lets nobody in with these credentials"),
        (FileNotFoundError("bucket/x"), "there is no such file"),
    ],
)
def test_what_another_try_does_not_change_is_not_tried_again(error: Exception, words: str, spoilt: Any) -> None:
    def change(_right: bytes, _number: int) -> bytes:
        raise error

    asked = spoilt(change)
    with pytest.raises(UnreachedError, match=words):
        Place("memory://a/file").read()
    assert len(asked) == 1


def test_what_nothing_here_reads_says_what_to_install() -> None:
    with pytest.raises(UsageError, match=r"nosuch://a: cannot be read here: .*nosuch"):
        Place("nosuch://a")


def test_only_files_are_entries(memory: Any) -> None:  # noqa: ARG001 - holds the file
    assert Place("memory://a").entry() is None
    assert Place("memory://nothing").entry() is None
    found = Place("memory://a/file").entry()
    assert found is not None and found.size == len(CONTENT)
