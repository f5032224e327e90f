from __future__ import annotations

import random

import numpy as np
import torch

from thawlab.environment import deterministic


def test_a_process_is_afterwards_as_it_was() -> None:
    torch.manual_seed(5)
    random.seed(5)
    before = torch.get_rng_state(), torch.get_num_threads(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    with deterministic(1):
        assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 1
        torch.manual_seed(99)
        torch.rand(3)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    assert torch.equal(torch.get_rng_state(), before[0]) and torch.get_num_threads() == before[1]
    assert np.random.get_state()[1].tolist() == before[2] and random.getstate() == before[3]  # type: ignore[index]


def test_it_is_as_it_was_after_an_error_too() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        try:
            with deterministic(1):
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
