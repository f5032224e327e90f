from __future__ import annotations

from pathlib import Path

import pytest

from thawlab.training.energy import joules_between, read_counters


def write(root: Path, zone: str, value: str) -> None:
    (root / zone).mkdir(exist_ok=True)
    (root / zone / "energy_uj").write_text(value)
    (root / zone / "max_energy_range_uj").write_text("1000000000\n")


def test_packages_are_summed_and_counters_that_start_again_too(tmp_path: Path) -> None:
    for zone, value in (("intel-rapl:0", "999000000\n"), ("intel-rapl:1", "5000000\n"), ("intel-rapl:0:0", "1\n")):
        write(tmp_path, zone, value)
    before = read_counters(tmp_path)
    assert set(before) == {"intel-rapl:0", "intel-rapl:1"}
    write(tmp_path, "intel-rapl:0", "2000000\n")
    write(tmp_path, "intel-rapl:1", "9000000\n")
    assert joules_between(before, read_counters(tmp_path)) == pytest.approx(3 + 4)


def test_without_readable_counters_nothing_is_claimed(tmp_path: Path) -> None:
    write(tmp_path, "intel-rapl:0", "no number")
    assert read_counters(tmp_path) == {} and read_counters(tmp_path / "gone") == {}
    assert joules_between({}, {}) is None
