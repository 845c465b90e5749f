"""What is said when a promise cannot be kept: what was tried, what was measured, and what would make it fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ldoms.model.migration import OnStall

THROTTLE_AIM = 0.5
"""A guest that is held back should change memory at this share of the speed at which it is sent."""
ROUND_S = 0.05
"""Suspensions that are recommended are rounded up to this."""


@dataclass(frozen=True, slots=True)
class Unkept:
    """A promise that was not kept, in figures. They go into the details of the error.

    Attributes:
        max_suspend_s, max_time_s: what was promised; 0 = any time.
        most_limit_s: what QEMU was allowed of `max_suspend_s`.
        is_late: it is the time that does not do.
        on_stall: what was allowed against a stall.
        passes: over memory that have ended.
        seconds: that the copy has taken.
        left_s: the shortest suspension that would have done, of all passes; None = no pass has ended.
        left_bytes: what had to be sent in it.
        dirty_bytes_s: how fast the guest changed memory last.
        bandwidth_bytes_s: how fast it was sent last.
        throttle_percent: that the guest was held back by last.
        throttle_most_percent: that it may be held back by.
    """

    max_suspend_s: float
    most_limit_s: float
    max_time_s: float
    is_late: bool
    on_stall: OnStall
    passes: int
    seconds: float
    left_s: float | None
    left_bytes: int
    dirty_bytes_s: float
    bandwidth_bytes_s: float
    throttle_percent: int
    throttle_most_percent: int


def sentence(unkept: Unkept) -> str:
    """All of it, for whoever has to decide what to do next."""
    within = f" within {seconds(unkept.max_time_s)}" if unkept.is_late else ""
    return (
        f"the copy does not come to an end{within} with a suspension of at most {milliseconds(unkept.max_suspend_s)}:"
        f" {_measured(unkept)}; {_tried(unkept)}; what would do: {', or '.join(remedies(unkept))}"
    )


def remedies(unkept: Unkept) -> list[str]:
    """What would make it fit, each in words; there is always one."""
    found = []
    if unkept.left_s is not None and unkept.left_s > unkept.most_limit_s:
        reserve_s = unkept.max_suspend_s - unkept.most_limit_s
        found.append(f"--max-suspend {milliseconds(_rounded_up(unkept.left_s * 1.1 + reserve_s))}")
        if unkept.left_bytes and unkept.most_limit_s > 0:
            found.append(f"a bandwidth of {rate(unkept.left_bytes / unkept.most_limit_s)}")
    if unkept.is_late:
        found.append(f"a --max-time of more than {seconds(unkept.max_time_s)}")
    if unkept.on_stall is OnStall.ABORT and unkept.passes:
        share = 1 - THROTTLE_AIM * unkept.bandwidth_bytes_s / unkept.dirty_bytes_s if unkept.dirty_bytes_s else 0.0
        by = f", by {share * 100:.0f} % or more" if share > 0 else ""
        found.append(f"--on-stall=throttle, which holds the guest back{by}")
    if unkept.on_stall is not OnStall.SUSPEND:
        stands = f", for about {seconds(unkept.left_s)}" if unkept.left_s else ""
        found.append(f"--on-stall=suspend, which suspends the guest for as long as the rest takes{stands}")
    if unkept.on_stall is not OnStall.POSTCOPY:
        found.append(
            "--on-stall=postcopy, which lets it run on the target before all of its memory is there, and loses it if a"
            " host fails meanwhile"
        )
    return [*found, "a time when the guest does less"]


def _measured(unkept: Unkept) -> str:
    if unkept.left_s is None:
        return f"the first pass over its memory is not over after {seconds(unkept.seconds)}, {_speed(unkept)}"
    return (
        f"in {unkept.passes} passes and {seconds(unkept.seconds)} {_speed(unkept)}, the guest changed"
        f" {rate(unkept.dirty_bytes_s)}, and would have had to be suspended for {milliseconds(unkept.left_s)}"
    )


def _speed(unkept: Unkept) -> str:
    return f"{rate(unkept.bandwidth_bytes_s)} were sent" if unkept.bandwidth_bytes_s else "its speed is not known"


def _tried(unkept: Unkept) -> str:
    tried = [f"tried: {milliseconds(unkept.most_limit_s)} for QEMU's last part"]
    if unkept.throttle_percent:
        tried.append(f"{unkept.throttle_percent} % of the guest's CPU time held back")
    return " and ".join(tried)


def milliseconds(value: float) -> str:
    """A length of time as ``--max-suspend`` takes it."""
    return f"{value * 1000:.0f}ms" if value < 10 else f"{value:.0f}s"


def seconds(value: float) -> str:
    """A length of time as it is read."""
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def rate(bytes_s: float) -> str:
    """A speed in MiB/s."""
    return f"{bytes_s / (1 << 20):.1f} MiB/s"


def _rounded_up(value: float) -> float:
    return math.ceil(value / ROUND_S) * ROUND_S
