"""What the kernel tells of broken parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldoms.manager.health import memory_health, online_cpus


@pytest.mark.parametrize(("text", "cpus"), [("0\n", {0}), ("0-3\n", {0, 1, 2, 3}), ("0-1,4,6-7\n", {0, 1, 4, 6, 7})])
def test_cpus_that_are_used(tmp_path: Path, text: str, cpus: set[int]) -> None:
    """A list of numbers and ranges."""
    path = tmp_path / "online"
    path.write_text(text)
    assert online_cpus(path) == cpus


def test_memory_that_is_broken(tmp_path: Path) -> None:
    """Some of it; a kernel that does not look for it says nothing."""
    path = tmp_path / "meminfo"
    for text, health in (
        ("MemFree: 5 kB\n", "ok"),
        ("HardwareCorrupted:     0 kB\n", "ok"),
        ("HardwareCorrupted: 4 kB\n", "unknown"),
    ):
        path.write_text(text)
        assert memory_health(path) == health


def test_this_machine_is_read() -> None:
    """CPU 0 is always used."""
    assert 0 in online_cpus()
    assert memory_health() in ("ok", "unknown")
