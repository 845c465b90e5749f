"""Shares of a virtual CPU's time as ``mpstat`` shows them, from the counters that it reads, too.

The formulas are those of sysstat's mpstat (``write_stats_core``): USR and NICE without guests of the guest, and all in
percent of what the counters have grown by together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

from ldoms.model.guest import CpuTimes, GuestCpus


@dataclass(frozen=True, slots=True)
class Shares:
    """A virtual CPU between two looks, in percent; the names are the columns of mpstat."""

    usr: float
    nice: float
    sys: float
    iowait: float
    irq: float
    soft: float
    steal: float
    guest: float
    gnice: float
    idle: float


COLUMNS = tuple(field.name for field in fields(Shares))


def shares(before: CpuTimes, after: CpuTimes) -> Shares | None:
    """What a virtual CPU did between two looks; None if its counters have not grown: it was not run at all."""

    def grown(name: str) -> float:
        # Idle and iowait can go back by a tick (Documentation/filesystems/proc.rst).
        return max(0.0, float(getattr(after, name)) - float(getattr(before, name)))

    guest, gnice = grown("guest_s"), grown("guest_nice_s")
    parts = {
        "usr": max(0.0, grown("user_s") - guest),
        "nice": max(0.0, grown("nice_s") - gnice),
        "sys": grown("system_s"),
        "iowait": grown("iowait_s"),
        "irq": grown("irq_s"),
        "soft": grown("softirq_s"),
        "steal": grown("steal_s"),
        "guest": guest,
        "gnice": gnice,
        "idle": grown("idle_s"),
    }
    total = sum(parts.values())
    return Shares(**{name: 100 * value / total for name, value in parts.items()}) if total > 0 else None


def shares_by_cpu(looks: Sequence[GuestCpus]) -> dict[int, list[tuple[float, Shares]]]:
    """For each virtual CPU its shares, with the moments at which they end.

    The counters are the guest's own and move with it: looks from both hosts make one line. A CPU that was offline, or
    counters that are smaller than before (the guest has booted), begin a new one.
    """
    found: dict[int, list[tuple[float, Shares]]] = {}
    for before, after in pairwise(sorted(looks, key=lambda look: look.at)):
        known = {cpu.cpu: cpu for cpu in before.cpus}
        for cpu in after.cpus:
            earlier = known.get(cpu.cpu)
            if earlier is None or earlier.user_s > cpu.user_s:
                continue
            if (share := shares(earlier, cpu)) is not None:
                found.setdefault(cpu.cpu, []).append((after.at, share))
    return found


def mean_shares(of: Sequence[Shares]) -> Shares:
    """The mean over virtual CPUs, as mpstat's line ``all`` where they were all looked at together."""
    return Shares(**{name: sum(getattr(one, name) for one in of) / len(of) for name in COLUMNS})
