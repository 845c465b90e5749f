"""Clocks: those of the two hosts against each other, and the guest's against its host's."""

from __future__ import annotations

import asyncio
import time

from ldoms.hypervisor.engine import Guest
from ldoms.migration.peer import Peer
from ldoms.model.errors import HostError
from ldoms.model.guest import GuestTime
from ldoms.model.migration import ClockReading, GuestClock

SAMPLES = 8
GUEST_ANSWER_S = 1.0
"""So long a guest may take to tell of its clock: it is known how the move goes without that."""
SET_ABOVE_S = 0.1
"""A guest's clock that is off by more is set, unless somebody in the guest corrects it."""
STEP_ABOVE_S = 1.0
"""One that is off by more is set in any case: slewed by chrony, at most 83 ms in a second, it would take too long."""


async def measure_clock(peer: Peer, migration: str) -> ClockReading:
    """The target's clock against ours: the best of several calls, as any of them may have been held up.

    Raises:
        PeerError: the target does not answer.
    """
    readings = []
    for _ in range(SAMPLES):
        sent_at = time.time()
        times = await peer.clock(migration)
        readings.append(read_clock(sent_at, times.received_at, times.answered_at, time.time()))
    return min(readings, key=lambda reading: reading.uncertainty_s)


def read_clock(sent_at: float, received_at: float, answered_at: float, heard_at: float) -> ClockReading:
    """The target's clock against ours, from the four times of one call.

    RFC 5905 section 8: the offset is the mean of what the two ways show, and cannot be wrong by more than half of
    the time that the call spent on its way.

    Args:
        sent_at: by our clock, when we called.
        received_at: by the target's, when the call came.
        answered_at: by the target's, when its answer left.
        heard_at: by ours, when the answer came.
    """
    offset = ((received_at - sent_at) + (answered_at - heard_at)) / 2
    round_trip = (heard_at - sent_at) - (answered_at - received_at)
    return ClockReading(offset, max(0.0, round_trip) / 2)


async def read_guest_time(guest: Guest) -> GuestTime | None:
    """The clock of a guest that runs here, and who keeps it; None if it does not tell in time."""
    if not await guest.has_agent():
        return None
    try:
        async with asyncio.timeout(GUEST_ANSWER_S):
            service = await guest.agent.time_service()
            asked_at = time.time()
            shown = await guest.agent.clock()
            half = (time.time() - asked_at) / 2
            return GuestTime(shown - (asked_at + half), half, service)
    except (HostError, TimeoutError):
        return None


async def correct_guest_clock(guest: Guest, *, keeps_time: bool) -> GuestClock | None:
    """Compare the guest's clock with this host's after the move, and set it if need be; None without an agent.

    Args:
        guest: it runs here.
        keeps_time: somebody in the guest corrects it gradually: it shall not jump, unless it is far off.
    """
    try:
        before = await guest.agent.clock() - time.time()
        if abs(before) > (STEP_ABOVE_S if keeps_time else SET_ABOVE_S):
            await guest.agent.set_clock(time.time())
        return GuestClock(before, await guest.agent.clock() - time.time())
    except HostError:
        return None
