"""The guest's clock from outside: answers between looks at our own clock, and what the record says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.bench import clock
from ldoms.bench.clock import TRIES, ask_clock, best_reading, guest_clock, try_clock
from ldoms.bench.record import GuestClockRecord
from ldoms.bench.server import Server
from ldoms.model.errors import HostError
from ldoms.model.guest import GuestTime, TimeService
from ldoms.model.migration import ClockReading

SHORT = st.floats(0.0, 2.0)


def test_the_narrowest_answer_counts() -> None:
    """One that was held up says little: here the second of three is quick."""
    reading = best_reading([100.0, 107.0, 101.0, 106.05, 101.1, 107.0, 102.0])
    assert reading.offset_s == pytest.approx(5.0)
    assert reading.uncertainty_s == pytest.approx(0.05)


@given(st.floats(-1000, 1000), st.lists(st.tuples(SHORT, SHORT), min_size=1, max_size=8))
def test_the_truth_is_within_the_bound(offset: float, ways: list[tuple[float, float]]) -> None:
    """However unlike the two ways are."""
    now = 1000.0
    moments = [now]
    for there, back in ways:
        moments.append(now + there + offset)
        now += there + back
        moments.append(now)
    reading = best_reading(moments)
    assert abs(reading.offset_s - offset) <= reading.uncertainty_s + 1e-6
    assert reading.uncertainty_s == pytest.approx(min(there + back for there, back in ways) / 2, abs=1e-6)


@pytest.mark.parametrize("moments", [[], [1.0], [1.0, 2.0], [1.0, 2.0, 3.0, 4.0]])
def test_a_broken_answer_is_none(moments: Sequence[float]) -> None:
    """Rather than a wrong figure."""
    with pytest.raises(ValueError, match="do not make answers"):
        best_reading(moments)


def said(monkeypatch: pytest.MonkeyPatch, output: str) -> list[Any]:
    """Have psql say that; its words."""
    asked: list[Any] = []

    def run_psql(server: Server, words: Sequence[str], *, prefix: Sequence[str], timeout_s: float) -> str:
        asked.append((server, list(words), list(prefix)))
        return output

    monkeypatch.setattr(clock, "run_psql", run_psql)
    return asked


def test_a_server_is_asked_several_times_in_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a connection takes longer than an answer."""
    asked = said(monkeypatch, "100.0\n100.6\n101.0\n101.2\n101.2\n")
    reading = ask_clock(Server("10.77.0.10"), prefix=["in", "lab"])
    assert reading.offset_s == pytest.approx(0.1)
    ((server, words, prefix),) = asked
    assert (server.host, prefix) == ("10.77.0.10", ["in", "lab"])
    assert sum("clock_timestamp" in word for word in words) == TRIES
    assert sum("date" in word for word in words) == TRIES + 1


def test_what_is_no_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was said in it; and None where it is only tried."""
    said(monkeypatch, "sh: date: not found\n")
    with pytest.raises(HostError, match="date: not found"):
        ask_clock(Server("10.77.0.10"))
    assert try_clock(Server("10.77.0.10")) is None


@pytest.mark.parametrize(
    ("before", "after", "time", "expected"),
    [
        (None, None, None, GuestClockRecord(None, None, 0.0)),
        (ClockReading(0.1, 0.01), None, None, GuestClockRecord(0.1, None, 0.01)),
        (
            *(ClockReading(0.1, 0.01), ClockReading(-0.2, 0.03)),
            GuestTime(0.1, 0.05, TimeService("chrony", synchronised=True, source="10.77.0.201")),
            GuestClockRecord(0.1, -0.2, 0.03, synchronised=True, source="chrony 10.77.0.201"),
        ),
        (
            *(ClockReading(0.1, 0.01), ClockReading(-0.2, 0.03)),
            GuestTime(0.1, 0.05),
            GuestClockRecord(0.1, -0.2, 0.03),
        ),
        (
            *(None, ClockReading(-0.2, 0.03)),
            GuestTime(0.1, 0.05, TimeService("systemd", synchronised=False)),
            GuestClockRecord(None, -0.2, 0.03, synchronised=False, source="systemd"),
        ),
    ],
)
def test_the_record(
    before: ClockReading | None, after: ClockReading | None, time: GuestTime | None, expected: GuestClockRecord
) -> None:
    """What is not known stays unknown; the wider bound is for both."""
    assert guest_clock(before, after, time) == expected
