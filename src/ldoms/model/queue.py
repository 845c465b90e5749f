"""The order of migrations that cannot all go at once, and who has to wait for what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KEEPS_UP = 0.9
"""A copy that is sent at less than this part of the speed at which the guest changes memory does not come to an end."""


@dataclass(frozen=True, slots=True)
class Queued:
    """That a migration waits for its turn, or has waited.

    Attributes:
        position: in the queue, from 1; 0 = it waits no more.
        reason: what it waits for, or has waited for at last.
        since_at: when it began to wait, in seconds since 1970 by the source's clock.
        seconds: how long it has waited; 0 = it still does.
    """

    position: int
    reason: str
    since_at: float
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """A target's answer to a source that asks whether it may send.

    Attributes:
        granted: it may.
        position: among those that wait there, from 1.
        reason: what it waits for.
    """

    granted: bool
    position: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Copying:
    """A copy that is under way, as far as it must be known to tell whether another one may begin.

    Attributes:
        dirty_bytes_s: how fast its guest changes memory; 0 = not known yet.
        bandwidth_bytes_s: how fast it is sent.
        remaining_bytes: still to be sent.
        time_left_s: of the time that was promised; 0 = none was.
    """

    name: str
    dirty_bytes_s: float = 0.0
    bandwidth_bytes_s: float = 0.0
    remaining_bytes: int = 0
    time_left_s: float = 0.0


def why_full(running: Iterable[str], limit: int, direction: str) -> str:
    """Why no other migration may begin: as many as may are under way; empty: one may."""
    names = sorted(running)
    if len(names) < limit:
        return ""
    return f"{len(names)} of {limit} {direction} migrations are under way: {', '.join(names)}"


def fair_shares(limit: int, wanted: Mapping[str, int]) -> dict[str, int]:
    """Divide a limit among those that want some of it: equally, and what one does not want goes to the others.

    Args:
        limit: to be divided; 0 = there is none, and nobody is limited.
        wanted: the most that each has a use for; 0 = as much as it gets.

    Returns:
        The share of each; 0 = not limited.
    """
    if limit == 0:
        return dict.fromkeys(wanted, 0)
    shares, left = {}, limit
    modest_first = sorted(wanted, key=lambda known: wanted[known] or limit)
    for count, known in zip(range(len(wanted), 0, -1), modest_first, strict=True):
        shares[known] = max(1, min(wanted[known] or left, left // count))
        left -= shares[known]
    return shares


def whose_promise_breaks(copies: Iterable[Copying]) -> str:
    """Why another copy would break the promise of one that is under way; empty: it would not, by all that is known.

    What is sent is taken to be shared equally between all copies.
    """
    known = [copy for copy in copies if copy.bandwidth_bytes_s > 0]
    for copy in known:
        left = copy.bandwidth_bytes_s * len(known) / (len(known) + 1)
        needed = copy.dirty_bytes_s / KEEPS_UP
        if left < needed <= copy.bandwidth_bytes_s:
            return (
                f"LDom {copy.name} changes {_mib(copy.dirty_bytes_s)} MiB/s of its memory, and beside another copy only"
                f" {_mib(left)} MiB/s would be sent: the suspension promised to it could not be kept"
            )
        if copy.time_left_s and copy.remaining_bytes / copy.bandwidth_bytes_s <= copy.time_left_s < (
            copy.remaining_bytes / left
        ):
            return f"beside another copy, LDom {copy.name} would not be over in the time promised to it"
    return ""


def _mib(size: float) -> str:
    return f"{size / (1 << 20):.1f}"
