"""Statistics of intervals as tables: the same columns for one interval, or for those before, during and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ldoms.bench.database.interval import Interval, ratio
from ldoms.bench.database.statistics import Statistic
from ldoms.bench.record import Stretch, Table

Intervals = Mapping[Stretch, Interval]

_DIGITS = 6
"""That a figure is worth; the rest of it would only be long."""


def rounded(value: float | None) -> float | None:
    """To as many digits as make sense; whole numbers stay whole."""
    if value is None or isinstance(value, int):
        return value
    return int(value) if value.is_integer() else float(f"{value:.{_DIGITS}g}")


def labels(intervals: Intervals, *whats: str) -> tuple[str, ...]:
    """Names of columns: each of `whats` for each interval; one interval alone needs no name."""
    if len(intervals) == 1:
        return whats
    return tuple(f"{stretch} {what}" for what in whats for stretch in intervals)


def names(intervals: Intervals) -> tuple[str, ...]:
    """Names of columns, one for each interval."""
    return ("Value",) if len(intervals) == 1 else tuple(intervals)


def per_second(value: float | None, interval: Interval) -> float | None:
    """A growth as a rate."""
    return rounded(ratio(value, interval.seconds))


def per_transaction(value: float | None, interval: Interval) -> float | None:
    """A growth by transaction, of all databases."""
    return rounded(ratio(value, interval.transactions))


def rate_table(
    title: str, statistics: Iterable[Statistic], intervals: Intervals, note: str = "", *, totals: bool = False
) -> Table:
    """Each statistic per second and per transaction, and if wanted in total; those nowhere to be had are left out."""
    whats = (*(["total"] if totals else []), "/s", "/tx")
    columns = ("AWR", "PostgreSQL", *labels(intervals, *whats))
    rows = []
    for statistic in statistics:
        values = [(statistic.value(interval), interval) for interval in intervals.values()]
        if all(value is None for value, _ in values):
            continue
        shown = [rounded(value) for value, _ in values] if totals else []
        shown += [per_second(*pair) for pair in values] + [per_transaction(*pair) for pair in values]
        rows.append((statistic.awr, statistic.source, *shown))
    return Table(title, columns, tuple(rows), note)


def value_table(title: str, statistics: Iterable[Statistic], intervals: Intervals, unit: str, note: str = "") -> Table:
    """Each statistic as it is, such as a percentage; those nowhere to be had are left out."""
    rows = []
    for statistic in statistics:
        values = [rounded(statistic.value(interval)) for interval in intervals.values()]
        if any(value is not None for value in values):
            rows.append((statistic.awr, statistic.source, *values))
    return Table(title, ("AWR", "PostgreSQL", *labels(intervals, unit)), tuple(rows), note)
