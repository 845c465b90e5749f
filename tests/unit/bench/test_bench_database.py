"""The database report, on rows that real servers gave: PostgreSQL 15, 16, 17 and 18.

Between the two recordings of each, one client ran 200 transactions of one insert and one update, three were rolled back
after an insert, and one checkpoint was asked for.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ldoms.bench.database import report as report_module
from ldoms.bench.database import statistics, text
from ldoms.bench.database.dirty import dirty_rate, dirty_rate_table, mean_in
from ldoms.bench.database.host import cpu_shares, cpus, memory_mib
from ldoms.bench.database.interval import Interval, lsn
from ldoms.bench.database.snapshot import Snapshot, parse_snapshot
from ldoms.bench.database.statements import ORDERINGS, growths, top_statements
from ldoms.bench.database.statistics import Statistic
from ldoms.bench.database.waits import ORACLE_EVENTS, wait_class, wait_table
from ldoms.bench.database.wal import WalChanges, parse_wal, read_wal
from ldoms.bench.record import DatabaseReport, Series, Stretch, Table
from ldoms.bench.server import Server
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import HostError, RequestError
from ldoms.model.migration import PassRecord

RECORDED = Path(__file__).parent / "recorded"
VERSIONS = (15, 16, 17, 18)
CHANGES = WalChanges(changes=1200, blocks=30, commits=200, relations={})


def recorded(version: int, moment: str) -> str:
    return (RECORDED / f"postgresql-{version}-{moment}.txt").read_text()


def interval(version: int = 15, wal: WalChanges | str = CHANGES) -> Interval:
    return Interval(*(parse_snapshot(recorded(version, moment), 0.05) for moment in ("begin", "end")), wal)


def one_report(one: Interval) -> DatabaseReport:
    intervals = {Stretch.DURING: one}
    return report_module.make_report(intervals, growths(intervals), {})


def table(report: DatabaseReport, title: str) -> Table:
    return next(found for found in report.tables if found.title == title)


def totals(report: DatabaseReport, title: str) -> dict[tuple[str, str], Any]:
    found = table(report, title)
    return {(row[0], row[1]): row[found.columns.index("total")] for row in found.rows}


def changed(snapshot: Snapshot, section: str, **columns: Any) -> Snapshot:
    rows = tuple({**row, **columns} for row in snapshot.rows(section))
    return replace(snapshot, sections={**snapshot.sections, section: rows})


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_done_is_what_is_reported(version: int) -> None:
    """Each version keeps its counters elsewhere; the same load gives the same figures."""
    report = one_report(interval(version))
    activity = totals(report, "Instance Activity Stats")
    assert activity["-", "pg_stat_database: tup_inserted"] == 203
    assert activity["-", "pg_stat_database: tup_updated"] == 200
    assert activity["user rollbacks", "pg_stat_database: xact_rollback"] == 3
    assert activity["background checkpoints started", "checkpoints"] == 1
    assert activity["DBWR checkpoint buffers written", "checkpointer: buffers written"] > 0
    assert activity["physical writes", "checkpointer, background writer, backends"] > 0
    assert activity["db block changes", "pg_walinspect: block references"] == 1200
    # The transactions, those rolled back, and a few of psql's and pgbench's own.
    assert 200 <= activity["user commits", "pg_stat_database: xact_commit"] <= 215
    # One flush for each commit at most, and at least one for what was committed last.
    assert 1 <= activity["redo synch writes", "WAL flushed"] <= 230
    assert activity["redo entries", "pg_stat_wal: wal_records"] >= 600
    rows = table(report, "Segments by Row Changes").rows
    assert [row[:4] for row in rows] == [("public", "known", "TABLE", 403)]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_statistic_is_to_be_had_or_is_known_not_to_be(version: int) -> None:
    """Nothing is lost silently: what has no value is what the server was told not to count."""
    one = interval(version)
    every = (
        *statistics.LOAD_PROFILE,
        *statistics.TIME_MODEL,
        *statistics.ACTIVITY,
        *statistics.EFFICIENCY,
    )
    missing = {statistic.source for statistic in every if statistic.value(one) is None}
    assert missing == {
        "pg_stat_statements: plans",
        "pg_stat_statements: total_plan_time",
        "pg_stat_statements: 100 - plans of calls",
        "pg_stat_statements: total_exec_time of it + total_plan_time",
    }


def test_rates_are_by_second_and_by_transaction() -> None:
    """A rate is the growth by the seconds between the snapshots, and by all transactions that ended."""
    one = interval()
    found = {(row[0], row[1]): row[2:] for row in table(one_report(one), "Load Profile").rows}
    seconds, transactions = one.seconds, one.transactions
    per_second, per_transaction = found["Block changes", "pg_walinspect: block references"]
    assert per_second == pytest.approx(1200 / seconds, rel=1e-5)
    assert per_transaction == pytest.approx(1200 / transactions, rel=1e-5)
    assert found["Transactions", "pg_stat_database: xact_commit + xact_rollback"][1] == 1


def test_three_stretches_stand_side_by_side() -> None:
    """Columns name their stretch; figures of each are its own."""
    one = interval()
    longer = Interval(replace(one.begin, taken_at=one.begin.taken_at - one.seconds), one.end, CHANGES)
    intervals = {Stretch.BEFORE: one, Stretch.DURING: longer, Stretch.AFTER: one}
    found = table(report_module.make_report(intervals, growths(intervals), {}), "Load Profile")
    assert found.columns[2:] == ("before /s", "during /s", "after /s", "before /tx", "during /tx", "after /tx")
    row = next(row for row in found.rows if row[0] == "Block changes")
    assert row[3] == pytest.approx(row[2] / 2, rel=1e-5)
    assert row[2] == row[4]


def test_block_changes_of_each_stretch() -> None:
    """They are given apart, per second; where the log cannot be read, its records stand in, and the report says why."""
    one = interval()
    assert one_report(one).block_changes_s == {Stretch.DURING: pytest.approx(1200 / one.seconds, rel=1e-5)}
    without = interval(wal="the extension is not in this database: CREATE EXTENSION pg_walinspect")
    report = one_report(without)
    records = without.counted("wal", "wal_records")
    assert records is not None
    assert report.block_changes_s == {Stretch.DURING: pytest.approx(records / one.seconds, rel=1e-5)}
    load = table(report, "Load Profile")
    assert "CREATE EXTENSION pg_walinspect" in load.note
    assert "Block changes" not in [row[0] for row in load.rows]


@pytest.mark.parametrize(
    ("section", "title", "said"),
    [
        ("statements", "SQL ordered by Gets", "CREATE EXTENSION pg_stat_statements"),
        ("waits", "Top Events by Total Wait Time", "CREATE EXTENSION pg_wait_sampling"),
        ("files", "Host CPU", "pg_read_server_files"),
    ],
)
def test_a_part_that_is_not_to_be_had_says_why(section: str, title: str, said: str) -> None:
    """Without an extension or a right the rest of the report stands, and the part names what is missing."""
    one = interval()
    begin, end = (
        replace(snapshot, sections={name: rows for name, rows in snapshot.sections.items() if name != section})
        for snapshot in (one.begin, one.end)
    )
    found = table(one_report(Interval(begin, end, CHANGES)), title)
    assert found.rows == ()
    assert said in found.note
    assert said in text.render_table(found)


def test_extension_that_was_not_loaded() -> None:
    """A server that was started without the library cannot be helped by CREATE EXTENSION."""
    one = interval(16)
    assert "shared_preload_libraries" in table(one_report(one), "Top Events by Total Wait Time").note


def test_counters_that_were_reset_give_no_difference() -> None:
    """A difference across a reset would be a wrong figure: there is none, and the report says so."""
    one = interval()
    end = changed(one.end, "database", stats_reset="2026-11-25T03:00:00+00:00")
    report = one_report(Interval(one.begin, end, CHANGES))
    assert "reset in between" in table(report, "Load Profile").note
    assert "Transactions" not in [row[0] for row in table(report, "Load Profile").rows]


def test_statements_that_began_again_count_with_what_they_have() -> None:
    """One that was thrown out and came back has lower counters than before."""
    one = interval()
    key = ("dbid", "queryid", "toplevel")
    begin = changed(one.begin, "statements", calls=10_000)
    found = Interval(begin, one.end).grown("statements", key, ("calls",))
    assert found == {tuple(row[name] for name in key): {"calls": row["calls"]} for row in one.end.rows("statements")}


@pytest.mark.parametrize(
    ("facts", "code"),
    [({"system": "1"}, "different-servers"), ({"started_at": 1.0}, "server-restarted")],
)
def test_snapshots_that_do_not_belong_together(facts: dict[str, Any], code: str) -> None:
    """Of another server, or of another life of it: there is no difference between them."""
    one = interval()
    with pytest.raises(RequestError) as error:
        Interval(replace(one.begin, facts={**one.begin.facts, **facts}), one.end)
    assert error.value.code == code


def test_snapshots_in_the_wrong_order() -> None:
    """Time runs forward."""
    one = interval()
    with pytest.raises(RequestError) as error:
        Interval(one.end, one.begin)
    assert error.value.code == "bad-interval"


def test_too_old_a_server() -> None:
    """It is named, and so is what is needed."""
    with pytest.raises(RequestError, match=r"PostgreSQL 13\.4.*PostgreSQL 15 or later") as error:
        parse_snapshot('clock|{"taken_at": 1.0}\nversion|{"version": 130004}\n', 0.1)
    assert error.value.code == "old-server"


@pytest.mark.parametrize("output", ["", "nonsense", "clock|{}", 'clock|{"taken_at": 1}\nversion|{"version": 150001}\n'])
def test_answers_that_are_no_snapshot(output: str) -> None:
    """They are refused in one sentence."""
    with pytest.raises(HostError) as error:
        parse_snapshot(output, 0.1)
    assert error.value.code == "bad-snapshot"


def test_snapshot_survives_the_wire() -> None:
    """A snapshot that was kept in a file is the same when it is read back."""
    snapshot = interval(17).begin
    assert from_wire(Snapshot, to_wire(snapshot)) == snapshot


def test_log_rows() -> None:
    """Changes are summed over the files, and commits are told apart from them."""
    rows = [["relation", "1663/5/1", "7", "2"], ["relation", "1664/0/9", "3", "3"], ["commits", "", "4", "0"]]
    relations = {"1663/5/1": (7, 2), "1664/0/9": (3, 3)}
    assert parse_wal(rows) == WalChanges(changes=10, blocks=5, commits=4, relations=relations)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"is_standby": True}, "standby"),
        ({"wal_schema": ""}, "CREATE EXTENSION pg_walinspect"),
        ({"reads_files": False}, "GRANT pg_read_server_files"),
    ],
)
def test_log_that_cannot_be_read(facts: dict[str, Any], said: str) -> None:
    """The server is not even asked; the sentence says what to do."""
    one = interval()
    found = read_wal(Server("nowhere.invalid"), one.begin, replace(one.end, facts={**one.end.facts, **facts}))
    assert isinstance(found, str)
    assert said in found


def test_segments_by_block_changes() -> None:
    """Files are given the name of the table or index that they belong to; others keep their own."""
    one = interval()
    database = one.end.facts["database_oid"]
    filenode = next(row["filenode"] for row in one.end.rows("segments") if row["name"] == "known")
    relations = {f"1663/{database}/{filenode}": (900, 20), "1663/999/16400": (100, 5)}
    report = one_report(interval(wal=WalChanges(1000, 25, 10, relations)))
    rows = table(report, "Segments by DB Blocks Changes").rows
    assert [(row[1], row[3], row[5]) for row in rows] == [("known", 900, 90), ("file 1663/999/16400", 100, 10)]


def test_statements_are_ordered() -> None:
    """Those that count most come first; shares are of what clients sent."""
    intervals = {Stretch.DURING: interval()}
    report = report_module.make_report(intervals, growths(intervals), {})
    executions = table(report, "SQL ordered by Executions")
    calls = sorted((row[1] for row in executions.rows), reverse=True)
    assert [row[1] for row in executions.rows] == calls
    assert sum(row[2] for row in executions.rows) == pytest.approx(100)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alter role a password 'it''s secret' valid until 'x'", "alter role a password '...' valid until 'x'"),
        ("CREATE USER a WITH PASSWORD  'cut off in the mid", "CREATE USER a WITH PASSWORD  '...'"),
        ("create subscription s connection 'host=h password=secret'", "create subscription s connection '...'"),
        ("select password from users where id = $1", "select password from users where id = $1"),
    ],
)
def test_statements_show_no_passwords(text: str, said: str) -> None:
    """The server keeps statements that define something as they were typed."""
    assert report_module.shown(text) == said


def test_statements_are_limited() -> None:
    """A table has as many as it may; equal ones keep one order."""
    ordering = ORDERINGS[-1]
    many = {(1, number, True): {"calls": 5.0} for number in range(30)}
    assert top_statements([many], ordering, 4) == [(1, 0, True), (1, 1, True), (1, 2, True), (1, 3, True)]


def test_waits() -> None:
    """A sample stands for one period; events have Oracle's name and class, idle ones come last."""
    one = interval()
    begin = replace(one.begin, sections={**one.begin.sections, "waits": ()})
    rows = (
        {"event_type": "Client", "event": "ClientRead", "count": 5000},
        {"event_type": "IO", "event": "WALSync", "count": 300},
        {"event_type": "LWLock", "event": "SomethingNew", "count": 20},
    )
    end = replace(one.end, sections={**one.end.sections, "waits": rows})
    found = wait_table({Stretch.DURING: Interval(begin, end)}, "")
    assert [row[:4] for row in found.rows] == [
        ("log file sync", "IO: WALSync", "Commit", 3),
        ("-", "LWLock: SomethingNew", "Concurrency", pytest.approx(0.2)),
        ("SQL*Net message from client", "Client: ClientRead", "Idle", 50),
    ]


