"""The load of a measured migration, as reports and comparisons read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ldoms.bench.figures import Window, percentiles, window_figures
from ldoms.bench.log import LoadResult, Outcome, Transaction
from ldoms.bench.record import KindFigures, LoadRecord, Stretch
from ldoms.bench.workloads.workload import KindDescription, Workload


def load_record(
    workload: Workload, settings: Mapping[str, str], result: LoadResult, stretches: Mapping[Stretch, Window]
) -> LoadRecord:
    """What a load did in each stretch of a measured migration, in all and by kind.

    Args:
        settings: as they would be typed.
        stretches: each lies within the run. One that is empty has no figures.
    """
    measured = {stretch: window for stretch, window in stretches.items() if window.seconds > 0}
    return LoadRecord(
        name=workload.name,
        settings=dict(settings),
        windows={stretch: window_figures(result.transactions, window) for stretch, window in measured.items()},
        kinds={
            stretch: tuple(
                _figures(kind, result.transactions, window) for kind in workload.kinds if _runs(kind, result)
            )
            for stretch, window in measured.items()
        },
        connections_lost=len(result.report.lost_clients),
    )


def _runs(kind: KindDescription, result: LoadResult) -> bool:
    return any(one.kind == kind.short for one in result.transactions)


def _figures(kind: KindDescription, transactions: Iterable[Transaction], window: Window) -> KindFigures:
    inside = [one for one in transactions if one.kind == kind.short and one.at in window]
    times = [one.latency_s for one in inside if one.outcome is Outcome.ACKNOWLEDGED]
    ranks = percentiles(times)
    return KindFigures(
        kind=kind.short,
        title=kind.title,
        transactions=len(times),
        failed=sum(1 for one in inside if one.outcome is Outcome.FAILED),
        mean_s=sum(times) / len(times) if times else None,
        median_s=ranks.median_s if ranks else None,
        p95_s=ranks.p95_s if ranks else None,
        p99_s=ranks.p99_s if ranks else None,
        max_s=ranks.max_s if ranks else None,
    )
