"""What the report of a migration says about a copy that had to be helped."""

from __future__ import annotations

from dataclasses import replace

from ldoms.cli.follow import _description
from ldoms.cli.report import report_lines
from ldoms.model.codec import to_wire
from ldoms.model.migration import CopiedDisk, DiskProgress, Progress, Stall
from ldoms.model.operation import Operation
from unit.cli.office import DONE

MIB = 1 << 20


def test_a_throttle_and_its_cost() -> None:
    """For how long, by how much, what the guest could not have, and why."""
    stall = Stall(12.0, 9, 2.5, 40.0 * MIB, 11.0 * MIB, ("held back by 70 %", "held back by 85 %"))
    report = replace(DONE, active=True, throttle_percent=85, throttled_s=20.0, held_back_s=15.5, stall=stall)
    text = "\n".join(report_lines(report))
    assert "throttled    85 % at most, for 20.0 s: 15.5 s of CPU time held back from each virtual CPU" in text
    assert "stalled      after 9 passes and 12.0 s: 40.0 MiB/s changed, 11.0 MiB/s sent," in text
    assert "at best 2500ms of suspension needed; held back by 70 %, then held back by 85 %" in text


def test_whoever_watches_sees_that_a_guest_is_held_back() -> None:
    """Beside the bar, while it is."""
    operation = Operation("1", "migrate-domain", "ldg1", "root", 0.0, phase="copy", figures={"throttle_percent": 70})
    assert _description(operation) == "copy, guest held back 70 %"
    assert _description(replace(operation, figures={"throttle_percent": 0})) == "copy"
    assert _description(replace(operation, phase="", figures={})) == "migrate-domain"


def test_disks_that_were_copied() -> None:
    """Each with where it is now, and while they are copied how many bytes are done."""
    report = replace(DONE, storage=(CopiedDisk("vdisk0", "/b/ldg1.qcow2", 64 * MIB, 65 * MIB, 1.5),))
    assert "    vdisk0           1.500     64.0 MiB     65.0 MiB  /b/ldg1.qcow2" in report_lines(report)
    disks = (DiskProgress("vdisk0", 1 << 30, 4 << 30), DiskProgress("vdisk1", 1 << 29, 1 << 30))
    figures = to_wire(Progress("disks", remaining_bytes=1 << 30, disks=disks))
    operation = Operation("1", "migrate-domain", "ldg1", "root", 0.0, phase="copy", figures=figures)
    assert _description(operation) == "copy, disks 1.5/5.0 GiB"
    assert _description(replace(operation, figures=figures | {"status": "active"})) == "copy"
    assert Progress("disks", remaining_bytes=1 << 30, disks=disks).percent == 25