def test_every_event_has_a_class() -> None:
    """Those that Oracle has, too, are in a class that Oracle has."""
    classes = {"Application", "Commit", "Concurrency", "Idle", "Network", "Other", "System I/O", "User I/O"}
    assert {wait_class(*key) for key in ORACLE_EVENTS} <= classes


def test_host_cpu() -> None:
    """Shares of /proc/stat add up to all of the time; CPUs are counted, and memory is read."""
    one = interval()
    begin, end = (
        replace(snapshot, sections={"files": ({"name": "/proc/stat", "text": line + "cpu0 1\ncpu1 1\nintr 5\n"},)})
        for snapshot, line in (
            (one.begin, "cpu  100 0 100 1000 0 0 0 0 7 0\n"),
            (one.end, "cpu  160 0 120 1010 0 0 5 5 9 0\n"),
        )
    )
    shares = cpu_shares(Interval(begin, end))
    assert shares is not None
    assert shares["user"] == 60
    assert shares["idle"] == 10
    assert sum(shares.values()) == pytest.approx(100)
    assert cpus(end) == 2
    assert memory_mib(one.end) == 1024


def test_block_changes_beside_the_dirty_rate() -> None:
    """Changes times the block size, different blocks, and what the passes and QEMU saw, all in bytes per second."""
    one = interval()
    passes = (PassRecord(1, 3.0, 10, 60_000_000), PassRecord(2, 1.0, 10, 20_000_000))
    assert dirty_rate(passes) == 20_000_000
    assert dirty_rate(()) is None
    found = dirty_rate_table({Stretch.BEFORE: one, Stretch.DURING: one}, passes, {Stretch.BEFORE: 5e6})
    lines = {row[1]: row[2:] for row in found.rows}
    changes = 1200 / one.seconds
    assert lines["pg_walinspect: block references"][1] == pytest.approx(changes, rel=1e-5)
    assert lines["estimate, each change a block of its own"][1] == pytest.approx(changes * 8192, rel=1e-5)
    assert lines["different blocks x block size"][1] == pytest.approx(30 * 8192 / one.seconds, rel=1e-4)
    assert lines["dirty rate seen by the passes of the migration"] == (None, 20_000_000)
    assert lines["dirty rate told by QEMU"] == (5_000_000, None)
    shares = lines["dirty rate / (db block changes x block size)"]
    assert shares[0] == pytest.approx(5e6 / (changes * 8192), rel=1e-4)
    assert shares[1] == pytest.approx(20e6 / (changes * 8192), rel=1e-4)


