"""Something breaks in every phase of a migration between two real managers, and is mended.

Every case asks the same: did the guest ever run twice, is it on one host that knows so, does it live if its QEMU
does, does `ldm` tell the truth about it, and is nothing left on the other host? The same matrix, finer and with more
ways to break, runs on fakes in `unit/migration/test_faults.py`.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest

from ldoms.lab.links import Cut, Shape
from support import Hosts, Watch, other, wait_until

CUT_S = 3.0
SETTLE_S = 90.0
COPYING = "copying"
"""Not a gate: memory is flowing, slowly."""
POINTS = ("source-check", "target-prepare", COPYING, "source-suspend", "source-handing-off", "target-taken")
"""One in each phase, and one more in the hand-off."""


@dataclass
class Fault:
    """A migration that is held at some point, where something is about to break."""

    hosts: Hosts
    guest: str
    uuid: str
    source: str
    point: str
    command: subprocess.Popen[str]

    def complaint(self) -> str:
        """What `ldm` said, for whoever reads about a failure."""
        return self.command.stderr.read() if self.command.stderr else ""

    def go_on(self) -> None:
        """Open the gate."""
        self.hosts.open_gate(self.point)

    def kill_managers(self, *names: str) -> None:
        """Kill managers where they stand, and start them again with nobody at the gate."""
        for name in names:
            self.hosts.kill_manager(name)
        self.go_on()
        for name in names:
            self.hosts.start_manager(name)

    def kill_qemu(self, host: str) -> None:
        """Kill the domain's QEMU on a host, if it has one there."""
        process = self.hosts.qemus(self.uuid).get(host)
        if process is not None:
            process.kill()
            wait_until(lambda: has_ended(process), 10, "QEMU does not die")
        self.go_on()


def has_ended(process: psutil.Process) -> bool:
    """Whether a process runs no more, reaped or not."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


Break = Callable[[Fault], None]


def kill_source_manager(fault: Fault) -> None:
    fault.kill_managers(fault.source)


def kill_target_manager(fault: Fault) -> None:
    fault.kill_managers(other(fault.source))


def kill_both_managers(fault: Fault) -> None:
    fault.kill_managers(fault.source, other(fault.source))


def kill_source_qemu(fault: Fault) -> None:
    fault.kill_qemu(fault.source)


def kill_target_qemu(fault: Fault) -> None:
    fault.kill_qemu(other(fault.source))


def cut_link(fault: Fault) -> None:
    fault.hosts.shape(Shape(cut=Cut.ALL))
    try:
        fault.go_on()
        time.sleep(CUT_S)
    finally:
        fault.hosts.shape(Shape())


BREAKS: tuple[Break, ...] = (
    *(kill_source_manager, kill_target_manager, kill_both_managers),
    *(kill_source_qemu, kill_target_qemu, cut_link),
)


@pytest.fixture
def place(hosts: Hosts) -> Iterator[tuple[str, str]]:
    """A tiny guest and the host that it runs on; and the hosts in order again afterwards."""
    name, host = hosts.running_guest()
    try:
        yield name, host
    finally:
        for gate in hosts.gates.glob("*"):
            gate.unlink()
        hosts.shape(Shape())
        for host in hosts.lab.hosts:
            hosts.start_manager(host)
        hosts.settle(name)


def hold(hosts: Hosts, guest: str, source: str, point: str) -> Fault:
    """Begin a migration, and bring it to a point."""
    view = hosts.view(source, guest)
    assert view is not None
    if point == COPYING:
        command = hosts.start(source, *hosts.migrate_words(guest, source, "--max-bandwidth", "16M"))
        wait_until(lambda: hosts.progress(source, guest) >= 10, 30, "the copy does not begin")
    else:
        hosts.close_gate(point)
        command = hosts.start(source, *hosts.migrate_words(guest, source))
        hosts.wait_at_gate(point)
    return Fault(hosts, guest, view["domain"]["uuid"], source, point, command)


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("breaks", BREAKS, ids=lambda breaks: breaks.__name__)
def test_one_host_owns_the_guest_whatever_breaks(
    hosts: Hosts, place: tuple[str, str], breaks: Break, point: str
) -> None:
    """It never runs twice, is on one host in the end, lives if its QEMU does, and `ldm` says where it is."""
    guest, source = place
    before = hosts.ask(guest)
    fault = hold(hosts, guest, source, point)
    with Watch(hosts, fault.uuid) as watch:
        breaks(fault)
        said = fault.command.wait(SETTLE_S)
        hosts.settle(guest, SETTLE_S)
        wait_until(lambda: len(hosts.place(guest)) == 1, SETTLE_S, f"{guest} is on {hosts.place(guest)}")
    watch.check()
    (host,) = hosts.place(guest)
    assert said == (1 if host == source else 0), fault.complaint()
    hosts.check_clean(other(host))
    if breaks is kill_source_qemu and host == source:
        assert hosts.state(host, guest) == "bound", "the QEMU that was killed is not missed"
        return
    assert hosts.state(host, guest) == "active", fault.complaint()
    count, errors = hosts.ask(guest)
    assert errors == 0, "the guest's memory was damaged"
    assert count > before[0], "the guest did not go on from where it was"
