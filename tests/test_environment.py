from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from thawlab import environment
from thawlab.environment import choose_device, deterministic, has_fast_bfloat16
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


def group(folder: Path, limit: str, used: int, droppable: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {droppable}\n")


def test_the_tightest_control_group_counts(tmp_path: Path) -> None:
    group(tmp_path / "fs" / "user" / "job", "max", 100, 0)
    group(tmp_path / "fs" / "user", "1000", 700, 50)
    (tmp_path / "cgroup").write_text("0::/user/job\n")
    assert environment._left_by_control_groups(tmp_path / "cgroup", tmp_path / "fs") == [350]
    group(tmp_path / "fs" / "user" / "job", "300", 100, 20)
    assert min(environment._left_by_control_groups(tmp_path / "cgroup", tmp_path / "fs")) == 220


def test_the_first_version_of_control_groups_counts_too(tmp_path: Path) -> None:
    memory = tmp_path / "fs" / "memory"  # in a container the path outside is named, and the group lies at the top
    memory.mkdir(parents=True)
    (memory / "memory.limit_in_bytes").write_text("2000\n")
    (memory / "memory.usage_in_bytes").write_text("900\n")
    (memory / "memory.stat").write_text("total_inactive_file 100\n")
    (tmp_path / "cgroup").write_text("9:name=systemd:/\n4:memory:/docker/8af0\n3:cpu:/docker/8af0\n")
    assert environment._left_by_control_groups(tmp_path / "cgroup", tmp_path / "fs") == [1200]
    assert environment._left_by_control_groups(tmp_path / "absent", tmp_path / "fs") == []


def test_free_memory_is_what_a_limit_leaves() -> None:
    free = environment.free_memory(torch.device("cpu"))
    assert 0 < free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if not Path("/proc/self/statm").exists():
        pytest.skip("only Linux tells how much address space is taken")
    script = (
        "import resource, torch; from thawlab.environment import free_memory\n"
        "pages = int(open('/proc/self/statm').read().split()[0]); taken = pages * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 2**29, taken + 2**29)); print(free_memory(torch.device('cpu')))"
    )
    limited = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert 2**28 < limited <= 2**29


def test_a_machine_without_bfloat16_products_stays_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not has_fast_bfloat16(torch.device("cpu"))
    assert not has_fast_bfloat16(torch.device("mps"))
