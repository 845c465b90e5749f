"""A guest that changes its memory faster than the link carries it: it stays and runs, or is held back and moves."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ldoms.lab.links import Shape
from support import SOURCE, TARGET, Hosts

LINK = Shape(rate_bit_s=800_000_000)
"""95 MiB/s; the guest changes 400, if its virtual CPU can."""
PROMISE_S, ALLOWED_S = 0.3, 0.11
"""Of the hosts' own figure; an outside view may be a fifth and 50 ms longer."""


@pytest.fixture
def hot(hosts: Hosts) -> Iterator[str]:
    """A guest that changes 32 MiB over and over, behind a link that is too slow for it."""
    name = hosts.add_guest(pulse_fill=8, pulse_size=32, pulse_rate=400)
    try:
        hosts.boot(name)
        hosts.shape(LINK)
        yield name
    finally:
        hosts.shape(Shape())
        hosts.settle(name)
        hosts.remove_guest(name)


def test_a_promise_is_kept_or_the_guest_stays(hosts: Hosts, hot: str) -> None:
    """First refused with a status of its own, while the guest runs on; then, held back, it moves within the promise."""
    before = hosts.ask(hot)
    refused = hosts.migrate(hot, SOURCE, "--on-stall=abort")
    assert refused.returncode == 3, refused.stderr
    reason, last = refused.stderr.splitlines()
    assert last == f"Domain Migration of LDom {hot} failed"
    assert "the copy does not come to an end with a suspension of at most 300ms" in reason
    assert "what would do: --max-suspend " in reason
    assert "--on-stall=throttle" in reason
    assert hosts.place(hot) == [SOURCE]
    count, errors = hosts.ask(hot)
    assert (count > before[0], errors) == (True, 0)
    time.sleep(0.5)
    assert hosts.ask(hot)[0] > count, "the guest does not run on"

    moved = hosts.migrate(hot, SOURCE)
    assert (moved.returncode, moved.stderr) == (0, "")
    assert hosts.place(hot) == [TARGET]
    assert hosts.ask(hot)[1] == 0, "the guest's memory was damaged"
    report = hosts.reports()[-1]
    assert report["stop_resume_s"] <= PROMISE_S + ALLOWED_S
    assert report["stall"]["measures"][-1].startswith("held back by ")
    assert report["throttle_percent"] >= 50
    assert 0 < report["held_back_s"] < report["throttled_s"]
    listed = hosts.ldm(SOURCE, "list-history", report["id"])
    assert f"throttled    {report['throttle_percent']} % at most, for " in listed
