"""Waits, as AWR's "Top Foreground Events": what processes waited for when they were looked at."""

from __future__ import annotations

from collections.abc import Mapping

from ldoms.bench.database.interval import Interval, ratio
from ldoms.bench.database.statistics import NO_NAME
from ldoms.bench.database.tables import Intervals, labels, rounded
from ldoms.bench.record import Table

MOST = 12
MOST_IDLE = 3
IDLE = "Idle"

ORACLE_EVENTS: Mapping[tuple[str, str], str] = {
    ("Client", "ClientRead"): "SQL*Net message from client",
    ("Client", "ClientWrite"): "SQL*Net message to client",
    ("IO", "BufFileRead"): "direct path read temp",
    ("IO", "BufFileWrite"): "direct path write temp",
    ("IO", "DataFileExtend"): "Data file init write",
    ("IO", "DataFileFlush"): "db file parallel write",
    ("IO", "DataFileRead"): "db file sequential read",
    ("IO", "DataFileSync"): "db file parallel write",
    ("IO", "DataFileWrite"): "db file parallel write",
    ("IO", "WALInitSync"): "log file switch completion",
    ("IO", "WALInitWrite"): "log file switch completion",
    ("IO", "WALSync"): "log file sync",
    ("IO", "WALWrite"): "log file parallel write",
    ("IPC", "SyncRep"): "LGWR wait on SENDs",
    ("LWLock", "BufferContent"): "buffer busy waits",
    ("LWLock", "BufferIO"): "read by other session",
    ("LWLock", "BufferMapping"): "latch: cache buffers chains",
    ("LWLock", "WALBufMapping"): "log buffer space",
    ("LWLock", "WALInsert"): "latch: redo copy",
    ("LWLock", "WALWrite"): "log file sync",
    ("Lock", "advisory"): "enq: UL - contention",
    ("Lock", "extend"): "enq: HW - contention",
    ("Lock", "relation"): "enq: TM - contention",
    ("Lock", "transactionid"): "enq: TX - row lock contention",
    ("Lock", "tuple"): "enq: TX - row lock contention",
}
"""The event of Oracle's that means the same or nearly; by type and name of PostgreSQL's."""

CLASSES: Mapping[str, str] = {
    "Activity": IDLE,
    "BufferPin": "Concurrency",
    "Client": "Network",
    "Extension": "Other",
    "IO": "User I/O",
    "IPC": "Other",
    "LWLock": "Concurrency",
    "Lock": "Application",
    "Timeout": IDLE,
}
"""Oracle's wait class of a type of PostgreSQL's."""

_KEY = ("event_type", "event")


def wait_table(intervals: Intervals, note: str) -> Table:
    """The events that were waited for longest, idle ones last.

    A sample stands for the time from one look to the next, so seconds are estimates; several processes wait at once.
    """
    found = [interval.grown("waits", _KEY, ("count",)) for interval in intervals.values()]
    weights: dict[tuple[str, str], float] = {}
    for growth in found:
        for (kind, event), grown in growth.items():
            weights[kind, event] = weights.get((kind, event), 0) + grown["count"]
    ordered = sorted(weights, key=lambda key: (-weights[key], key))
    busy = [key for key in ordered if wait_class(*key) != IDLE]
    idle = [key for key in ordered if wait_class(*key) == IDLE]
    rows = []
    for key in [*busy[:MOST], *idle[:MOST_IDLE]]:
        counts = [growth.get(key, {}).get("count", 0) for growth in found]
        seconds = [count * _period_s(interval) for count, interval in zip(counts, intervals.values(), strict=True)]
        rates = [ratio(value, interval.seconds) for value, interval in zip(seconds, intervals.values(), strict=True)]
        name = ORACLE_EVENTS.get(key, NO_NAME)
        rows.append((name, ": ".join(key), wait_class(*key), *map(rounded, seconds), *map(rounded, rates)))
    names = ("AWR event", "PostgreSQL event", "Wait class", *labels(intervals, "total s", "s/s"))
    return Table("Top Events by Total Wait Time", names, tuple(rows), note)


def wait_class(kind: str, event: str) -> str:
    """Oracle's class of an event of PostgreSQL's."""
    if (kind, event) == ("Client", "ClientRead"):
        return IDLE
    if event in {"WALSync", "WALWrite"}:
        return "Commit" if event == "WALSync" or kind == "LWLock" else "System I/O"
    return CLASSES.get(kind, "Other")


def _period_s(interval: Interval) -> float:
    period_ms: float = interval.end.facts["wait_period_ms"]
    return period_ms / 1000
