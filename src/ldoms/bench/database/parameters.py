"""Parameters that are not the default, as AWR's "init.ora Parameters"."""

from __future__ import annotations

from collections.abc import Mapping

from ldoms.bench.database.statistics import NO_NAME
from ldoms.bench.database.tables import Intervals
from ldoms.bench.record import Table

ORACLE_PARAMETERS: Mapping[str, str] = {
    "checkpoint_timeout": "log_checkpoint_timeout",
    "data_checksums": "db_block_checksum",
    "log_destination": "diagnostic_dest",
    "max_connections": "sessions",
    "max_prepared_transactions": "distributed_transactions",
    "max_wal_size": "log_checkpoint_interval",
    "max_worker_processes": "parallel_max_servers",
    "max_parallel_workers": "parallel_max_servers",
    "shared_buffers": "db_cache_size",
    "synchronous_commit": "commit_wait",
    "track_io_timing": "timed_statistics",
    "wal_buffers": "log_buffer",
    "work_mem": "sort_area_size",
    "maintenance_work_mem": "sort_area_size",
}
"""Oracle's parameter that decides the same or nearly."""


def parameter_table(intervals: Intervals) -> Table:
    """Those that were set, and some that decide how fast a server writes; with both values where one has changed."""
    first, last = next(iter(intervals.values())).begin, list(intervals.values())[-1].end
    begin = {row["name"]: row["value"] for row in first.rows("settings")}
    end = {row["name"]: row["value"] for row in last.rows("settings")}
    rows = []
    for name in sorted(begin | end):
        changed = begin.get(name) != end.get(name)
        rows.append(
            (ORACLE_PARAMETERS.get(name, NO_NAME), name, begin.get(name, ""), end.get(name, "") if changed else "")
        )
    note = "Of pg_settings; the end value stands there if it differs."
    return Table("init.ora Parameters", ("AWR", "Parameter Name", "Begin value", "End value"), tuple(rows), note)
