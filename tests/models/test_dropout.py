from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thawlab.models.dropout import Dropout


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.9])
def test_the_share_of_dropped_values_is_the_rate_and_the_mean_is_kept(rate: float) -> None:
    torch.manual_seed(0)
    values = Dropout(rate).train()(torch.ones(1000, 1000))
    # Six standard errors of a share of a million draws.
    assert float((values == 0).float().mean()) == pytest.approx(rate, abs=6 * (rate * (1 - rate) / 1e6) ** 0.5)
    assert float(values.max()) == pytest.approx(1 / (1 - rate), rel=1e-3)
    assert float(values.mean()) == pytest.approx(1, abs=6 * (rate / (1 - rate) / 1e6) ** 0.5)


def test_neighbouring_values_are_dropped_independently() -> None:
    torch.manual_seed(0)
    dropped = (Dropout(0.3).train()(torch.ones(1000, 1024)) == 0).float().flatten()
    for distance in (1, 2, 3, 4, 8):
        both = float((dropped[:-distance] * dropped[distance:]).mean())
        assert both == pytest.approx(0.09, abs=0.002)


@given(st.integers(0, 9), st.integers(1, 9), st.sampled_from([torch.float32, torch.bfloat16]))
def test_any_shape_and_type_comes_back(rows: int, columns: int, dtype: torch.dtype) -> None:
    values = Dropout(0.5).train()(torch.ones(rows, columns, dtype=dtype))
    assert values.shape == (rows, columns) and values.dtype == dtype
    assert set(values.float().unique().tolist()) <= {0.0, 2.0}


def test_the_gradient_is_that_of_the_values_that_stayed() -> None:
    torch.manual_seed(0)
    values = torch.ones(64, 64, requires_grad=True)
    result = Dropout(0.25).train()(values)
    result.sum().backward()
    assert torch.equal(values.grad, result.detach())


def test_the_same_generator_state_drops_the_same_and_eval_mode_drops_nothing() -> None:
    layer, values = Dropout(0.4), torch.randn(32, 32)
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(layer.train()(values))
    assert torch.equal(*results) and not torch.equal(results[0], values)
    assert torch.equal(layer.eval()(values), values)


def test_a_rate_of_zero_keeps_everything() -> None:
    values = torch.randn(16, 16)
    assert torch.equal(Dropout(0.0).train()(values), values)


def test_the_highest_rates_drop_nearly_everything_and_stay_finite() -> None:
    dropped = Dropout(0.999999).train()(torch.ones(64, 64))
    assert torch.isfinite(dropped).all() and (dropped == 0).float().mean() > 0.99
