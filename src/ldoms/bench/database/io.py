"""Who read and wrote, as AWR's "IOStat by Function"."""

from __future__ import annotations

from collections.abc import Callable

from ldoms.bench.database.interval import Interval
from ldoms.bench.database.statistics import blocks_written, by_backends
from ldoms.bench.database.tables import Intervals, labels, per_second
from ldoms.bench.record import Table

MOST = 20

FUNCTIONS = {
    "checkpointer": "DBWR",
    "background writer": "DBWR",
    "walwriter": "LGWR",
    "client backend": "Buffer Cache Reads",
    "parallel worker": "Buffer Cache Reads",
    "startup": "Recovery",
    "walsender": "Data Guard",
    "walreceiver": "Data Guard",
}
"""AWR's name of what a type of process does; others are its "Others"."""

_COLUMNS = ("reads", "writes", "extends", "fsyncs", "hits")


def io_table(intervals: Intervals) -> Table:
    """Requests by each type of process; since PostgreSQL 16 the server counts them so."""
    if all(interval.end.rows("io") for interval in intervals.values()):
        return _by_process(intervals)
    return _by_writer(intervals)


def _by_process(intervals: Intervals) -> Table:
    grown = [interval.grown("io", ("backend_type", "object", "context"), _COLUMNS) for interval in intervals.values()]
    weights: dict[tuple[str, str, str], float] = {}
    for one in grown:
        for key, columns in one.items():
            weights[key] = weights.get(key, 0) + sum(
                columns[column] for column in ("reads", "writes", "extends", "fsyncs")
            )
    rows = []
    for key in sorted((key for key, value in weights.items() if value), key=lambda key: (-weights[key], key))[:MOST]:
        pairs = [(one.get(key, {}), interval) for one, interval in zip(grown, intervals.values(), strict=True)]
        rates = [per_second(columns.get(column, 0), interval) for column in _COLUMNS for columns, interval in pairs]
        rows.append((_function(*key[:2]), *key, *rates))
    columns_shown = ("AWR", "Process", "Object", "Context", *labels(intervals, *(f"{column}/s" for column in _COLUMNS)))
    note = "Of pg_stat_io: requests, of one block each up to PostgreSQL 17; hits were found in the buffers."
    return Table("IOStat by Function", columns_shown, tuple(rows), note)


def _function(process: str, kind: str) -> str:
    return "LGWR" if kind == "wal" else FUNCTIONS.get(process, "Others")


def _by_writer(intervals: Intervals) -> Table:
    lines: tuple[tuple[str, str, Callable[[Interval], float | None]], ...] = (
        ("Buffer Cache Reads", "blocks read: pg_stat_database blks_read", lambda i: i.counted("database", "blks_read")),
        ("DBWR", "blocks written: checkpointer", lambda i: i.counted("bgwriter", "buffers_checkpoint")),
        ("DBWR", "blocks written: background writer", lambda i: i.counted("bgwriter", "buffers_clean")),
        ("Others", "blocks written: backends", by_backends),
        ("-", "blocks written: all", blocks_written),
        ("LGWR", "log written: pg_stat_wal wal_write", lambda i: i.counted("wal", "wal_write")),
        ("LGWR", "log flushed to disk: pg_stat_wal wal_sync", lambda i: i.counted("wal", "wal_sync")),
        ("Direct temp", "bytes: pg_stat_database temp_bytes", lambda i: i.counted("database", "temp_bytes")),
    )
    rows = [
        (awr, source, *(per_second(value(interval), interval) for interval in intervals.values()))
        for awr, source, value in lines
    ]
    note = "Of pg_stat_bgwriter, pg_stat_wal and pg_stat_database; pg_stat_io comes with PostgreSQL 16."
    return Table("IOStat by Function", ("AWR", "PostgreSQL", *labels(intervals, "/s")), tuple(rows), note)
