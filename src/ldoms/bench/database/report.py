"""The report: tables in the order in which a DBA expects them, of one interval or of three."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from ldoms.bench.database import host
from ldoms.bench.database.dirty import dirty_rate_table, measured_rates
from ldoms.bench.database.interval import Interval, check_pair, ratio
from ldoms.bench.database.io import io_table
from ldoms.bench.database.parameters import parameter_table
from ldoms.bench.database.segments import segment_tables
from ldoms.bench.database.snapshot import Snapshot
from ldoms.bench.database.statements import Growth, StatementKey, all_top, growths, statement_tables
from ldoms.bench.database.statistics import ACTIVITY, EFFICIENCY, LOAD_PROFILE, MS, TIME_MODEL
from ldoms.bench.database.tables import Intervals, names, per_second, rate_table, rounded, value_table
from ldoms.bench.database.waits import wait_table
from ldoms.bench.database.wal import WalChanges, read_wal
from ldoms.bench.record import DatabaseReport, Series, Stretch, Table
from ldoms.bench.server import Server, query
from ldoms.model.errors import HostError
from ldoms.model.migration import MigrationReport

Snapshots = Mapping[Stretch, tuple[Snapshot, Snapshot]]

_SECRETS = re.compile(r"((?:\bpassword|\bconnection)\s+)e?'(?:[^']|'')*(?:'|$)", re.IGNORECASE)
_TARGET = "The target of those that AWR has is 100."

TEXT_LENGTH = 200
"""Of a statement, in characters; the rest is cut off."""

_TEXTS = r"""
set search_path = pg_catalog, pg_temp;
select dbid, queryid, toplevel::int, left(regexp_replace(trim(max(query)), '\s+', ' ', 'g'), {length})
from {schema}.pg_stat_statements where queryid in ({ids}) group by 1, 2, 3
"""


def database_report(
    server: Server,
    snapshots: Snapshots,
    *,
    prefix: Sequence[str] = (),
    migration: MigrationReport | None = None,
    dirty_rate: Series | None = None,
) -> DatabaseReport:
    """Compare snapshots of a server, and ask it for what they do not hold: its log, and the texts of statements.

    The log is read now, after everything that is measured, because that costs the server time (`read_wal`).

    Args:
        server: that the snapshots are of.
        snapshots: the first and the last of each stretch of time; one stretch alone will do.
        prefix: words in front of each command.
        migration: its passes are set beside the block changes.
        dirty_rate: so is what QEMU told of the dirty rate, in bytes/s.

    Raises:
        RequestError: there is no difference between two snapshots (see `check_pair`).
    """
    for begin, end in snapshots.values():
        check_pair(begin, end)
    intervals = {
        stretch: Interval(begin, end, read_wal(server, begin, end, prefix=prefix))
        for stretch, (begin, end) in snapshots.items()
    }
    found = growths(intervals)
    texts = _read_texts(server, intervals, found, prefix)
    related = []
    if migration is not None or dirty_rate is not None:
        passes = migration.passes if migration is not None else ()
        related.append(dirty_rate_table(intervals, passes, measured_rates(intervals, dirty_rate)))
    return make_report(intervals, found, texts, related)


def make_report(
    intervals: Intervals, found: list[Growth], texts: Mapping[StatementKey, str], related: Sequence[Table] = ()
) -> DatabaseReport:
    """Put the report together of values alone; `related` follows the load profile."""
    last = list(intervals.values())[-1].end
    tables = (
        _snapshot_table(intervals),
        rate_table("Load Profile", LOAD_PROFILE, intervals, _load_note(intervals)),
        *related,
        value_table("Instance Efficiency Percentages", EFFICIENCY, intervals, "%", _TARGET),
        wait_table(intervals, _wait_note(last)),
        host.host_table(intervals),
        rate_table("Time Model Statistics", TIME_MODEL, intervals, "In seconds.", totals=True),
        *statement_tables(intervals, found, texts, _statement_note(intervals)),
        rate_table("Instance Activity Stats", ACTIVITY, intervals, _load_note(intervals), totals=True),
        io_table(intervals),
        *segment_tables(intervals, f"Of the database {last.facts['database']}: pg_stat_all_tables and its like."),
        parameter_table(intervals),
    )
    return DatabaseReport(_header(last), tables, _block_changes(intervals))


def _header(snapshot: Snapshot) -> tuple[tuple[str, str], ...]:
    facts = snapshot.facts
    memory, cpus = host.memory_mib(snapshot), host.cpus(snapshot)
    allocated = next((row["allocated"] for row in snapshot.rows("memory")), None)
    return (
        ("DB Name", facts["database"]),
        ("DB Id", facts["system"]),
        ("Instance", facts["cluster"] or f"{facts['host'] or 'local'}:{facts['port']}"),
        ("Startup Time", _time(facts["started_at"])),
        ("Release", facts["version_text"]),
        ("Block Size", f"{facts['block_size']} bytes"),
        ("CPUs", str(cpus) if cpus else "unknown"),
        ("Memory", f"{memory} MiB" if memory else "unknown"),
        ("SGA (shared memory)", f"{allocated >> 20} MiB" if allocated else "unknown"),
        ("Role", facts["role"] if facts["sees_all"] else f"{facts['role']}, who may not see everything"),
    )


def _snapshot_table(intervals: Intervals) -> Table:
    rows = (
        ("Begin Snap Time", *(_time(i.begin.taken_at) for i in intervals.values())),
        ("End Snap Time", *(_time(i.end.taken_at) for i in intervals.values())),
        ("Elapsed (s)", *(rounded(i.seconds) for i in intervals.values())),
        ("DB Time (s)", *(rounded(_db_time(i)) for i in intervals.values())),
        ("Average Active Sessions", *(rounded(ratio(_db_time(i), i.seconds)) for i in intervals.values())),
        ("Sessions at the end", *(_sessions(i.end) for i in intervals.values())),
        ("Transactions", *(rounded(i.transactions) for i in intervals.values())),
        ("Server's clock ahead (s)", *(rounded(_clock_ahead(i.end)) for i in intervals.values())),
    )
    note = "Times by the clock of the machine that measured."
    return Table("Snapshots", ("", *names(intervals)), rows, note)


def _db_time(interval: Interval) -> float | None:
    milliseconds = interval.counted("database", "active_time")
    return None if milliseconds is None else milliseconds * MS


def _sessions(snapshot: Snapshot) -> int:
    return sum(row["numbackends"] or 0 for row in snapshot.rows("database"))


def _clock_ahead(snapshot: Snapshot) -> float:
    ahead: float = snapshot.facts["server_clock"] - snapshot.taken_at
    return round(ahead, 3)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="milliseconds")


def _block_changes(intervals: Intervals) -> dict[Stretch, float]:
    """Per second, from the log; where it could not be read, its records, which are fewer than the changes."""
    found = {}
    for stretch, interval in intervals.items():
        changes = interval.changes.changes if interval.changes else interval.counted("wal", "wal_records")
        found[stretch] = per_second(changes, interval) or 0.0
    return found


def _load_note(intervals: Intervals) -> str:
    said = ["A transaction is one that ended in any database, one that only reads included."]
    reasons = {interval.wal for interval in intervals.values() if not isinstance(interval.wal, WalChanges)}
    said += [f"Block changes: {reason}." for reason in sorted(reasons) if reason]
    last = list(intervals.values())[-1].end
    if "statements" not in last.sections:
        said.append(f"Executes, parses: {_no_extension(last, 'statements', 'pg_stat_statements')}.")
    if any(interval.was_reset("database") for interval in intervals.values()):
        said.append("Counters of the databases were reset in between.")
    return " ".join(said)


def _wait_note(snapshot: Snapshot) -> str:
    if "waits" not in snapshot.sections:
        return f"Not to be had: {_no_extension(snapshot, 'waits', 'pg_wait_sampling')}."
    period = snapshot.facts["wait_period_ms"]
    return (
        f"Of pg_wait_sampling, which looks at every process each {period} ms: estimates, of all processes together. "
        "Processes that compute are not in it."
    )


def _statement_note(intervals: Intervals) -> str:
    last = list(intervals.values())[-1]
    if "statements" not in last.end.sections:
        return f"Not to be had: {_no_extension(last.end, 'statements', 'pg_stat_statements')}."
    said = ["Of pg_stat_statements; the SQL Id is its queryid."]
    if not last.end.facts["sees_all"]:
        said.append(f"Statements of others are hidden: GRANT pg_read_all_stats TO {last.end.facts['role']}.")
    if any(interval.was_reset("statements") for interval in intervals.values()):
        said.append("It was reset in between.")
    if any(interval.counted("statements_info", "dealloc") for interval in intervals.values()):
        said.append("Rare statements had to make room for others in between (pg_stat_statements.max).")
    return " ".join(said)


def _no_extension(snapshot: Snapshot, what: str, extension: str) -> str:
    if not snapshot.facts[f"{what}_loaded"]:
        return f"the server was started without {extension} in shared_preload_libraries"
    return f"the extension is not in this database: CREATE EXTENSION {extension}"


def _read_texts(
    server: Server, intervals: Intervals, found: list[Growth], prefix: Sequence[str]
) -> dict[StatementKey, str]:
    """What statements say, in one line each; a statement that is no longer there says nothing."""
    wanted = all_top(found)
    if not wanted:
        return {}
    schema = list(intervals.values())[-1].end.facts["statements_schema"]
    ids = ", ".join(str(queryid) for queryid in sorted({queryid for _, queryid, _ in wanted}))
    try:
        rows = query(server, _TEXTS.format(schema=schema, ids=ids, length=TEXT_LENGTH), prefix=prefix)
    except HostError:
        return {}  # the report is worth having without them
    return {(int(dbid), int(queryid), toplevel == "1"): shown(text) for dbid, queryid, toplevel, text in rows}


def shown(text: str) -> str:
    """A statement without passwords: the server keeps CREATE ROLE and the like as they were typed."""
    return _SECRETS.sub(r"\1'...'", text)
