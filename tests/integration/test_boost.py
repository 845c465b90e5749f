"""CPUs for the control domain while a real QEMU copies memory: lent, and given by hand."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ldoms.lab.lab import HostPlan
from support import SOURCE, TARGET, Hosts, make_hosts, wait_until

STRANDS_PER_CPU = 4


@pytest.fixture(scope="module")
def confined() -> Iterator[Hosts]:
    """A lab whose managers put threads where they belong, and a guest whose memory takes a while to copy."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs, to tell strands of one from those of another")
    with make_hosts(2, HostPlan(strands_per_cpu=STRANDS_PER_CPU, confine=True)) as hosts:
        for host in (SOURCE, TARGET):
            hosts.ldm(host, "set-vcpu", "2", "primary")
        yield hosts


@pytest.fixture
def guest(confined: Hosts) -> Iterator[str]:
    """A tiny guest on t4-1 with memory that takes a while to copy; it is removed from wherever it is."""
    name = confined.add_guest(pulse_fill=48)
    try:
        confined.boot(name)
        yield name
    finally:
        confined.settle(name)
        confined.remove_guest(name)


def helpers(hosts: Hosts, host: str, uuid: str) -> dict[str, set[int]]:
    """The CPUs on which each thread of a domain's QEMU may run that is no virtual CPU, by its name and id."""
    found: dict[str, set[int]] = {}
    process = hosts.qemus(uuid)[host]
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            name = (task / "comm").read_text().strip()
            if not name.startswith("CPU "):
                found[f"{name}/{task.name}"] = os.sched_getaffinity(int(task.name))
    return found


def are_on(hosts: Hosts, host: str, uuid: str, cpus: set[int]) -> bool:
    """Whether all of them may run just there, and have been asked while QEMU was there."""
    with contextlib.suppress(KeyError, psutil.Error):
        found = helpers(hosts, host, uuid)
        return bool(found) and all(allowed == cpus for allowed in found.values())
    return False


def uuid_of(hosts: Hosts, name: str) -> str:
    view = hosts.view(SOURCE, name)
    assert view is not None
    return str(view["domain"]["uuid"])


def primary(hosts: Hosts, host: str) -> tuple[int, int]:
    """How many virtual CPUs the control domain has, and how many strands it is lent."""
    view = hosts.view(host, "primary")
    assert view is not None
    return len(view["domain"]["bindings"]["vcpus"]), int(view["status"]["lent_strands"])


def test_lent_during_the_copy_and_returned(confined: Hosts, guest: str) -> None:
    """Also when the manager is killed in the middle: it has lent nothing when it comes back, then lends again."""
    hosts, uuid = confined, uuid_of(confined, guest)
    first, second = sorted(os.sched_getaffinity(0))[:2]
    assert are_on(hosts, SOURCE, uuid, {first})
    command = hosts.start(SOURCE, *hosts.migrate_words(guest, SOURCE, "--boost", "5", "--max-bandwidth", "4M"))
    wait_until(lambda: hosts.progress(SOURCE, guest) > 0, 60, "no copy is under way")
    for host in (SOURCE, TARGET):
        assert are_on(hosts, host, uuid, {first, second}), helpers(hosts, host, uuid)
        assert primary(hosts, host) == (2, 5)
    names = [name for name in helpers(hosts, SOURCE, uuid) if "mig" in name or "send" in name]
    assert names, "the thread that copies is among them"
    assert "boost" in hosts.ldm(SOURCE, "list", "-o", "status", "primary")
    hosts.kill_manager(SOURCE)
    hosts.start_manager(SOURCE)
    wait_until(lambda: primary(hosts, SOURCE) == (2, 5), 20, "the copy goes on without a boost")
    assert are_on(hosts, SOURCE, uuid, {first, second})
    hosts.ldm(SOURCE, "cancel-operation", "migration", guest)
    assert command.wait(30) == 1
    assert primary(hosts, SOURCE) == (2, 0)
    assert are_on(hosts, SOURCE, uuid, {first})
    boost = hosts.reports()[-1]["boost"]
    assert (boost["source_strands"], boost["target_strands"]) == (5, 5)
    assert 0 < boost["lent_at"] < boost["returned_at"]
    done = hosts.migrate(guest, SOURCE, "--boost", "6")
    assert done.returncode == 1
    assert "6 strands are to be lent to the control domain of t4-1, and 5 are free there" in done.stderr
    assert hosts.migrate(guest, SOURCE, "--boost", "auto").returncode == 0
    assert are_on(hosts, TARGET, uuid, {first})
    assert primary(hosts, TARGET) == (2, 0)


def test_by_hand_as_in_the_paper(confined: Hosts, guest: str) -> None:
    """``ldm add-vcpu 4 primary`` while memory is copied: the threads that copy may use them at once, and keep them."""
    hosts, uuid = confined, uuid_of(confined, guest)
    first, second = sorted(os.sched_getaffinity(0))[:2]
    command = hosts.start(SOURCE, *hosts.migrate_words(guest, SOURCE, "--max-bandwidth", "4M"))
    wait_until(lambda: hosts.progress(SOURCE, guest) > 0, 60, "no copy is under way")
    assert are_on(hosts, SOURCE, uuid, {first})
    hosts.ldm(SOURCE, "add-vcpu", "4", "primary")
    assert are_on(hosts, SOURCE, uuid, {first, second})
    assert primary(hosts, SOURCE) == (6, 0)
    hosts.ldm(SOURCE, "remove-vcpu", "4", "primary")
    assert are_on(hosts, SOURCE, uuid, {first})
    hosts.ldm(SOURCE, "cancel-operation", "migration", guest)
    assert command.wait(30) == 1
    assert primary(hosts, SOURCE) == (2, 0)
