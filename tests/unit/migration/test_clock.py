"""The offset between the clocks of two hosts, from four times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.migration import clock
from ldoms.migration.clock import read_clock
from ldoms.model.migration import ClockReading, ClockTimes
from unit.clock import run

SHORT = st.floats(0.0, 2.0)


def test_a_known_case() -> None:
    """The target is 10 s ahead, the way there takes 1 s and back 1 s, and it thinks for 2 s."""
    assert read_clock(100.0, 111.0, 113.0, 104.0) == ClockReading(10.0, 1.0)


@given(st.floats(-1000, 1000), SHORT, SHORT, SHORT)
def test_the_truth_is_within_the_uncertainty(offset: float, there: float, think: float, back: float) -> None:
    """However unlike the two ways are."""
    sent = 1_000.0
    received = sent + there + offset
    reading = read_clock(sent, received, received + think, sent + there + think + back)
    assert abs(reading.offset_s - offset) <= reading.uncertainty_s + 1e-6
    assert reading.uncertainty_s == pytest.approx((there + back) / 2, abs=1e-6)


def test_the_best_of_several_calls_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was held up says little."""
    now = [1000.0]
    monkeypatch.setattr(clock.time, "time", lambda: now[0])

    class Peer:
        """Its clock is 5 s ahead; each call takes a different time."""

        ways = iter([0.5, 0.3, 0.001, 0.7, 0.2, 0.9, 0.4, 0.6])

        async def clock(self, migration: str) -> ClockTimes:
            way = next(self.ways)
            now[0] += way
            times = ClockTimes(now[0] + 5.0, now[0] + 5.0)
            now[0] += way / 2
            return times

    reading = run(clock.measure_clock(Peer(), "m"))  # type: ignore[arg-type]
    assert reading.uncertainty_s == pytest.approx(0.00075, abs=1e-6)
    assert reading.offset_s == pytest.approx(5.0, abs=0.001)
