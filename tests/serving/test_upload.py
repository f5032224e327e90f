"""Bodies, cut into pieces anywhere."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest
from asking import form
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")

from thawlab.serving.refusals import RefusedError
from thawlab.serving.settings import Limits
from thawlab.serving.upload import Budget, pictures_of

KIND = form([])[1]


@dataclass
class Sent:
    """As much of a request as is read here."""

    pieces: Sequence[bytes]
    kind: str = KIND
    pause: float = 0.0

    @property
    def headers(self) -> dict[str, str]:
        return {"content-type": self.kind}

    async def stream(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            await asyncio.sleep(self.pause)
            yield piece


def received(sent: Any, limits: Limits = Limits(), budget: Budget | None = None) -> list[bytes]:  # noqa: B008 - frozen
    budget = budget or Budget(limits.buffered_bytes)

    async def read() -> list[bytes]:
        found = []
        async for picture in pictures_of(sent, limits, budget):
            found.append(picture)
            budget.give(len(picture))
        return found

    return asyncio.run(read())


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5), st.lists(st.integers(1, 40), min_size=1, max_size=20))
@settings(deadline=None, max_examples=60)
def test_pictures_come_out_as_they_went_in_however_they_are_cut(pictures: list[bytes], cuts: list[int]) -> None:
    body, place, pieces = form(pictures)[0], 0, []
    while place < len(body):
        step = cuts[len(pieces) % len(cuts)]
        pieces.append(body[place : place + step])
        place += step
    budget = Budget(10_000)
    assert received(Sent(pieces), budget=budget) == pictures
    assert budget.taken == 0


async def refusal(sent: Any, limits: Limits, budget: Budget) -> str:
    """Return why a body is refused, and keep nothing of it."""
    try:
        async with aclosing(pictures_of(sent, limits, budget)) as pictures:
            async for _ in pictures:
                pass
    except RefusedError as error:
        return error.message
    return ""


@pytest.mark.parametrize("kind", [KIND, "image/png"])
def test_a_refused_body_gives_everything_back_at_once(kind: str) -> None:
    """Without waiting for the collector of garbage, which may come much later."""
    limits, budget = replace(Limits(), picture_bytes=20_000_000), Budget(10_000_000)
    head = [form([b"x"])[0].removesuffix(b"\r\n--XX--\r\n")] * (kind == KIND)

    async def several() -> int:
        for _ in range(3):
            said = await refusal(Sent([*head, *(bytes([65]) * 1_000_000 for _ in range(12))], kind), limits, budget)
            assert "too many pictures are being sent" in said
        return tracemalloc.get_traced_memory()[0]

    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        assert asyncio.run(several()) < 15_000_000  # what was sent last may still be there
    finally:
        tracemalloc.stop()
        gc.enable()
    assert budget.taken == 0


def test_slow_bodies_are_given_up() -> None:
    with pytest.raises(RefusedError, match="too slowly") as pausing:
        received(Sent([b"x"] * 3, "image/png", pause=0.2), replace(Limits(), idle_seconds=0.05))
    with pytest.raises(RefusedError, match="too slowly") as dribbling:
        received(Sent([b"x"] * 30, "image/png", pause=0.02), replace(Limits(), body_seconds=0.2))
    assert pausing.value.status == dribbling.value.status == 408


def test_limits_hold_at_their_edge() -> None:
    limits = replace(Limits(), picture_bytes=100, pictures=2)
    assert received(Sent([form([b"x" * 100] * 2)[0]]), limits) == [b"x" * 100] * 2
    assert received(Sent([b"x" * 100], "image/png"), limits) == [b"x" * 100]
    for sent in (Sent([form([b"x" * 101])[0]]), Sent([b"x" * 101], "image/png"), Sent([form([b"x"] * 3)[0]])):
        with pytest.raises(RefusedError) as refused:
            received(sent, limits)
        assert refused.value.status == 413
