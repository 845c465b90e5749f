"""The offset between the clocks of two hosts."""

from __future__ import annotations

import time

from ldoms.migration.peer import Peer
from ldoms.model.migration import ClockReading

SAMPLES = 8


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
