"""The commands about memory, where the guest takes its time."""

from __future__ import annotations

import pytest

from ldoms.cli import domain_sections
from ldoms.cli.main import run
from ldoms.cli.text import show
from ldoms.model.codec import to_wire
from ldoms.model.domain import DomainState, DomainStatus, DomainView
from ldoms.model.operation import Operation, OperationStatus
from unit.cli.office import LDG1, STARTED, Office, office

__all__ = ["office"]

RUNNING = Operation("0a1b", "memdr", "ldg1", "root", STARTED, progress=50, may_cancel=True)


def ends(office: Office, status: OperationStatus, error: dict[str, object]) -> None:
    """The guest takes its time, and then it is over."""
    over = Operation("0a1b", "memdr", "ldg1", "root", STARTED, status, progress=100, error=error)
    office.answers["PUT", "/domains/ldg1/memory"] = to_wire(RUNNING)
    office.streams = [[to_wire(RUNNING), to_wire(over)]]


def test_success_says_nothing(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """It comes when the guest has done all; without a terminal there is no progress."""
    ends(office, OperationStatus.SUCCESS, {})
    assert run(["add-memory", "2G", "ldg1"]) == 0
    assert capsys.readouterr() == ("", "")
    assert office.sent[-1] == ("STREAM", "/operations/0a1b/events", None)
    assert office.streams == []


@pytest.mark.parametrize("status", [OperationStatus.FAILURE, OperationStatus.CANCELLED])
def test_less_than_was_asked_is_a_failure(
    office: Office, capsys: pytest.CaptureFixture[str], status: OperationStatus
) -> None:
    """The sentence has both amounts."""
    ends(office, status, {"code": "memory-partial", "message": "only 256M of the 512M"})
    assert run(["remove-memory", "512M", "ldg1"]) == 1
    assert capsys.readouterr() == ("", "only 256M of the 512M\n")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("add-memory mblock=0x80000000:1G ldg1", "mblock= is not supported on this platform"),
        ("set-memory mblock=[0x80000000:1G,0xc0000000:1G] ldg1", "mblock= is not supported on this platform"),
        ("remove-memory -g /SYS/MB/CMU0 ldg1", "-g is not supported on this platform"),
        ("remove-memory -g /SYS/MB/CMU0 -s 1G ldg1", "-g is not supported on this platform"),
        ("add-memory 256 ldg1", "256 without a unit is 256 bytes, and memory is given by the MiB: write 256M, or 256G"),
        ("set-mem 1048575 ldg1", "1048575 without a unit is 1048575 bytes"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    office: Office, capsys: pytest.CaptureFixture[str], line: str, words: str
) -> None:
    """In one line, and nothing is sent."""
    assert run(line.split()) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
    assert office.sent == []


def test_progress_is_shown_by_status() -> None:
    """In the columns of a migration, without a peer."""
    view = DomainView(LDG1.domain, DomainStatus(DomainState.ACTIVE, "-nr---", memory_progress=42))
    (section,) = domain_sections.status(view)
    assert show([section]) == ["STATUS", "    OPERATION    PROGRESS", "    memdr        42%"]
    assert list(section.records) == ["STATUS", "|op=memdr|progress=42|error=no"]
