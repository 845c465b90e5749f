"""A guest that precopy cannot move goes over by postcopy, between real hosts; and what breaks meanwhile."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ldoms.lab.links import Cut, Shape
from support import SOURCE, TARGET, Hosts, Watch, wait_until

LINK = Shape(rate_bit_s=80_000_000)
"""9.5 MiB/s; the guest changes 400, if its virtual CPU can, and enough also where it hardly can."""
SLOW = Shape(rate_bit_s=12_000_000)
"""What is missing takes some ten seconds: enough to break something meanwhile."""
LIMIT_S = 240
IN_PARTS = ("--on-stall=postcopy", "--max-suspend=300ms")


@pytest.fixture
def hot(hosts: Hosts) -> Iterator[str]:
    """A guest that changes 16 MiB over and over, behind a link that is too slow for it."""
    with hosts.guest_behind(LINK, pulse_fill=8, pulse_size=16, pulse_rate=400) as name:
        yield name
    hosts.check_clean()


def begin(hosts: Hosts, name: str) -> subprocess.Popen[str]:
    """Begin to move it; returns when it runs on the target and lacks memory, over a link that is slow by now."""
    hosts.close_gate("source-suspend")
    command = hosts.start(SOURCE, *hosts.migrate_words(name, SOURCE, *IN_PARTS))
    hosts.wait_at_gate("source-suspend")
    hosts.shape(SLOW)
    hosts.open_gate("source-suspend")
    wait_until(lambda: phase(hosts, SOURCE, name) == "postcopy", LIMIT_S, "it does not come to postcopy")
    assert hosts.state(TARGET, name) == "active"
    return command


def phase(hosts: Hosts, host: str, name: str) -> str:
    """What a host says of a domain's migration."""
    view = hosts.view(host, name)
    migration = view and view["status"]["migration"]
    return str(migration["phase"]) if migration else ""


def end(command: subprocess.Popen[str]) -> tuple[int | None, str]:
    """What the command has returned, and said."""
    _, said = command.communicate(timeout=LIMIT_S)
    return command.returncode, said


def check_whole(hosts: Hosts, name: str, before: tuple[int, int]) -> None:
    """It runs on the target, has gone on counting, and every page of its memory is what it should be."""
    assert hosts.place(name) == [TARGET]
    count, errors = hosts.ask(name)
    assert count > before[0]
    time.sleep(1.0)  # it looks at all of its memory now and then
    later, errors = hosts.ask(name)
    assert (later > count, errors) == (True, 0)


def last(hosts: Hosts) -> dict[str, Any]:
    """The report of the last migration, on the source."""
    return hosts.reports()[-1]


def test_a_guest_that_precopy_cannot_move_goes_over(hosts: Hosts, hot: str) -> None:
    """It keeps all of its memory, runs on one host at a time, and the report says how it went."""
    before = hosts.ask(hot)
    with Watch(hosts, uuid(hosts, hot)) as watch:
        moved = hosts.migrate(hot, SOURCE, *IN_PARTS)
    assert (moved.returncode, moved.stderr) == (0, "")
    watch.check()
    check_whole(hosts, hot, before)
    report = last(hosts)
    assert report["stall"]["measures"] == ["handed over before the rest"]
    assert report["stall"]["left_s"] > 0.3, "precopy moves it: the test shows nothing"
    assert report["postcopy"]["sent_bytes"] > 0
    assert report["postcopy"]["recoveries"] == 0
    listed = hosts.ldm(SOURCE, "list-history", report["id"])
    assert "postcopy     for " in listed


def uuid(hosts: Hosts, name: str) -> str:
    """Of a domain on the source."""
    view = hosts.view(SOURCE, name)
    assert view is not None
    return str(view["domain"]["uuid"])


