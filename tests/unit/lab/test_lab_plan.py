"""What each host of a lab is given."""

from __future__ import annotations

import pytest

from ldoms.lab.lab import memory_of_each


@pytest.mark.parametrize(
    ("hosts", "machine_mib", "each_mib"),
    [
        (2, 65536, 8192),
        (2, 24000, 5888),
        (3, 24000, 3840),
        (2, 4000, 2560),
        (16, 24000, 2560),
        (2, 2000, 1792),
    ],
)
def test_memory_of_each_host(hosts: int, machine_mib: int, each_mib: int) -> None:
    """Half of the machine for all, but a database guest fits, and never more than ldmd takes."""
    assert memory_of_each(hosts, machine_mib) == each_mib
