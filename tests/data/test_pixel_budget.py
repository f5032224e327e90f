from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thawlab.data.pixel_budget import PixelBudget


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 150), min_size=1, max_size=60), st.integers(1, 8))
def test_no_more_is_held_than_there_is_and_all_are_served(wanted: list[int], threads: int) -> None:
    budget, lock, held, most = PixelBudget(100), threading.Lock(), [0], [0]

    def work(count: int) -> int:
        taken = budget.take(count)
        with lock:
            held[0] += taken
            most[0] = max(most[0], held[0])
        time.sleep(0)
        with lock:
            held[0] -= taken
        budget.give(taken)
        return taken

    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(work, wanted, timeout=20)) == [min(count, 100) for count in wanted]
    assert most[0] <= 100 and budget.free == 100


def test_a_large_one_is_not_passed_by_small_ones_that_ask_later() -> None:
    budget, order = PixelBudget(100), list[str]()

    def ask(name: str, count: int) -> threading.Thread:
        def work() -> None:
            taken = budget.take(count)
            order.append(name)
            budget.give(taken)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(0.05)
        return thread

    first = budget.take(60)
    waiting = [ask("large", 100), ask("small", 10)]
    assert order == []
    budget.give(first)
    for thread in waiting:
        thread.join(5)
    assert order == ["large", "small"] and budget.free == 100


class Stop(BaseException):
    pass


class Interrupted:
    """A lock that is interrupted when it is waited for, before or after it was released."""

    def __init__(self, budget: PixelBudget, held: int, given: bool) -> None:
        self._budget, self._held, self._given = budget, held, given

    def acquire(self) -> None:
        if self._given:
            self._budget.give(self._held)
        raise Stop

    def release(self) -> None:
        pass


@pytest.mark.parametrize("given", [False, True])
def test_an_interruption_while_waiting_takes_nothing(given: bool) -> None:
    budget = PixelBudget(100)
    held = budget.take(80)
    turn = Interrupted(budget, held, given)
    budget._waiting.append((50, turn))  # type: ignore[arg-type]
    with pytest.raises(Stop):
        budget._wait(50, turn)  # type: ignore[arg-type]
    if not given:
        budget.give(held)
    assert budget.free == 100 and not budget._waiting
