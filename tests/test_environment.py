from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from thawlab.environment import choose_device, deterministic
from thawlab.errors import UsageError


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


def test_a_device_is_chosen_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in {"cpu", "cuda"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cpu:x", "'cpu:x' is not a device"),
        ("cpu:", "'cpu:' is not a device"),
        ("cpu:-1", "'cpu:-1' is not a device"),
        ("cpu:7", "there is no 'cpu:7'; this machine has 1 of the kind"),
        ("cuda7", "there is no device 'cuda7' (did you mean 'cuda'?)"),
        ("auto:0", "'auto:0' is not available"),
        ("cuda:99", "'cuda:99'"),
        ("", "there is no device ''"),
    ],
)
def test_what_is_no_device_of_this_machine_is_named_in_one_line(name: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_device(name)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_gpu_that_there_is_not_is_refused_where_there_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="there is no 'cuda:7'; this machine has 2 of the kind, numbered from 0"):
        choose_device("cuda:7")
