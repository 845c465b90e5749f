"""Something breaks in a migration between two real managers, and is mended: a sample of the fault matrix.

Every fault, and every point of every phase, is in it at least once; `make test-faults` runs all of it. The same, finer
and with more ways to break, runs on fakes in `unit/migration/test_faults.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faults.cells import place, prepared, run_cell
from faults.matrix import Cell, sample
from support import Hosts, make_hosts


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Two hosts for all cells."""
    with make_hosts() as made, prepared(made):
        yield made


@pytest.mark.parametrize("cell", sample(), ids=lambda cell: cell.name)
def test_one_host_owns_the_guest_whatever_breaks(hosts: Hosts, cell: Cell) -> None:
    """It never runs twice, is on one host in the end, lives if its QEMU does, and has lost nothing of its disk."""
    with place(hosts, cell) as (guest, source):
        run_cell(hosts, cell, guest, source)
