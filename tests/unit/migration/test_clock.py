"""The offset between the clocks of two hosts, from four times; the clock of a guest, before and after its move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.hypervisor.fake_agent import FakeAgent
from ldoms.migration import clock
from ldoms.migration.clock import SET_ABOVE_S, STEP_ABOVE_S, correct_guest_clock, read_clock, read_guest_time
from ldoms.model.errors import HostError
from ldoms.model.guest import TimeService
from ldoms.model.migration import ClockReading, ClockTimes, GuestClock
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


class Talking:
    """A guest, as far as its clock goes."""

    def __init__(self, error_s: float = 0.0, keeper: TimeService | None = None) -> None:
        self.agent = FakeAgent(None)  # type: ignore[arg-type]
        self.agent.error_s, self.agent.keeper = error_s, keeper

    async def has_agent(self) -> bool:
        return self.agent.is_there


def test_a_guest_tells_its_time_and_who_keeps_it() -> None:
    """Against the host's clock, with half of the time that the question took as the bound."""
    service = TimeService("chrony", synchronised=True, source="10.77.0.201")
    seen = run(read_guest_time(Talking(0.25, service)))  # type: ignore[arg-type]
    assert seen is not None
    assert abs(seen.offset_s - 0.25) <= seen.uncertainty_s + 1e-4
    assert seen.service == service
    assert seen.is_synchronised


def test_a_guest_without_an_agent_tells_nothing() -> None:
    """Nor does one whose agent fails."""
    guest = Talking()
    guest.agent.is_there = False
    assert run(read_guest_time(guest)) is None  # type: ignore[arg-type]

    async def broken() -> float:
        raise HostError("it does not answer", code="no-agent")

    guest = Talking()
    guest.agent.clock = broken  # type: ignore[method-assign]
    assert run(read_guest_time(guest)) is None  # type: ignore[arg-type]
    assert run(correct_guest_clock(guest, keeps_time=False)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("keeps_time", "limit_s"), [(False, SET_ABOVE_S), (True, STEP_ABOVE_S)])
def test_a_clock_is_set_above_a_limit(sign: int, *, keeps_time: bool, limit_s: float) -> None:
    """A guest that corrects it by itself is given more room: databases do not like a clock that jumps."""
    for share, left in ((0.9, 0.9), (1.1, 0.0)):
        guest = Talking(sign * share * limit_s)
        seen = run(correct_guest_clock(guest, keeps_time=keeps_time))  # type: ignore[arg-type]
        assert isinstance(seen, GuestClock)
        assert seen.error_before_s == pytest.approx(sign * share * limit_s, abs=0.01)
        assert seen.error_after_s == pytest.approx(sign * left * limit_s, abs=0.01)
