"""Several migrations at once, out of a host and into it: all arrive, and what is too many waits visibly."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from ldoms.lab.lab import stop_manager
from support import SOURCE, TARGET, Hosts, Watch, interrupt, wait_until

LEAVING, COMING = 3, 1
MIB = 1 << 20
SHARED_MIB = 8
"""Of ``bandwidth``, per second."""
WINDOW_S = 4.0


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


@contextmanager
def some_guests(hosts: Hosts, places: Sequence[str]) -> Iterator[list[str]]:
    """A tiny guest on each of these hosts, that runs; none of them ever on two, and none with damaged memory."""
    names = [hosts.add_guest(host=host, pulse_fill=24) for host in places]
    try:
        for name, host in zip(names, places, strict=True):
            hosts.boot(name, host)
        before = {name: hosts.ask(name)[0] for name in names}
        with ExitStack() as stack:
            watches = [stack.enter_context(Watch(hosts, uuid_of(hosts, name))) for name in names]
            yield names
        for watch in watches:
            watch.check()
        for name in names:
            count, errors = hosts.ask(name)
            assert errors == 0, f"the memory of {name} was damaged"
            assert count > before[name], f"{name} did not go on from where it was"
    finally:
        for name in names:
            hosts.settle(name)
            hosts.remove_guest(name)


@contextmanager
def configured(hosts: Hosts, *lines: str, only: Sequence[str] = (SOURCE, TARGET)) -> Iterator[None]:
    """Hosts with these lines in the section `[migration]` of their configuration."""
    paths = {host: hosts.lab.root(host) / "etc/ldoms/ldmd.toml" for host in only}
    before = {host: path.read_text() for host, path in paths.items()}

    def write(host: str, text: str) -> None:
        stop_manager(hosts.lab, host)
        paths[host].write_text(text)
        hosts.start_manager(host)

    try:
        for host, text in before.items():
            write(host, "\n".join((text, "[migration]", *lines, "")))
        yield
    finally:
        for host, text in before.items():
            write(host, text)


def arrives(command: subprocess.Popen[str]) -> None:
    """That command ends, and has moved its domain."""
    _, complaint = command.communicate(timeout=120)
    assert command.returncode == 0, complaint


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


def test_the_manager_of_the_source_dies_while_others_wait(hosts: Hosts) -> None:
    """The copy goes on, who needs no password waits again in the old order, and who needs one is told why it ended."""
    with configured(hosts, "max_outgoing = 1", only=[SOURCE]), some_guests(hosts, [SOURCE] * 4) as names:
        first, second, third, fourth = names
        commands = {first: hosts.start(SOURCE, *hosts.migrate_words(first, SOURCE, "--max-bandwidth", "2M"))}
        wait_until(lambda: status(hosts, SOURCE, first).get("phase") == "copy", 30, "the first does not set out")
        for place, name in enumerate((second, third, fourth), start=1):
            words = ["ldm", "migrate-domain", "-c", name, TARGET]
            commands[name] = hosts.start(SOURCE, *(hosts.migrate_words(name) if name == third else words))
            wait_until(lambda known=name, at=place: place_of(hosts, known) == at, 30, f"{name} is not number {place}")
        hosts.kill_manager(SOURCE)
        hosts.start_manager(SOURCE)

        wait_until(lambda: place_of(hosts, fourth) == 2, 30, "the last does not wait any more")
        assert place_of(hosts, second) == 1
        reason = f"1 of 1 outgoing migrations are under way: {first}"
        assert status(hosts, SOURCE, second)["reason"] == reason
        assert status(hosts, SOURCE, fourth)["reason"] == reason
        assert status(hosts, SOURCE, first)["phase"] == "copy"
        assert f"number 1 in the queue: {reason}" in hosts.ldm(SOURCE, "list", "-o", "status", second)
        listed = hosts.ldm(SOURCE, "list-history", "-o", "migration")
        for name, outcome in ((first, "under-way"), (second, "queued 1"), (third, "failed"), (fourth, "queued 2")):
            assert re.search(rf"{name} .*{outcome} ", listed), listed
        _, complaint = commands[third].communicate(timeout=30)
        assert commands[third].returncode == 1
        assert "passwords are kept nowhere" in complaint
        assert hosts.place(third) == [SOURCE]
        hosts.ldm(SOURCE, "set-migration", first, "max-bandwidth=0")
        for name in (first, second, fourth):
            arrives(commands[name])
            assert hosts.place(name) == [TARGET]
        reports = {report["domain"]: report for report in hosts.reports()}
        begun = [copy_of(reports[name])["started_at"] for name in (first, second, fourth)]
        assert begun == sorted(begun)
        assert "passwords are kept nowhere" in reports[third]["cause"]
        arrives(hosts.start(SOURCE, *hosts.migrate_words(third)))


def test_two_cross_and_two_wait(hosts: Hosts) -> None:
    """One out of each host and one into each, at most: both copy at the same time, then the other two, and all arrive.

    The target of each is the source of the other, and each of them holds a place that the others may want.
    """
    places = [SOURCE, TARGET, SOURCE, TARGET]
    with configured(hosts, "max_outgoing = 1", "max_incoming = 1"), some_guests(hosts, places) as names:
        commands = []
        for name, host in zip(names, places, strict=True):
            commands.append(hosts.start(host, *hosts.migrate_words(name, host, "--max-bandwidth", "4M")))
        for host in (SOURCE, TARGET):
            wait_until(lambda at=host: len(copying(hosts, at)) == 1, 30, f"nothing is copied from {host}")
        assert [len(copying(hosts, host)) for host in (SOURCE, TARGET)] == [1, 1], "they do not cross"
        for command in commands:
            arrives(command)
        assert [hosts.place(name) for name in names] == [[TARGET], [SOURCE], [TARGET], [SOURCE]]
        waited = [report["domain"] for host in (SOURCE, TARGET) for report in queued(hosts, host, names)]
        assert len(waited) == 2


@pytest.mark.parametrize("limited", [SOURCE, TARGET])
def test_two_copies_share_the_bandwidth_of_a_host(hosts: Hosts, limited: str) -> None:
    """By QEMU's own figures, over the same time: together no more than one of them would have alone."""
    with (
        configured(hosts, f'bandwidth = "{SHARED_MIB}M"', only=[limited]),
        some_guests(hosts, [SOURCE] * 2) as names,
    ):
        commands = [hosts.start(SOURCE, *hosts.migrate_words(name)) for name in names]
        wait_until(lambda: len(copying(hosts, SOURCE)) == 2, 30, "they do not go at once")
        time.sleep(1.5)  # until both have heard of the other
        before = copying(hosts, SOURCE)
        time.sleep(WINDOW_S)
        after = copying(hosts, SOURCE)
        assert set(before) == set(after) == set(names), "the copies were over too early for a look at them"
        speeds = [
            (after[name]["transferred_bytes"] - before[name]["transferred_bytes"])
            / (after[name]["elapsed_s"] - before[name]["elapsed_s"])
            for name in names
        ]
        assert all(speed > 0 for speed in speeds), speeds
        assert sum(speeds) < 1.4 * SHARED_MIB * MIB, f"{speeds} bytes/s are more than {SHARED_MIB} MiB/s together"
        for command in commands:
            arrives(command)
        assert [hosts.place(name) for name in names] == [[TARGET]] * 2


def copying(hosts: Hosts, host: str) -> dict[str, dict[str, float]]:
    """QEMU's figures of the copies that leave a host, by domain."""
    operations = hosts.lab.client(host).get("/operations")
    return {
        one["domain"]: one["figures"]
        for one in operations
        if one["status"] == "running" and one["phase"] == "copy" and one["figures"].get("transferred_bytes")
    }


def copy_of(report: dict[str, Any]) -> dict[str, Any]:
    """When a migration copied."""
    return next(phase for phase in report["phases"] if phase["name"] == "copy")


def queued(hosts: Hosts, host: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """The reports of those that had to wait before they left a host."""
    return [report for report in hosts.reports(host) if report["domain"] in names and report["queued"]]


def place_of(hosts: Hosts, name: str) -> object:
    """In the queue of t4-1."""
    return status(hosts, SOURCE, name).get("position")


def status(hosts: Hosts, host: str, name: str) -> dict[str, object]:
    """What a host says of the migration of a domain; empty if there is none."""
    view = hosts.view(host, name)
    return dict((view and view["status"]["migration"]) or {})
