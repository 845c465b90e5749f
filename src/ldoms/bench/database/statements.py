"""Top statements, as AWR's "SQL ordered by ..."."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ldoms.bench.database.interval import ratio
from ldoms.bench.database.statistics import MS
from ldoms.bench.database.tables import Intervals, labels, per_second, rounded
from ldoms.bench.record import Table

HIDDEN = 0
"""The ``queryid`` that stands for all statements that the role may not see."""

MOST = 10
"""Statements in each table."""

StatementKey = tuple[int, int, bool]
"""Database, ``queryid``, and whether a client sent it (not a function)."""

_KEY = ("dbid", "queryid", "toplevel")


@dataclass(frozen=True, slots=True)
class Ordering:
    """One table of statements: what they are ordered by, and how that is shown.

    Attributes:
        unit: per second.
        each: the unit of one execution; empty = it is not shown.
        scale: from the columns to `unit`.
    """

    title: str
    columns: tuple[str, ...]
    unit: str
    each: str
    scale: float = 1.0


ORDERINGS = (
    Ordering("SQL ordered by Elapsed Time", ("total_exec_time",), "s", "ms", MS),
    Ordering("SQL ordered by Gets", ("shared_blks_hit", "shared_blks_read"), "blocks", "blocks"),
    Ordering("SQL ordered by Reads", ("shared_blks_read",), "blocks", "blocks"),
    Ordering("SQL ordered by Redo", ("wal_bytes",), "bytes", "bytes"),
    Ordering("SQL ordered by Executions", ("calls",), "exec", ""),
)

_COLUMNS = tuple({column: None for ordering in ORDERINGS for column in ordering.columns})

Growth = Mapping[StatementKey, Mapping[str, float]]


def growths(intervals: Intervals) -> list[Growth]:
    """By how much each statement has grown, in each interval."""
    return [interval.grown("statements", _KEY, _COLUMNS) for interval in intervals.values()]


def top_statements(found: list[Growth], ordering: Ordering, most: int = MOST) -> list[StatementKey]:
    """Those that count most over all intervals together, greatest first."""
    weights: dict[StatementKey, float] = {}
    for growth in found:
        for key, columns in growth.items():
            weights[key] = weights.get(key, 0) + sum(columns[column] for column in ordering.columns)
    return sorted((key for key, weight in weights.items() if weight), key=lambda key: (-weights[key], key))[:most]


def all_top(found: list[Growth]) -> set[StatementKey]:
    """Every statement that stands in any table: those whose text is wanted."""
    return {key for ordering in ORDERINGS for key in top_statements(found, ordering)}


def statement_tables(
    intervals: Intervals, found: list[Growth], texts: Mapping[StatementKey, str], note: str
) -> list[Table]:
    """A table for each ordering; `texts` are the statements in words, in one line each."""
    if any(found):
        # What is true of all of them need not be said five times.
        return [
            _table(ordering, intervals, found, texts, "" if index else note) for index, ordering in enumerate(ORDERINGS)
        ]
    return [_table(ordering, intervals, found, texts, note) for ordering in ORDERINGS]


def sql_id(key: StatementKey) -> str:
    """How a statement is named: its ``queryid``, as it stands in ``pg_stat_statements``."""
    return str(key[1])


def _table(
    ordering: Ordering, intervals: Intervals, found: list[Growth], texts: Mapping[StatementKey, str], note: str
) -> Table:
    whats = [f"{ordering.unit}/s", "%Total", *([f"{ordering.each}/exec", "exec/s"] if ordering.each else [])]
    rows = [
        (sql_id(key), *_figures(key, ordering, intervals, found), _text(key, texts))
        for key in top_statements(found, ordering)
    ]
    return Table(ordering.title, ("SQL Id", *labels(intervals, *whats), "SQL Text"), tuple(rows), note)


def _text(key: StatementKey, texts: Mapping[StatementKey, str]) -> str:
    return texts.get(key, "(what the role may not see)" if key[1] == HIDDEN else "")


def _figures(
    key: StatementKey, ordering: Ordering, intervals: Intervals, found: list[Growth]
) -> Iterator[float | None]:
    growths = [growth.get(key, {}) for growth in found]
    values = [sum(growth.get(column, 0) for column in ordering.columns) for growth in growths]
    calls = [growth.get("calls", 0) for growth in growths]
    for value, interval in zip(values, intervals.values(), strict=True):
        yield per_second(value * ordering.scale, interval)
    for value, growth in zip(values, found, strict=True):
        yield rounded(ratio(value, _total(growth, ordering), 100))
    if ordering.each:
        for value, executed in zip(values, calls, strict=True):
            yield rounded(ratio(value, executed))
        for executed, interval in zip(calls, intervals.values(), strict=True):
            yield per_second(executed, interval)


def _total(growth: Growth, ordering: Ordering) -> float:
    """Of what clients sent: what functions do is part of it."""
    return sum(columns[column] for (_, _, top), columns in growth.items() if top for column in ordering.columns)