def test_what_nobody_measured_has_no_line() -> None:
    """A migration of which QEMU was not asked for its dirty rate."""
    found = dirty_rate_table({Stretch.DURING: interval()}, (PassRecord(1, 3.0, 10, 60),), {})
    sources = [row[1] for row in found.rows]
    assert "dirty rate told by QEMU" not in sources
    assert "dirty rate seen by the passes of the migration" in sources


def test_mean_of_a_series() -> None:
    """Of the samples of a stretch; a sample is of the second that ends there."""
    series = Series("copy", "dirty rate", "bytes/s", (1.0, 2.0, 3.0, 4.0, 5.0), (10.0, 20.0, 40.0, 80.0, 0.0))
    assert mean_in(series, 1.0, 3.0) == 30
    assert mean_in(series, 3.0, 5.0) == 80, "zero is what QEMU says before it knows"
    assert mean_in(series, 7.0, 9.0) is None


def test_positions_in_the_log() -> None:
    """As pg_lsn writes them."""
    assert lsn("0/15803B8") == 0x15803B8
    assert lsn("2A/10") == (0x2A << 32) + 0x10


def test_text_is_aligned() -> None:
    """Words to the left, figures to the right, below their columns; what is missing is a dash."""
    made = Table("A Title", ("Name", "/s"), (("one", 1234567), ("twenty", 0.5), ("none", None)), "A note.")
    assert text.render_table(made).splitlines() == [
        "A Title",
        "-------",
        "Name           /s",
        "------  ---------",
        "one     1,234,567",
        "twenty     0.5000",
        "none            -",
        "A note.",
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "-"),
        (0, "0"),
        (12345.6, "12,346"),
        (123.45, "123.5"),
        (1.234, "1.23"),
        (0.01234, "0.0123"),
        (1e-6, "1.0e-06"),
    ],
)
def test_figures(value: float | None, said: str) -> None:
    """As many digits as can be read at a glance."""
    assert text.cell(value) == said


