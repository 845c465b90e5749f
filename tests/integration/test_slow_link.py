"""A link that is slow: memory is compressed once that is known, arrives whole, and is not lost with the target."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ldoms.lab.links import Shape
from support import SOURCE, TARGET, Hosts, wait_until

LINK = Shape(rate_bit_s=200_000_000)


@pytest.fixture
def guest(hosts: Hosts) -> Iterator[str]:
    """One that has filled memory and goes on changing some, behind that link."""
    with hosts.guest_behind(LINK, pulse_fill=32, pulse_size=8, pulse_rate=4) as name:
        yield name


def test_memory_is_compressed_on_a_slow_link(hosts: Hosts, guest: str) -> None:
    """A dry run finds it out and says so; the copy sends less than there is, and nothing of it is damaged.

    When the target's QEMU dies in the middle of such a copy, the guest runs on.
    """
    words = [*hosts.migrate_words(guest, SOURCE, "-n")]
    found = json.loads(hosts.run(SOURCE, words[0], words[1], "--json", *words[2:], check=True).stdout)
    assert plan_of(found)["compression"] == "zstd"
    assert "the link carries 2" in plan_of(found)["reasons"]["compression"]

    view = hosts.view(SOURCE, guest)
    assert view is not None
    program = hosts.start(SOURCE, *hosts.migrate_words(guest))
    wait_until(lambda: hosts.progress(SOURCE, guest) > 10, 30, "nothing is copied")
    hosts.qemus(str(view["domain"]["uuid"]))[TARGET].kill()
    _, complaint = program.communicate(timeout=60)
    assert program.returncode == 1, complaint
    hosts.settle(guest)
    assert hosts.place(guest) == [SOURCE]
    count, errors = hosts.ask(guest)
    assert errors == 0
    wait_until(lambda: hosts.ask(guest)[0] > count, 10, "the guest does not go on")

    done = hosts.migrate(guest)
    assert (done.returncode, done.stderr) == (0, "")
    assert hosts.place(guest) == [TARGET]
    count, errors = hosts.ask(guest)
    assert errors == 0, "the guest's memory was damaged"
    wait_until(lambda: hosts.ask(guest)[0] > count + 20, 20, "the guest does not go on")
    assert hosts.ask(guest)[1] == 0, "the guest's memory was damaged"
    report = hosts.reports()[-1]
    assert (report["plan"]["compression"], report["plan"]["channels"]) == ("zstd", 1)
    memory = report["forecast"]["basis"]["memory"]["nonzero_bytes"]
    assert report["transferred_bytes"] < 0.9 * memory, "32 MiB of it are random, and the rest is not"


def plan_of(found: dict[str, object]) -> dict[str, dict[str, str]]:
    """The plan in what a dry run prints."""
    plan = found["plan"]
    assert isinstance(plan, dict)
    return plan