@pytest.mark.parametrize("cut", [Cut.ALL, Cut.DATA, Cut.OUT])
def test_a_cut_link_is_mended_by_itself(hosts: Hosts, hot: str, cut: Cut) -> None:
    """For eight seconds in the middle of it: the rest comes, over a new connection if need be; the memory is whole."""
    before = hosts.ask(hot)
    with Watch(hosts, uuid(hosts, hot)) as watch:
        command = begin(hosts, hot)
        hosts.shape(Shape(SLOW.rate_bit_s, cut=cut), SOURCE)
        time.sleep(8.0)
        hosts.shape(SLOW, SOURCE)
        assert end(command) == (0, "")
    watch.check()
    check_whole(hosts, hot, before)
    report = last(hosts)["postcopy"]
    assert report["broken_s"] > 4
    # The managers may be cut off for longer than the kernel takes to find that the link is back.
    assert report["recoveries"] >= (cut is Cut.DATA)


@pytest.mark.parametrize("host", [SOURCE, TARGET])
def test_a_manager_that_is_killed_goes_on(hosts: Hosts, hot: str, host: str) -> None:
    """After its restart; QEMU has gone on meanwhile, and nothing is lost."""
    before = hosts.ask(hot)
    command = begin(hosts, hot)
    hosts.kill_manager(host)
    time.sleep(2.0)
    hosts.start_manager(host)
    assert end(command) == (0, "")
    hosts.settle(hot)
    check_whole(hosts, hot, before)
    assert last(hosts)["outcome"] == "done"


def test_both_managers_are_killed_while_the_link_is_cut(hosts: Hosts, hot: str) -> None:
    """All at once: whoever comes back finds what is to be done."""
    before = hosts.ask(hot)
    command = begin(hosts, hot)
    hosts.shape(Shape(SLOW.rate_bit_s, cut=Cut.ALL), SOURCE)
    for host in (SOURCE, TARGET):
        hosts.kill_manager(host)
    time.sleep(3.0)
    for host in (SOURCE, TARGET):
        hosts.start_manager(host)
    time.sleep(3.0)
    hosts.shape(SLOW, SOURCE)
    assert end(command) == (0, "")
    check_whole(hosts, hot, before)


@pytest.mark.parametrize("host", [SOURCE, TARGET])
def test_a_qemu_that_dies_takes_the_guest_with_it(hosts: Hosts, hot: str, host: str) -> None:
    """That is said; the domain is bound on the target, can be started there, and nothing is left on the source."""
    domain = uuid(hosts, hot)
    command = begin(hosts, hot)
    hosts.qemus(domain)[host].kill()
    status, said = end(command)
    assert status == 1
    assert "the guest has ended on t4-2 before all of its memory had come" in said
    wait_until(lambda: hosts.place(hot) == [TARGET], LIMIT_S, "something is left on the source")
    wait_until(lambda: hosts.state(TARGET, hot) == "bound", LIMIT_S, "it is not settled on the target")
    assert last(hosts)["outcome"] == "failed"
    assert last(hosts)["postcopy"]["is_lost"]
    hosts.boot(hot, TARGET)


def test_a_guest_that_shuts_down_meanwhile_is_not_lost(hosts: Hosts, hot: str) -> None:
    """Asked on the target to: the migration has succeeded, and the domain is bound there and can be started."""
    command = begin(hosts, hot)
    hosts.ldm(TARGET, "stop-domain", hot)
    assert end(command) == (0, "")
    assert (hosts.place(hot), hosts.state(TARGET, hot)) == ([TARGET], "bound")
    assert not last(hosts)["postcopy"]["is_lost"]
    hosts.boot(hot, TARGET)


def test_it_cannot_be_cancelled_any_more(hosts: Hosts, hot: str) -> None:
    """Neither host can take the guest back; both say so, and go on."""
    command = begin(hosts, hot)
    for host in (SOURCE, TARGET):
        refused = hosts.run(host, "ldm", "cancel-operation", "migration", hot)
        assert refused.returncode == 1
        assert "the rest of its memory" in refused.stderr
    refused = hosts.run(TARGET, "ldm", "set-vcpu", "1", hot)
    assert "part of its memory has still to come" in refused.stderr
    assert end(command) == (0, "")
