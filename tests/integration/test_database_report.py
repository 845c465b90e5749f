"""The database report beside what was really done to a PostgreSQL server, and beside its own counts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ldoms.bench.database import Snapshot, database_report, render, take_snapshot
from ldoms.bench.pgbench import find_pgbench
from ldoms.bench.record import DatabaseReport, Stretch, Table
from ldoms.bench.server import Server, run_psql
from ldoms.model.errors import RequestError
from postgresql import PostgreSQL, running_postgresql, value

CLIENTS, EACH = 4, 50
TRANSACTIONS = CLIENTS * EACH
SCRIPT = """\
\\set id :client_id * 1000 + :n
\\set n :n + 1
begin;
insert into account values (:id, 0);
update account set balance = balance + 1 where id = :id;
commit;
"""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    """A server that has the extensions which come with PostgreSQL, and does nothing that it is not asked to."""
    settings = {"shared_preload_libraries": "pg_stat_statements", "autovacuum": "off", "track_io_timing": "on"}
    with running_postgresql(settings) as instance:
        do(instance.server, "create extension pg_stat_statements", "create extension pg_walinspect")
        yield instance


@pytest.fixture
def server(postgresql: PostgreSQL) -> Server:
    """With an empty table."""
    do(postgresql.server, "drop table if exists account", "create table account (id int primary key, balance int)")
    do(postgresql.server, "checkpoint")
    return postgresql.server


def do(server: Server, *statements: str) -> None:
    run_psql(server, [f"--command={statement}" for statement in statements])


def load(server: Server, directory: Path) -> None:
    """Exactly TRANSACTIONS transactions, each with one insert and one update."""
    script = directory / "script.sql"
    script.write_text(SCRIPT)
    words = [str(find_pgbench()), "-n", "-c", str(CLIENTS), "-t", str(EACH), "-D", "n=0", "-f", str(script)]
    done = subprocess.run([*words, server.connection_words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def table(report: DatabaseReport, title: str) -> Table:
    return next(found for found in report.tables if found.title == title)


def column(found: Table, name: str) -> int:
    return found.columns.index(name)


def total(report: DatabaseReport, source: str) -> Any:
    found = table(report, "Instance Activity Stats")
    (row,) = [row for row in found.rows if row[1] == source]
    return row[column(found, "total")]


def one_report(server: Server, begin: Snapshot) -> DatabaseReport:
    return database_report(server, {Stretch.DURING: (begin, take_snapshot(server))})


def test_what_was_done_is_counted(server: Server, tmp_path: Path) -> None:
    """Inserts, updates, commits, executions: exactly those that clients made."""
    begin = take_snapshot(server)
    load(server, tmp_path)
    report = one_report(server, begin)
    assert total(report, "pg_stat_database: tup_inserted") == TRANSACTIONS
    assert total(report, "pg_stat_database: tup_updated") == TRANSACTIONS
    assert total(report, "pg_walinspect: commits that changed something") == TRANSACTIONS
    assert total(report, "pg_stat_database: xact_rollback") == 0
    (segment,) = table(report, "Segments by Row Changes").rows
    assert segment[:4] == ("public", "account", "TABLE", 2 * TRANSACTIONS)
    executions = table(report, "SQL ordered by Executions")
    seconds = table(report, "Snapshots").rows[2][1]
    calls = {row[-1].split()[0]: row[column(executions, "exec/s")] * seconds for row in executions.rows}
    assert calls["insert"] == pytest.approx(TRANSACTIONS, rel=1e-4)
    assert calls["update"] == pytest.approx(TRANSACTIONS, rel=1e-4)


def test_block_changes_are_those_of_the_log(server: Server, tmp_path: Path) -> None:
    """The same as counting the references of every record one by one, also by table and index."""
    begin = take_snapshot(server)
    load(server, tmp_path)
    end = take_snapshot(server)
    report = database_report(server, {Stretch.DURING: (begin, end)})
    records = f"pg_get_wal_records_info('{begin.facts['lsn']}', '{end.facts['lsn']}')"
    counted = int(value(server, f"select sum(regexp_count(block_ref, 'blkref #')) from {records}"))
    assert total(report, "pg_walinspect: block references") == counted
    # An insert changes the table and its index, an update the table.
    assert counted >= 3 * TRANSACTIONS
    seconds = end.taken_at - begin.taken_at
    assert report.block_changes_s[Stretch.DURING] == pytest.approx(counted / seconds, rel=1e-4)
    rows = {row[1]: row[3] for row in table(report, "Segments by DB Blocks Changes").rows}
    assert rows["account"] >= 2 * TRANSACTIONS
    assert rows["account_pkey"] >= TRANSACTIONS
    assert sum(rows.values()) == counted


def test_each_stretch_has_its_own_figures(server: Server, tmp_path: Path) -> None:
    """What was done in one of them is not in the others."""
    snapshots = [take_snapshot(server), take_snapshot(server)]
    load(server, tmp_path)
    snapshots += [take_snapshot(server), take_snapshot(server)]
    report = database_report(server, dict(zip(Stretch, pairwise(snapshots), strict=True)))
    found = table(report, "Instance Activity Stats")
    (row,) = [row for row in found.rows if row[1] == "pg_stat_database: tup_inserted"]
    assert [row[column(found, f"{stretch} total")] for stretch in Stretch] == [0, TRANSACTIONS, 0]
    changes = report.block_changes_s
    assert changes[Stretch.DURING] > 10 * max(changes[Stretch.BEFORE], changes[Stretch.AFTER])
    render(report)


def test_a_snapshot_costs_one_transaction(server: Server) -> None:
    """It changes nothing, and is one transaction of one session; the server counts one more for every connection."""
    take_snapshot(server)
    begin = take_snapshot(server)
    report = one_report(server, begin)
    assert total(report, "pg_stat_database: xact_commit") == 2
    assert total(report, "pg_stat_database: sessions") == 1
    assert total(report, "pg_walinspect: block references") == 0


def test_functions_of_others_are_not_called(server: Server) -> None:
    """Whoever may create functions in the database cannot make the role that looks run them."""
    body = "language plpgsql as $$ begin raise 'called'; end $$"
    do(server, f"create function public.to_json(pg_stat_database) returns json {body}")
    do(server, f"create function public.split_part(text, text, bigint) returns text {body}")
    try:
        begin = take_snapshot(server)
        do(server, "insert into account values (1, 1)")
        assert total(one_report(server, begin), "pg_walinspect: block references") > 0
    finally:
        do(server, "drop function public.to_json(pg_stat_database)")
        do(server, "drop function public.split_part(text, text, bigint)")


def test_a_role_without_rights_gets_what_it_may_see(server: Server) -> None:
    """And is told which right each missing part needs."""
    do(server, "drop role if exists visitor", "create role visitor login")
    visitor = Server(server.host, server.port, user="visitor", database=server.database)
    report = one_report(visitor, take_snapshot(visitor))
    assert "GRANT pg_read_server_files TO visitor" in table(report, "Load Profile").note
    assert "GRANT pg_read_all_stats TO visitor" in table(report, "SQL ordered by Elapsed Time").note
    assert "pg_read_server_files" in table(report, "Host CPU").note
    assert total(report, "pg_stat_database: xact_commit") >= 1
    # The statements of others count, even if they cannot be read.
    (row,) = [row for row in table(report, "Load Profile").rows if row[0] == "Executes (SQL)"]
    assert row[2] > 0


def test_a_database_without_extensions(server: Server) -> None:
    """The rest of the report stands; the parts that are missing name what to create."""
    do(server, "drop database if exists bare")
    do(server, "create database bare")
    bare = Server(server.host, server.port, database="bare")
    report = one_report(bare, take_snapshot(bare))
    assert "CREATE EXTENSION pg_walinspect" in table(report, "Load Profile").note
    assert "CREATE EXTENSION pg_stat_statements" in table(report, "SQL ordered by Gets").note
    assert "shared_preload_libraries" in table(report, "Top Events by Total Wait Time").note
    assert table(report, "Segments by Logical Reads").rows


def test_counters_that_were_reset_in_between(server: Server) -> None:
    """They give no figures, and the report says why."""
    begin = take_snapshot(server)
    do(server, "select pg_stat_reset()", "select pg_stat_statements_reset()")
    report = one_report(server, begin)
    assert "reset in between" in table(report, "Load Profile").note
    assert "Transactions" not in [row[0] for row in table(report, "Load Profile").rows]


def test_a_server_that_was_started_again(postgresql: PostgreSQL, server: Server) -> None:
    """Its counters have begun again: there is no difference."""
    begin = take_snapshot(server)
    postgresql.stop()
    postgresql.start()
    with pytest.raises(RequestError) as error:
        one_report(server, begin)
    assert error.value.code == "server-restarted"


# ---- the command -----------------------------------------------------------------------------------------------


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("ldoms-bench")
    return subprocess.run([program, "database-report", *words], capture_output=True, text=True, timeout=60)


def dsn(server: Server) -> str:
    return f"postgresql://{server.user}@{server.host}:{server.port}/{server.database}"


def test_the_command_prints_text_and_json(server: Server) -> None:
    """Of the seconds asked for; the JSON has the same tables."""
    begun = time.monotonic()
    done = bench("--dsn", dsn(server), "--seconds", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begun > 1
    titles = [line for line, below in pairwise(done.stdout.splitlines()) if below and set(below) == {"-"}]
    done = bench("--dsn", dsn(server), "--seconds", "0.1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert {found["title"] for found in json.loads(done.stdout)["tables"]} == set(titles)


def test_the_command_keeps_a_snapshot(server: Server, tmp_path: Path) -> None:
    """And goes on from it later: everything that was done since is in the report."""
    kept = tmp_path / "begin.json"
    done = bench("--dsn", dsn(server), "--save", str(kept))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    load(server, tmp_path)
    done = bench("--dsn", dsn(server), "--since", str(kept), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = [one for one in json.loads(done.stdout)["tables"] if one["title"] == "Segments by Row Changes"]
    assert found["rows"][0][:4] == ["public", "account", "TABLE", 2 * TRANSACTIONS]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dsn", "postgresql://postgres@127.0.0.1:1/none"), "does not answer"),
        (("--dsn", "nonsense"), "not a connection string"),
        (("--since", "/nowhere/begin.json"), "/nowhere/begin.json cannot be read"),
        (("--since", __file__), "is not a snapshot"),
    ],
)
def test_the_command_says_why_not(words: tuple[str, ...], said: str) -> None:
    """One sentence, status 1, nothing on the output."""
    done = bench("--seconds", "1", *words) if "--since" not in words else bench(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
