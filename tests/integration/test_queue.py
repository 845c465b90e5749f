"""Several migrations at once, out of a host and into it: all arrive, and what is too many waits visibly."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support import SOURCE, TARGET, Hosts, Watch, interrupt, wait_until

LEAVING, COMING = 3, 1


@pytest.fixture
def guests(hosts: Hosts) -> Iterator[list[str]]:
    """Four tiny guests: three on t4-1, then one on t4-2."""
    names = [hosts.add_guest(host=host, pulse_fill=24) for host in (SOURCE,) * LEAVING + (TARGET,) * COMING]
    try:
        for number, name in enumerate(names):
            hosts.boot(name, SOURCE if number < LEAVING else TARGET)
        yield names
    finally:
        for name in names:
            hosts.settle(name)
            hosts.remove_guest(name)


def uuid_of(hosts: Hosts, name: str) -> str:
    (host,) = hosts.place(name)
    view = hosts.view(host, name)
    assert view is not None
    return str(view["domain"]["uuid"])


def test_three_out_and_one_in(hosts: Hosts, guests: list[str]) -> None:
    """Two leave at once and one comes; the third waits, says for what, can be called off, and goes when one is over."""
    *leaving, coming = guests
    before = {name: hosts.ask(name) for name in guests}
    watches = [Watch(hosts, uuid_of(hosts, name)) for name in guests]
    for watch in watches:
        watch.__enter__()
    try:
        commands = []
        for name in (*leaving, coming):
            source = TARGET if name == coming else SOURCE
            words = hosts.migrate_words(name, source, "--max-bandwidth", "5M")
            commands.append(hosts.start(source, *words))
            wait_until(lambda known=name, host=source: bool(status(hosts, host, known)), 30, f"{name} does not set out")
        third = leaving[-1]
        wait_until(lambda: status(hosts, SOURCE, third).get("position") == 1, 20, "the third does not wait")
        reason = f"2 of 2 outgoing migrations are under way: {', '.join(sorted(leaving[:2]))}"
        assert status(hosts, SOURCE, third)["reason"] == reason
        assert f"number 1 in the queue: {reason}" in hosts.ldm(SOURCE, "list", "-o", "status", third)
        listed = hosts.ldm(SOURCE, "list-history", "-o", "migration").splitlines()
        assert re.search(rf"{third} .*queued 1 ", "\n".join(listed)), listed
        interrupt(commands[LEAVING - 1])
        _, complaint = commands[LEAVING - 1].communicate(timeout=30)
        assert "was cancelled" in complaint
        assert hosts.place(third) == [SOURCE]
        assert status(hosts, SOURCE, leaving[0]), "the others go on"
        commands[LEAVING - 1] = hosts.start(SOURCE, *hosts.migrate_words(third, SOURCE))
        for command in commands:
            _, complaint = command.communicate(timeout=90)
            assert command.returncode == 0, complaint
    finally:
        for watch in watches:
            watch.__exit__(None, None, None)
    for watch in watches:
        watch.check()
    assert [hosts.place(name) for name in guests] == [[TARGET]] * LEAVING + [[SOURCE]] * COMING
    for name in guests:
        count, errors = hosts.ask(name)
        assert errors == 0
        assert count > before[name][0], f"{name} did not go on from where it was"
    reports = {report["domain"]: report for report in hosts.reports()}
    assert reports[third]["queued"]["seconds"] > 0
    assert all(reports[name]["queued"] is None for name in leaving[:2])


def status(hosts: Hosts, host: str, name: str) -> dict[str, object]:
    """What a host says of the migration of a domain; empty if there is none."""
    view = hosts.view(host, name)
    return dict((view and view["status"]["migration"]) or {})
