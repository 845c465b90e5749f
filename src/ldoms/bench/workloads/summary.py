"""What came of a run: figures over the time that counts, by kind of transaction and by second."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev

from ldoms.bench.figures import Window, percentile
from ldoms.bench.log import LoadResult, Outcome, Transaction
from ldoms.bench.workloads.workload import KindDescription

PERCENTS = (10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)
FORMAT = 1
"""Of the results file; grows when a field changes its meaning."""
MINUTE = 60


@dataclass(frozen=True, slots=True)
class Responses:
    """Response times in milliseconds.

    Attributes:
        percentiles_ms: by nearest rank, so each is one of the times measured; keys are percents.
    """

    mean_ms: float
    min_ms: float
    max_ms: float
    deviation_ms: float
    percentiles_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class KindSummary:
    """One kind of transaction; `responses` is None if there was none."""

    short: str
    title: str
    weight: int
    transactions: int
    failed: int
    tps: float
    responses: Responses | None


@dataclass(frozen=True, slots=True)
class Second:
    """What was acknowledged within one second.

    Attributes:
        at: its begin, seconds since 1970.
        tpm: in the minute that ends with it.
    """

    at: float
    transactions: int
    tpm: int
    response_ms: float | None
    max_ms: float | None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run of a workload: what ``results.json`` has.

    Attributes:
        server: its connection string, without the password.
        settings: as they would be typed.
        run: number in the ledger; 0 = the workload has none.
        began_at, ended_at: of what is counted, seconds since 1970: after the warm-up.
        max_tpm: most transactions in any minute, or in all of it where that is shorter.
        connections_lost: clients that gave up because their connection was lost.
        clients_aborted: all that gave up.
        is_complete: the clients' log is whole.
        interrupted: it was ended before its time.
        generator_percent: of one core, what pgbench took, and what this program took beside it while it ran.
    """

    workload: str
    title: str
    server: str
    server_version: str
    settings: dict[str, str]
    scale: dict[str, int]
    run: int
    began_at: float
    ended_at: float
    users: int
    think_ms: dict[str, int]
    transactions: int
    failed: int
    tps: float
    max_tpm: int
    connections_lost: int
    clients_aborted: int
    messages: tuple[str, ...]
    is_complete: bool
    interrupted: bool
    generator_percent: dict[str, float]
    responses: Responses | None
    kinds: tuple[KindSummary, ...]
    seconds: tuple[Second, ...]
    script_kinds: tuple[str, ...] = ()
    format: int = field(default=FORMAT)


def counted_window(transactions: Sequence[Transaction], warm_up_s: float) -> Window:
    """From the end of the warm-up to the last answer; empty if nothing came after the warm-up."""
    if not transactions:
        return Window(0.0, 0.0)
    begin = min(one.at - one.latency_s for one in transactions) + warm_up_s
    return Window(begin, max(begin, max(one.at for one in transactions) + 1e-6))


def responses(transactions: Iterable[Transaction]) -> Responses | None:
    """Sum up the response times of transactions that were acknowledged; None if there are none."""
    times = sorted(one.latency_s * 1000 for one in transactions)
    if not times:
        return None
    return Responses(
        mean_ms=round(fmean(times), 3),
        min_ms=round(times[0], 3),
        max_ms=round(times[-1], 3),
        deviation_ms=round(pstdev(times), 3),
        percentiles_ms={str(percent): round(percentile(times, percent), 3) for percent in PERCENTS},
    )


def by_kind(
    transactions: Iterable[Transaction], window: Window, kinds: Iterable[KindDescription], weights: dict[str, int]
) -> tuple[KindSummary, ...]:
    """Sum up each kind within a window; kinds without a weight are left out."""
    found: dict[str, list[Transaction]] = defaultdict(list)
    failed: Counter[str] = Counter()
    for one in transactions:
        if one.at in window and one.outcome is Outcome.ACKNOWLEDGED:
            found[one.kind].append(one)
        elif one.at in window and one.outcome is Outcome.FAILED:
            failed[one.kind] += 1
    return tuple(
        KindSummary(
            short=kind.short,
            title=kind.title,
            weight=weights[kind.short],
            transactions=len(found[kind.short]),
            failed=failed[kind.short],
            tps=round(len(found[kind.short]) / window.seconds, 3) if window.seconds else 0.0,
            responses=responses(found[kind.short]),
        )
        for kind in kinds
        if weights.get(kind.short)
    )


def by_second(transactions: Iterable[Transaction], window: Window) -> tuple[Second, ...]:
    """Sum up each second of a window; a last part of a second is left out."""
    times: dict[int, list[float]] = defaultdict(list)
    for one in transactions:
        if one.at in window and one.outcome is Outcome.ACKNOWLEDGED:
            times[math.floor(one.at - window.begin)].append(one.latency_s * 1000)
    seconds: list[Second] = []
    for number in range(math.floor(window.seconds)):
        here = times[number]
        earlier = sum(len(times[other]) for other in range(max(0, number - MINUTE + 1), number + 1))
        seconds.append(
            Second(
                at=round(window.begin + number, 3),
                transactions=len(here),
                tpm=earlier,
                response_ms=round(fmean(here), 3) if here else None,
                max_ms=round(max(here), 3) if here else None,
            )
        )
    return tuple(seconds)


def busiest_minute(transactions: Sequence[Transaction]) -> int:
    """The most that were acknowledged within any 60 seconds; all of them, if they took no longer."""
    times = sorted(one.at for one in transactions)
    first = most = 0
    for number, at in enumerate(times):
        while times[first] <= at - MINUTE:
            first += 1
        most = max(most, number - first + 1)
    return most


def counted(result: LoadResult, window: Window) -> tuple[list[Transaction], int]:
    """What was acknowledged within a window, and how many failed."""
    inside = [one for one in result.transactions if one.at in window]
    acknowledged = [one for one in inside if one.outcome is Outcome.ACKNOWLEDGED]
    return acknowledged, sum(1 for one in inside if one.outcome is Outcome.FAILED)


def printed(summary: RunSummary) -> list[str]:
    """The figures for people, as lines."""
    seconds = summary.ended_at - summary.began_at
    lines = [
        f"{summary.transactions:,} transactions in {seconds:.1f} s: {summary.tps:.1f} TPS, at most {summary.max_tpm:,} "
        f"in a minute; {summary.failed} failed, {summary.connections_lost} connections lost",
        "",
        f"{'ms':<35}{'count':>9}{'TPS':>9}{'mean':>9}{'50 %':>9}{'90 %':>9}{'95 %':>9}{'99 %':>9}{'max':>9}",
    ]
    lines += [
        _row(f"{kind.short:<5}{kind.title}", kind.transactions, kind.tps, kind.responses) for kind in summary.kinds
    ]
    if len(summary.kinds) > 1:
        lines.append(_row("all", summary.transactions, summary.tps, summary.responses))
    pgbench, own = summary.generator_percent.get("pgbench", 0.0), summary.generator_percent.get("monitor", 0.0)
    lines += ["", f"Load generator: {pgbench + own:.1f} % of one core (pgbench {pgbench:.1f}, this program {own:.1f})"]
    return lines


def _row(name: str, count: int, tps: float, found: Responses | None) -> str:
    begin = f"{name:<35}{count:>9,}{tps:>9.1f}"
    if found is None:
        return begin + f"{'-':>9}" * 6
    ranks = (found.percentiles_ms[percent] for percent in ("50", "90", "95", "99"))
    return begin + "".join(f"{value:>9.1f}" for value in (found.mean_ms, *ranks, found.max_ms))
