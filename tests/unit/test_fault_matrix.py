"""The fault matrix is whole, its sample hits everything, and its page says what has run and what has not."""

from __future__ import annotations

from pathlib import Path

import pytest

import ldoms.migration
from faults.__main__ import PAGE, table
from faults.matrix import COPYING, DISKS_COPYING, FAULTS, FETCHING, GATES, POINTS, STORAGES, WAYS, cells, sample
from ldoms.migration.phases import PHASES

NOT_ON_THE_WAY = {"source-reclaimed", "source-peer-refused", "source-called-off", "target-give-up"}
"""Gates that a migration comes to only when something is broken already."""


def test_every_phase_and_every_gate_is_in_it() -> None:
    """A gate that the code has, and the matrix has not, would never see a fault."""
    assert {point.phase for point in POINTS if point.is_edge} == set(PHASES)
    folder = Path(ldoms.migration.__file__).parent
    text = "".join((folder / f"{side}.py").read_text() for side in ("source", "target"))
    written = {line.split('gate("')[1].split('"')[0] for line in text.splitlines() if 'await gate("' in line}
    assert written - NOT_ON_THE_WAY <= set(GATES)


def test_the_sample_hits_every_fault_and_every_point() -> None:
    """Each kind of fault in each place, each length of a cut, each point and storage; none that is left out."""
    chosen = sample()
    possible = [cell for cell in cells() if not cell.left_out]
    assert not [cell for cell in chosen if cell.left_out]
    assert {cell.point for cell in chosen} == set(POINTS)
    wanted = {(cell.fault.kind, cell.fault.place) for cell in possible}
    assert {(cell.fault.kind, cell.fault.place) for cell in chosen} == wanted
    assert {cell.fault.hold_s for cell in chosen} == {fault.hold_s for fault in FAULTS}
    assert {COPYING, DISKS_COPYING, FETCHING} <= {cell.point.gate for cell in chosen}
    assert {cell.storage for cell in chosen} == set(STORAGES)
    assert {cell.way for cell in chosen} == set(WAYS)


def test_every_cell_is_run_or_left_out_for_a_reason() -> None:
    """The page has an entry for each cell: what came out, that it has not run, or why it is left out."""
    names = [cell.name for cell in cells()]
    assert len(set(names)) == len(names)
    first, second = (cell.name for cell in [cell for cell in cells() if not cell.left_out][:2])
    page = table(
        {
            first: {"result": "kept", "settled_s": 3.2, "revision": "abc"},
            second: {"result": "broken", "reason": "it ran twice", "revision": "abc"},
        }
    )
    assert "2 have run, and 1 of them kept every promise" in page
    assert "| 3 | **broken** |" in page
    assert f"- {second}: it ran twice" in page
    rows = [line for line in page.splitlines() if line.startswith(("| source |", "| target |", "| link |", "| both |"))]
    kinds = {(cell.storage, cell.way) for cell in cells() if not cell.left_out}
    assert len(rows) == len(FAULTS) * len(kinds)
    assert all(len(row.split("|")) == 4 + len(POINTS) for row in rows)


@pytest.mark.parametrize("number", [*range(1, len(POINTS) + 1)])
def test_the_page_has_the_points_of_the_matrix(number: int) -> None:
    """It was written from this matrix, not from an earlier one."""
    point = POINTS[number - 1]
    assert f"| {number} | `{point.gate}` | {point.phase.value} |" in PAGE.read_text()
