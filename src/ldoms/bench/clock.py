"""The guest's clock, seen from outside: PostgreSQL in it is asked for its time, and each answer has a bound.

An answer was made between two looks at our own clock, so that it is wrong by half of what lies between them at most
(RFC 5905 section 8, with one time at the server in place of two). psql itself takes the looks, by ``date`` on our side
of the connection: whatever leads to the server, such as another network namespace, leads to it here as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from ldoms.bench.record import GuestClockRecord
from ldoms.bench.server import Server, run_psql
from ldoms.model.errors import HostError
from ldoms.model.guest import GuestTime
from ldoms.model.migration import ClockReading

TRIES = 8
_LOOK = "--command=\\echo `date +%s.%N`"
_ASK = "--command=select extract(epoch from clock_timestamp())"


def ask_clock(server: Server, *, prefix: Sequence[str] = (), timeout_s: float = 30.0) -> ClockReading:
    """What the clock of a server's machine is ahead of this machine's: the best of several answers.

    Args:
        server: its machine may be a guest, and the server under load.
        prefix: words that run psql where it reaches the server; on this machine, whose clock counts.
        timeout_s: for the connection and all answers.

    Raises:
        HostError: it does not answer.
    """
    words = ["--tuples-only", "--no-align", *[_LOOK, _ASK] * TRIES, _LOOK]
    output = run_psql(server, words, prefix=prefix, timeout_s=timeout_s)
    try:
        return best_reading([float(word) for word in output.split()])
    except ValueError as error:
        raise HostError(
            f"the time of the server cannot be read: psql says {output!r}", code="program-failed"
        ) from error


def best_reading(moments: Sequence[float]) -> ClockReading:
    """The answer with the narrowest bound.

    Args:
        moments: ours, the server's, ours, the server's, ..., ours; in seconds since 1970.

    Raises:
        ValueError: there are not so many.
    """
    if len(moments) < 3 or len(moments) % 2 == 0:
        raise ValueError(f"{len(moments)} moments do not make answers between looks")
    looks, answers = moments[::2], moments[1::2]
    readings = [
        ClockReading(answer - (before + after) / 2, (after - before) / 2)
        for before, answer, after in zip(looks, answers, looks[1:], strict=False)
    ]
    return min(readings, key=lambda reading: reading.uncertainty_s)


def try_clock(server: Server, *, prefix: Sequence[str] = ()) -> ClockReading | None:
    """As `ask_clock`; None in place of an error, for a guest that need not have a server to be measured."""
    try:
        return ask_clock(server, prefix=prefix)
    except HostError:
        return None


def guest_clock(
    before: ClockReading | None, after: ClockReading | None, guest_time: GuestTime | None
) -> GuestClockRecord:
    """The record of a guest's clock.

    Args:
        before, after: the move, as `try_clock` has them.
        guest_time: what the guest said in the check before the move: `MigrationReport.guest_time`.
    """
    known = [reading for reading in (before, after) if reading is not None]
    service = guest_time.service if guest_time else None
    return GuestClockRecord(
        before_s=before.offset_s if before else None,
        after_s=after.offset_s if after else None,
        uncertainty_s=max((reading.uncertainty_s for reading in known), default=0.0),
        synchronised=service.synchronised if service else None,
        source=" ".join(word for word in (service.program, service.source) if word) if service else "",
    )
