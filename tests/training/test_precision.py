from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from thawlab.errors import Interrupted
from thawlab.recipe import Phase, Recipe
from thawlab.results import read_results
from thawlab.runner import train
from thawlab.training import precision
from thawlab.training.context import Context
from thawlab.training.phase_data import PhaseData
from thawlab.training.precision import choose_precision

Make = Callable[..., Recipe]
CPU = torch.device("cpu")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("seconds", "expected"), [((1.0, 0.5), "bfloat16"), ((1.0, 0.95), "float32"), ((1.0, 3.0), "float32")])
def test_bfloat16_must_be_worth_it(monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], expected: str) -> None:
    times = dict(zip((False, True), seconds, strict=True))
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda _: True)
    monkeypatch.setattr(precision, "replace", lambda data, **changes: SimpleNamespace(**(vars(data) | changes)))
    monkeypatch.setattr(precision, "_least_seconds", lambda _, data: times[data.bfloat16])
    context, data = SimpleNamespace(device=CPU), SimpleNamespace(phase=Phase(epochs=1), bfloat16=False)
    chosen, why = choose_precision(context, data)  # type: ignore[arg-type]
    assert chosen == expected
    assert f"{1000 * seconds[1]:.1f} ms" in why


@pytest.mark.parametrize("choice", ["float32", "bfloat16"])
def test_auto_gives_what_the_chosen_arithmetic_gives(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    expected = train(recipe(f"precision={choice}"), tmp_path / "a")
    asked = []

    def choose(context: Context, data: PhaseData) -> tuple[str, str]:
        asked.append(data.phase.name)
        real = choose_precision(context, data)  # the timing must leave no trace
        assert real[0] in {"float32", "bfloat16"}
        return choice, "the test says so"

    monkeypatch.setattr("thawlab.training.fit.choose_precision", choose)
    monkeypatch.setattr(precision, "has_fast_bfloat16", lambda _: True)
    folder = train(recipe("precision=auto"), tmp_path / "b")
    assert asked == ["head", "all"]
    assert same(weights(folder.path), weights(expected.path))
    assert [phase.precision for phase in read_results(folder.results).phases] == [choice, choice]
    assert f"precision = {choice}, since the test says so" in (folder.path / "log.txt").read_text()


def test_a_phase_is_continued_in_the_arithmetic_it_began_in(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(recipe("precision=bfloat16"), tmp_path / "a")
    monkeypatch.setattr("thawlab.training.fit.choose_precision", lambda *_: ("bfloat16", "first"))

    def stop(*_: object) -> None:
        raise Interrupted("stopped by the test", 15)

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr("thawlab.training.fit.train_phase", stop)
        train(recipe("precision=auto"), tmp_path / "b")
    choices = iter([("bfloat16", "second phase")])
    monkeypatch.setattr("thawlab.training.fit.choose_precision", lambda *_: next(choices))
    folder = train(recipe("precision=auto"), tmp_path / "b")
    assert same(weights(folder.path), weights(expected.path))