def test_long_text_is_cut() -> None:
    """A statement keeps to its column, and to one line."""
    shown = text.cell("select  1\n" + "x" * 100)
    assert shown.startswith("select 1 xxx")
    assert shown.endswith("...")
    assert len(shown) == 60


@pytest.mark.parametrize("version", VERSIONS)
def test_whole_report_as_text_and_json(version: int) -> None:
    """Everything can be printed, written and read back, and the tables come in the order of AWR."""
    report = one_report(interval(version))
    shown = text.render(report)
    positions = [shown.index(f"\n{found.title}\n---") for found in report.tables]
    assert positions == sorted(positions)
    assert from_wire(DatabaseReport, to_wire(report)).block_changes_s == {
        "during": report.block_changes_s[Stretch.DURING]
    }
    titles = [found.title for found in report.tables]
    assert titles[:3] == ["Snapshots", "Load Profile", "Instance Efficiency Percentages"]
    assert titles[-1] == "init.ora Parameters"


def test_statistics_that_nothing_has_are_left_out() -> None:
    """A line without a figure in any stretch tells nothing."""
    nothing = Statistic("nothing", "nowhere", lambda _: None)
    found = report_module.rate_table("T", (nothing, statistics.BLOCK_CHANGES), {Stretch.DURING: interval()})
    assert [row[0] for row in found.rows] == ["db block changes"]


def test_rows_that_were_not_there_count_from_zero() -> None:
    """A table that is used for the first time has grown by all that it has."""
    one = interval()
    begin = replace(one.begin, sections={**one.begin.sections, "segments": ()})
    assert Interval(begin, one.end).counted("segments", "inserted") == 204
    unknown = replace(one.begin, sections={})
    assert Interval(unknown, one.end).counted("segments", "inserted") is None
