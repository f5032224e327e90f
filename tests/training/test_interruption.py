"""A request to stop is never taken for anything else: not for divergence, not for missing weights, not for a failed trace."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from thawlab.errors import Interrupted, ThawlabError
from thawlab.inference import tracing
from thawlab.plan.resolve import resolve
from thawlab.recipe import Recipe
from thawlab.results import read_results
from thawlab.run import run_folder
from thawlab.runner import train
from thawlab.training import fit, lr_finder
from thawlab.training.interruption import Interruption, watch_signals

Make = Callable[..., Recipe]


@pytest.mark.parametrize("step", [2, 30])
def test_a_stop_in_the_range_test_is_no_learning_rate(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    wanted = recipe("phases.0.lr=auto", "phases.0.epochs=1", "phases.1.epochs=1", "data.source=shapes:200x16")
    undisturbed = read_results(train(wanted, tmp_path / "one").results)
    steps, original = [], lr_finder.take_step

    def interrupted(*arguments: Any) -> float:
        steps.append(1)
        if len(steps) == step:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(lr_finder, "take_step", interrupted)
    with pytest.raises(Interrupted):
        train(wanted, tmp_path / "two")
    folder = run_folder(resolve(wanted)[0], tmp_path / "two")
    assert folder.status == "interrupted"
    resumed = read_results(train(wanted, tmp_path / "two").results)
    assert resumed.phases[0].lr == undisturbed.phases[0].lr and resumed.test == undisturbed.test


def test_no_handler_of_errors_swallows_a_stop() -> None:
    assert not issubclass(Interrupted, Exception) and not issubclass(Interrupted, ThawlabError)

    class Stopping(nn.Module):
        def forward(self, _x: Any) -> Any:
            raise Interrupted("stop", signal.SIGINT)

    with pytest.raises(Interrupted):
        tracing.trace(Stopping())


def test_a_stop_where_nothing_needs_saving_is_raised_at_once_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stopped, watch_signals():
        signal.raise_signal(signal.SIGINT)
    assert stopped.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def as_at_the_start() -> Iterator[None]:
    """Ctrl-C as Python starts with it: shells let commands in the background ignore it, and other tests may have changed it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("as_at_the_start")
def test_a_second_stop_does_what_it_does_without_us() -> None:
    with pytest.raises(KeyboardInterrupt) as stopped, watch_signals() as interruption, interruption.deferring():
        signal.raise_signal(signal.SIGINT)
        assert interruption.requested == signal.SIGINT
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the second interrupt must be raised")  # pragma: no cover
    assert not isinstance(stopped.value, Interrupted)


def test_a_failed_training_says_so_and_a_stopped_one_too(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, status in ((ThawlabError("full"), "failed"), (KeyboardInterrupt(), "interrupted")):

        def raising(*_arguments: Any, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(fit, "train_phase", raising)
        with pytest.raises(type(error)):
            train(recipe(), tmp_path)
        assert run_folder(resolve(recipe())[0], tmp_path).status == status


def test_an_interruption_knows_of_nothing_before_a_signal() -> None:
    assert Interruption().requested is None
