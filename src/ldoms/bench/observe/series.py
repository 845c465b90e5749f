"""Figures of each second, on one axis of time: from looks, from a load's log, and from probes. All pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from ldoms.bench.figures import Window, gaps, percentile
from ldoms.bench.log import Outcome, Transaction
from ldoms.bench.observe.lines import CopyLook, HostLog, HostLook
from ldoms.bench.observe.mpstat import Shares, mean_shares, shares_by_cpu
from ldoms.bench.observe.usage import EMULATOR, MIGRATION
from ldoms.bench.probe import ProbeRecord
from ldoms.bench.record import Series
from ldoms.model.guest import GuestCpus
from ldoms.model.phases import Phase

Points = Sequence[tuple[float, float]]

GUEST_CPU, GUEST_ALL = "guest-cpu", "guest-cpu-all"
HOST_CPU = "host-cpu"
COPY, COPY_LEFT, THROTTLE = "migration", "migration-left", "migration-throttle"
SENT, CHANGED, HELD_BACK = "sent", "changed by the guest", "held back"
THROUGHPUT, LATENCY, WAITS = "throughput", "latency", "probes"
_ALL_COLUMNS = ("usr", "sys", "soft", "iowait", "steal", "idle")


def guest_series(looks: Sequence[GuestCpus]) -> list[Series]:
    """USR of each virtual CPU, and the mean over all of them by column, as mpstat has them, in percent."""
    by_cpu = shares_by_cpu(looks)
    series = [
        _series(GUEST_CPU, f"cpu{cpu} usr", "%", [(at, share.usr) for at, share in found])
        for cpu, found in sorted(by_cpu.items())
    ]
    by_moment: dict[float, list[Shares]] = {}
    for found in by_cpu.values():
        for at, share in found:
            by_moment.setdefault(at, []).append(share)
    means = [(at, mean_shares(found)) for at, found in sorted(by_moment.items())]
    if means:
        series += [
            _series(GUEST_ALL, column, "%", [(at, getattr(mean, column)) for at, mean in means])
            for column in _ALL_COLUMNS
        ]
    return series


def host_series(logs: Sequence[HostLog]) -> list[Series]:
    """CPU use of QEMU's threads on each host, and of each machine as a whole, in percent of one CPU."""
    series: list[Series] = []
    machines: set[float] = set()
    for log in logs:
        kinds = {kind for look in log.looks for kind in look.threads}
        vcpus = sorted((kind for kind in kinds if kind.startswith("vcpu")), key=lambda kind: int(kind[4:]))
        shown = [*vcpus, *(kind for kind in (MIGRATION, EMULATOR) if kind in kinds)]
        series += [_series(HOST_CPU, f"{log.host} {kind}", "%", _used(log.looks, kind)) for kind in shown]
        # Hosts of a lab share a machine: it is shown once.
        if log.looks and log.booted_at not in machines:
            machines.add(log.booted_at)
            busy = [(look.at, look.busy_s) for look in log.looks]
            series.append(_series(HOST_CPU, f"{log.host} all", "%", _rates(busy, 100.0)))
    return series


def copy_series(looks: Sequence[CopyLook]) -> list[Series]:
    """Bytes sent and changed per second, bytes left, and the share of the guest's CPU time that is held back."""
    # Later phases carry the last figures of the copy on.
    known = [(look.at, look.progress) for look in looks if look.progress is not None and look.phase == Phase.COPY]
    last: dict[int, int] = {math.floor(at): number for number, (at, _) in enumerate(known)}
    if not known:
        return []
    kept = sorted({0, *last.values()})
    seconds = [known[number] for number in kept]
    sent = [(at, float(progress.transferred_bytes)) for at, progress in seconds]
    return [
        _series(COPY, SENT, "bytes/s", _rates(sent)),
        _series(COPY, CHANGED, "bytes/s", [(at, one.dirty_bytes_s) for at, one in seconds]),
        _series(COPY_LEFT, "left to send", "bytes", [(at, float(one.remaining_bytes)) for at, one in seconds]),
        _series(THROTTLE, HELD_BACK, "%", [(at, float(one.throttle_percent)) for at, one in seconds]),
    ]


def load_series(transactions: Iterable[Transaction], window: Window) -> list[Series]:
    """Transactions per second, and their latencies; a second in which none ended has no latency."""
    by_second: dict[int, list[float]] = {}
    for one in transactions:
        if one.outcome is Outcome.ACKNOWLEDGED:
            by_second.setdefault(math.floor(one.at), []).append(one.latency_s * 1000)
    seconds = _seconds(window)
    answered = {second: sorted(by_second[second]) for second in seconds if second in by_second}
    ended = [(second + 1.0, float(len(answered.get(second, ())))) for second in seconds]
    series = [_series(THROUGHPUT, "transactions", "1/s", ended)]
    for name, percent in (("50 %", 50), ("95 %", 95), ("99 %", 99), ("max", 100)):
        points = [(second + 1.0, percentile(values, percent)) for second, values in answered.items()]
        series.append(_series(LATENCY, name, "ms", points))
    return series


def probe_series(records: Mapping[str, ProbeRecord], window: Window) -> list[Series]:
    """For each probe the longest time without an answer that ended in each second; one that spans seconds counts in all
    that it covers."""
    series = []
    for name, record in records.items():
        inside = Window(max(window.begin, record.began_at), min(window.end, record.ended_at))
        if inside.seconds <= 0:
            continue
        longest: dict[int, float] = {}
        for gap in gaps(record.answer_times, inside):
            for second in range(math.floor(gap.at), math.floor(gap.at + gap.seconds) + 1):
                longest[second] = max(longest.get(second, 0.0), gap.seconds * 1000)
        points = [(second + 1.0, longest[second]) for second in _seconds(inside) if second in longest]
        series.append(_series(WAITS, name, "ms", points))
    return series


def clipped(series: Iterable[Series], window: Window) -> tuple[Series, ...]:
    """What lies in a window, up to a second after its end; a series of which nothing does is left out."""
    found = []
    for one in series:
        points = [
            (at, value) for at, value in zip(one.times, one.values, strict=True) if window.begin <= at <= window.end + 1
        ]
        if points:
            found.append(_series(one.group, one.name, one.unit, points))
    return tuple(found)


def mean_between(series: Series, window: Window) -> float | None:
    """The mean of the values of a window, or None if there is none."""
    values = [value for at, value in zip(series.times, series.values, strict=True) if at in window]
    return sum(values) / len(values) if values else None


def _used(looks: Sequence[HostLook], kind: str) -> list[tuple[float, float]]:
    """Percent of one CPU that a kind of threads has used, from the first look at which there was one."""
    first = next(number for number, look in enumerate(looks) if kind in look.threads)
    # A thread that came later began at nothing.
    return _rates([(look.at, look.threads.get(kind, 0.0)) for look in looks[max(0, first - 1) :]], 100.0)


def _rates(totals: Points, factor: float = 1.0) -> list[tuple[float, float]]:
    """How fast totals grow, times `factor`, at the end of each stretch."""
    return [
        (at, factor * max(0.0, value - earlier) / (at - before))
        for (before, earlier), (at, value) in pairwise(totals)
        if at > before
    ]


def _seconds(window: Window) -> range:
    """The whole seconds of the clock that lie in a window."""
    return range(math.ceil(window.begin), math.floor(window.end))


def _series(group: str, name: str, unit: str, points: Points) -> Series:
    return Series(
        group, name, unit, tuple(round(at, 3) for at, _ in points), tuple(round(value, 3) for _, value in points)
    )
