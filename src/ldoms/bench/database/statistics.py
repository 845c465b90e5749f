"""The statistics of the report: what AWR calls each, where PostgreSQL has it, and how it is computed.

Names are those of Oracle's AWR report and of ``V$STATNAME``; a statistic of PostgreSQL that has no counterpart there
has ``NO_NAME``. Their definitions are in docs/reference/database-report.md, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ldoms.bench.database.interval import Interval, lsn, ratio, total
from ldoms.bench.database.snapshot import Row

NO_NAME = "-"
MS = 0.001

Value = Callable[[Interval], float | None]


@dataclass(frozen=True, slots=True)
class Statistic:
    """One line of the report.

    Attributes:
        awr: its name in AWR.
        source: where it is in PostgreSQL.
        value: what it has grown by in an interval; None = it is not to be had.
    """

    awr: str
    source: str
    value: Value


def counter(awr: str, section: str, *columns: str, view: str, scale: float = 1.0) -> Statistic:
    """A statistic that is a sum of columns of one section, which `view` is the view of."""

    def value(interval: Interval) -> float | None:
        return scaled(interval.counted(section, *columns), scale)

    return Statistic(awr, f"{view}: {' + '.join(columns)}", value)


def scaled(value: float | None, scale: float) -> float | None:
    """A value in another unit."""
    return None if value is None else value * scale


def database(awr: str, *columns: str, scale: float = 1.0) -> Statistic:
    """Of ``pg_stat_database``, over all databases."""
    return counter(awr, "database", *columns, view="pg_stat_database", scale=scale)


def statements(awr: str, *columns: str, scale: float = 1.0) -> Statistic:
    """Of ``pg_stat_statements``, over all statements that clients sent."""

    def value(interval: Interval) -> float | None:
        if not interval.end.rows("statements") or interval.was_reset("statements"):
            return None
        rows = interval.grown("statements", ("dbid", "queryid", "toplevel"), columns)
        return scale * sum(sum(growth.values()) for (_, _, toplevel), growth in rows.items() if toplevel)

    return Statistic(awr, f"pg_stat_statements: {' + '.join(columns)}", value)


def where(fact: str, statistic: Statistic) -> Statistic:
    """A statistic that the server counts only if it is told to, as a fact of the snapshot says."""

    def value(interval: Interval) -> float | None:
        return statistic.value(interval) if interval.end.facts[fact] else None

    return Statistic(statistic.awr, statistic.source, value)


def wal(awr: str, *columns: str, scale: float = 1.0) -> Statistic:
    """Of ``pg_stat_wal``; since PostgreSQL 18 writes of the log are in ``pg_stat_io``."""
    return counter(awr, "wal", *columns, view="pg_stat_wal", scale=scale)


def segments(awr: str, column: str, kinds: str, view: str) -> Statistic:
    """Of the tables or indexes of the database that the report is of; `kinds` as in ``pg_class.relkind``."""

    def value(interval: Interval) -> float | None:
        return interval.counted("segments", column, where=lambda row: row["kind"] in kinds)

    return Statistic(awr, view, value)


def _block_changes(interval: Interval) -> float | None:
    return interval.changes.changes if interval.changes else None


def _blocks_changed(interval: Interval) -> float | None:
    return interval.changes.blocks if interval.changes else None


def _commits(interval: Interval) -> float | None:
    return interval.changes.commits if interval.changes else None


def blocks_written(interval: Interval) -> float | None:
    """Of data files, by anybody, those included that make a file longer."""
    size = interval.end.facts["block_size"]
    if interval.end.version >= 180000:
        return ratio(interval.counted("io", "write_bytes", "extend_bytes", where=_is_data), size)
    if interval.end.version >= 160000:
        return interval.counted("io", "writes", "extends", where=_is_data)
    return interval.counted("bgwriter", "buffers_checkpoint", "buffers_clean", "buffers_backend")


def by_backends(interval: Interval) -> float | None:
    """Of data files, by processes that had better do something else."""
    return total((blocks_written(interval), scaled(_by_checkpointer(interval), -1), scaled(_by_bgwriter(interval), -1)))


def checkpoints(interval: Interval) -> float | None:
    """Begun, for whatever reason."""
    if interval.end.version >= 170000:
        return interval.counted("checkpointer", "num_timed", "num_requested")
    return interval.counted("bgwriter", "checkpoints_timed", "checkpoints_req")


def _by_checkpointer(interval: Interval) -> float | None:
    if interval.end.version >= 170000:
        return interval.counted("checkpointer", "buffers_written")
    return interval.counted("bgwriter", "buffers_checkpoint")


def _by_bgwriter(interval: Interval) -> float | None:
    return interval.counted("bgwriter", "buffers_clean")


def _wal_io(column: str, old: str, scale: float = 1.0) -> Value:
    """Of the log: in ``pg_stat_wal`` up to PostgreSQL 17, in ``pg_stat_io`` since."""

    def value(interval: Interval) -> float | None:
        if interval.end.version >= 180000:
            return scaled(interval.counted("io", column, where=_is_log), scale)
        return scaled(interval.counted("wal", old), scale)

    return value


def _switches(interval: Interval) -> float | None:
    size = interval.end.facts["wal_segment_size"]
    begin, end = lsn(interval.begin.facts["lsn"]), lsn(interval.end.facts["lsn"])
    return float(end // size - begin // size)


def _is_data(row: Row) -> bool:
    return bool(row["object"] != "wal")


def _is_log(row: Row) -> bool:
    return bool(row["object"] == "wal" and row["context"] == "normal")


BLOCK_CHANGES = Statistic("db block changes", "pg_walinspect: block references", _block_changes)
BLOCKS_CHANGED = Statistic(NO_NAME, "pg_walinspect: different blocks", _blocks_changed)
WRITERS = "checkpointer, background writer, backends"
_LOGICAL = ("blks_hit", "blks_read")

LOAD_PROFILE = (
    database("DB Time(s)", "active_time", scale=MS),
    wal("Redo size (bytes)", "wal_bytes"),
    database("Logical read (blocks)", *_LOGICAL),
    Statistic("Block changes", BLOCK_CHANGES.source, _block_changes),
    database("Physical read (blocks)", "blks_read"),
    Statistic("Physical write (blocks)", WRITERS, blocks_written),
    where("times_plans", statements("Hard parses (SQL)", "plans")),
    database("Logons", "sessions"),
    statements("Executes (SQL)", "calls"),
    database("Rollbacks", "xact_rollback"),
    database("Transactions", "xact_commit", "xact_rollback"),
    Statistic(NO_NAME, "pg_walinspect: commits that changed something", _commits),
    Statistic(NO_NAME, "checkpoints", checkpoints),
)

TIME_MODEL = (
    database("DB time", "active_time", scale=MS),
    statements("sql execute elapsed time", "total_exec_time", scale=MS),
    where("times_plans", statements("parse time elapsed", "total_plan_time", scale=MS)),
    where("times_io", database("user I/O wait time", "blk_read_time", "blk_write_time", scale=MS)),
    where("times_wal", Statistic("redo synch time", "WAL flushed", _wal_io("fsync_time", "wal_sync_time", MS))),
    where("times_wal", Statistic("redo write time", "WAL written", _wal_io("write_time", "wal_write_time", MS))),
    database(NO_NAME, "idle_in_transaction_time", scale=MS),
    database(NO_NAME, "session_time", scale=MS),
)

ACTIVITY = (
    Statistic("background checkpoints started", "checkpoints", checkpoints),
    BLOCK_CHANGES,
    BLOCKS_CHANGED,
    statements(NO_NAME, "shared_blks_dirtied"),
    Statistic("DBWR checkpoint buffers written", "checkpointer: buffers written", _by_checkpointer),
    Statistic(NO_NAME, "background writer: buffers_clean", _by_bgwriter),
    Statistic(NO_NAME, "written by backends, also to extend files", by_backends),
    database("enqueue deadlocks", "deadlocks"),
    statements("execute count", "calls"),
    counter("free buffer requested", "bgwriter", "buffers_alloc", view="pg_stat_bgwriter"),
    segments("index fetch by key", "scans", "i", "pg_stat_all_indexes: idx_scan"),
    Statistic("log switches (derived)", "WAL segments begun", _switches),
    database("logons cumulative", "sessions"),
    where("times_plans", statements("parse count (hard)", "plans")),
    database("physical reads", "blks_read"),
    Statistic("physical writes", WRITERS, blocks_written),
    database("physical writes direct temporary tablespace (bytes)", "temp_bytes"),
    wal("redo buffer allocation retries", "wal_buffers_full"),
    wal("redo entries", "wal_records"),
    wal("redo size", "wal_bytes"),
    Statistic("redo synch writes", "WAL flushed", _wal_io("fsyncs", "wal_sync")),
    Statistic("redo writes", "WAL written", _wal_io("writes", "wal_write")),
    wal(NO_NAME, "wal_fpi"),
    database("session logical reads", *_LOGICAL),
    database("sorts (disk)", "temp_files"),
    segments("table fetch by rowid", "tuples_fetched", "rtmi", "pg_stat_all_tables: idx_tup_fetch"),
    segments("table scan rows gotten", "tuples_returned", "rtm", "pg_stat_all_tables: seq_tup_read"),
    segments("table scans (short and long tables)", "scans", "rtm", "pg_stat_all_tables: seq_scan"),
    database("user commits", "xact_commit"),
    database("user rollbacks", "xact_rollback"),
    Statistic(NO_NAME, "pg_walinspect: commits that changed something", _commits),
    database(NO_NAME, "tup_inserted"),
    database(NO_NAME, "tup_updated"),
    database(NO_NAME, "tup_deleted"),
    segments(NO_NAME, "hot_updated", "rtm", "pg_stat_all_tables: n_tup_hot_upd"),
    segments(NO_NAME, "autovacuums", "rtm", "pg_stat_all_tables: autovacuum_count"),
    counter(NO_NAME, "slru", "blks_read", view="pg_stat_slru"),
    counter(NO_NAME, "slru", "blks_written", view="pg_stat_slru"),
)


def _hit_percent(interval: Interval) -> float | None:
    hits, reads = interval.counted("database", "blks_hit"), interval.counted("database", "blks_read")
    return ratio(hits, total((hits, reads)), 100.0)


def _no_wait_percent(interval: Interval) -> float | None:
    full = ratio(interval.counted("wal", "wal_buffers_full"), interval.counted("wal", "wal_records"), 100.0)
    return None if full is None else 100.0 - full


def _execute_to_parse_percent(interval: Interval) -> float | None:
    plans = ratio(statements("", "plans").value(interval), statements("", "calls").value(interval), 100.0)
    return None if plans is None else 100.0 - plans


def _non_parse_percent(interval: Interval) -> float | None:
    plan, run = (statements("", f"total_{what}_time").value(interval) for what in ("plan", "exec"))
    return ratio(run, total((plan, run)), 100.0)


def _hot_percent(interval: Interval) -> float | None:
    return ratio(interval.counted("segments", "hot_updated"), interval.counted("segments", "updated"), 100.0)


def _commit_percent(interval: Interval) -> float | None:
    return ratio(interval.counted("database", "xact_commit"), interval.transactions, 100.0)


def _whole_pages_percent(interval: Interval) -> float | None:
    return ratio(interval.counted("wal", "wal_fpi"), interval.counted("wal", "wal_records"), 100.0)


EFFICIENCY = (
    Statistic("Buffer Hit %", "pg_stat_database: blks_hit of blks_hit + blks_read", _hit_percent),
    Statistic("Redo NoWait %", "pg_stat_wal: 100 - wal_buffers_full of wal_records", _no_wait_percent),
    where(
        "times_plans",
        Statistic("Execute to Parse %", "pg_stat_statements: 100 - plans of calls", _execute_to_parse_percent),
    ),
    where(
        "times_plans",
        Statistic("% Non-Parse", "pg_stat_statements: total_exec_time of it + total_plan_time", _non_parse_percent),
    ),
    Statistic(NO_NAME, "pg_stat_all_tables: n_tup_hot_upd of n_tup_upd", _hot_percent),
    Statistic(NO_NAME, "pg_stat_database: xact_commit of transactions", _commit_percent),
    Statistic(NO_NAME, "pg_stat_wal: records with the image of a whole page (wal_fpi)", _whole_pages_percent),
)
