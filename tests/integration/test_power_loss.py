"""A host loses power: what comes back, in which order, and what does not come back because another host has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ldoms.lab import lab as labs
from support import SOURCE, TARGET, Hosts, wait_until


def started(hosts: Hosts, host: str, after: int) -> list[str]:
    """The domains that a host has started since an event, in order."""
    events = hosts.lab.client(host).get("/events", after=after)
    return [event["domain"] for event in events if event["kind"] == "domain-started"]


def latest(hosts: Hosts, host: str) -> int:
    return int(hosts.lab.client(host).get("/events")[-1]["sequence"])


@pytest.fixture
def guests(hosts: Hosts) -> Iterator[tuple[str, str]]:
    """Two tiny domains on t4-1 that start by themselves; the first one depends on the second."""
    slave, master = hosts.add_guest(), hosts.add_guest()
    hosts.ldm(SOURCE, "set-domain", f"master={master}", slave)
    for name in (slave, master):
        hosts.ldm(SOURCE, "set-variable", "auto-boot?=true", name)
    yield slave, master
    for name in (slave, master):
        hosts.remove_guest(name)
    for host in (SOURCE, TARGET):
        for name in hosts.ldm(host, "list-spconfig").splitlines():
            if not name.startswith("factory-default"):
                hosts.ldm(host, "remove-spconfig", name.split()[0])


def test_a_host_that_loses_power_comes_back(hosts: Hosts, guests: tuple[str, str]) -> None:
    """Saved, changed, cut off in the middle of its work: the saved configuration runs again, masters first."""
    slave, master = guests
    hosts.ldm(SOURCE, "add-spconfig", "initial")
    hosts.boot(master)
    hosts.ldm(SOURCE, "add-domain", "unsaved")
    mark = latest(hosts, SOURCE)
    labs.power_off(hosts.lab, SOURCE)
    labs.power_on(hosts.lab, SOURCE)
    for name in (master, slave):
        wait_until(lambda name=name: hosts.answers(name), 60, f"{name} does not come back")  # type: ignore[misc]
    assert started(hosts, SOURCE, mark) == [master, slave]
    assert hosts.view(SOURCE, "unsaved") is None
    assert "initial [newer]" in hosts.ldm(SOURCE, "list-spconfig", "-r")
    # A restart of the manager is no power-on: nothing starts, nothing changes.
    hosts.ldm(SOURCE, "stop-domain", "-f", slave)
    hosts.kill_manager(SOURCE)
    hosts.start_manager(SOURCE)
    assert (hosts.state(SOURCE, slave), hosts.state(SOURCE, master)) == ("bound", "active")


def test_a_moved_domain_stays_where_it_is(hosts: Hosts, guests: tuple[str, str]) -> None:
    """It is in what both hosts have saved, or in neither: after power losses of both it runs once, on the target."""
    slave, master = guests
    hosts.ldm(SOURCE, "set-domain", "master=", slave)
    hosts.ldm(SOURCE, "unbind-domain", master)
    hosts.ldm(SOURCE, "add-spconfig", "old")
    hosts.ldm(TARGET, "add-spconfig", "empty")
    hosts.boot(slave)
    moved = hosts.migrate(slave)
    assert moved.returncode == 0, moved.stderr
    hosts.settle(slave)
    for host in (SOURCE, TARGET):
        labs.power_off(hosts.lab, host)
        labs.power_on(hosts.lab, host)
    wait_until(lambda: hosts.answers(slave), 60, "the moved domain does not come back where it was")
    assert hosts.place(slave) == [TARGET]
    view = hosts.view(TARGET, slave)
    assert view is not None
    assert list(hosts.qemus(view["domain"]["uuid"])) == [TARGET]
    back = hosts.migrate(slave, TARGET, "-s")
    assert back.returncode == 0, back.stderr
    for host in (SOURCE, TARGET):
        wait_until(
            lambda host=host: "@post-migration [current]" in hosts.ldm(host, "list-spconfig"),  # type: ignore[misc]
            10,
            f"{host} has not saved its configuration",
        )


def test_a_description_makes_the_guest_again(hosts: Hosts, tmp_path: Path) -> None:
    """Written, the domain removed, and made, bound and started from the file: its guest answers at its old address."""
    name, file = hosts.add_guest(), tmp_path / "domain.xml"
    before = hosts.view(SOURCE, name)
    file.write_text(hosts.ldm(SOURCE, "list-constraints", "-x", name))
    hosts.ldm(SOURCE, "unbind-domain", name)
    hosts.ldm(SOURCE, "remove-domain", name)
    assert hosts.ldm(SOURCE, "start-domain", "-i", str(file)) == f"LDom {name} started\n"
    wait_until(lambda: hosts.answers(name), 60, f"{name} does not answer")
    after = hosts.view(SOURCE, name)
    assert before is not None
    assert after is not None
    for field in ("uuid", "mac", "hostid", "constraints", "variables", "disks", "networks", "console"):
        assert after["domain"][field] == before["domain"][field]
    hosts.remove_guest(name)
