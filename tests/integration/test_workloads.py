"""Every workload against a real PostgreSQL: each statement runs, and each check finds what it is there to find."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ldoms.bench.log import LoadResult
from ldoms.bench.pgbench import LoadOptions, LoadRun, find_pgbench
from ldoms.bench.server import Server, run_psql
from ldoms.bench.workloads import WORKLOADS, ThinkTimes, find_workload
from ldoms.bench.workloads.stored import StoredWorkload
from ldoms.model.errors import HostError, RequestError
from postgresql import numbers, running_postgresql, value

SCALES = {
    "orderentry": {"customers": 300, "warehouses": 5},
    "saleshistory": {"sales": 8_000, "customers": 300},
    "callingcircle": {"accounts": 300},
    "stresstest": {"rows": 1_000},
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with all workloads in one database."""
    with running_postgresql() as instance:
        for workload in WORKLOADS:
            workload.install(instance.server, SCALES[workload.name])
        yield instance.server


each_workload = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)


def stopped_after(load: LoadRun, *, reports: int) -> LoadResult:
    """What a load did until it had reported so often, once in a second."""
    deadline = time.monotonic() + 30
    try:
        while len(load.progress()) < reports:
            assert time.monotonic() < deadline
            assert load.is_running, load.result()
            time.sleep(0.05)
        load.stop()
    finally:
        load.kill()
    return load.result()


def faults(workload: StoredWorkload, server: Server) -> list[str]:
    """What does not hold."""
    return [f"{item.name}: {item.detail}" for item in workload.check(server) if not item.holds]


@each_workload
def test_what_was_loaded_is_whole(workload: StoredWorkload, server: Server) -> None:
    """Right after loading everything holds, and the sizes are those that were asked for."""
    assert faults(workload, server) == []
    assert workload.read_scale(server) == SCALES[workload.name]


@each_workload
def test_each_kind_runs(workload: StoredWorkload, server: Server, tmp_path: Path) -> None:
    """All equally often, those too that are off by default, with think times: all is whole and in the ledger."""
    run = workload.next_run(server)
    options = LoadOptions(clients=4, seconds=40)
    kinds = {kind.short: 1 for kind in workload.kinds}
    think = ThinkTimes(0, 2, 1, 3)
    load = workload.start(find_pgbench(), server, options, tmp_path / "run", run=run, weights=kinds, think=think)
    result = stopped_after(load, reports=3)
    assert result.report.messages == ()
    counts = Counter(transaction.kind for transaction in result.transactions)
    assert {short for short in kinds if counts[short] < 3} == set(), counts
    items = workload.check(server, run, result)
    assert [item for item in items if not item.holds] == []
    assert ("clients' ledger" in [item.name for item in items]) == workload.has_ledger


@each_workload
def test_the_mix_runs(workload: StoredWorkload, server: Server, tmp_path: Path) -> None:
    """Many clients at full speed meet no deadlock and no error, and everything is whole meanwhile and afterwards."""
    run = workload.next_run(server)
    load = workload.start(find_pgbench(), server, LoadOptions(clients=16, seconds=90), tmp_path / "run", run=run)
    try:
        while len(load.progress()) < 2:
            assert load.is_running
            time.sleep(0.05)
        assert faults(workload, server) == []
        assert load.is_running
        load.stop()
        result = load.result()
    finally:
        load.kill()
    assert (result.report.failed, result.report.messages) == (0, ())
    assert {one.kind for one in result.transactions} <= {kind.short for kind in workload.kinds if kind.is_on}
    assert [item for item in workload.check(server, run, result) if not item.holds] == []
    assert value(server, "select deadlocks from pg_stat_database where datname = 'postgres'") == "0"


def test_page_that_cannot_be_read_is_found(server: Server) -> None:
    """What the server itself cannot read any more is an answer, not an end of the check."""
    workload = find_workload("stresstest")
    run_psql(server, ["--command=alter table st.stresstesttable rename to gone"])
    found = {item.name: item for item in workload.check(server) if not item.holds}
    assert set(found) == {"rows", "balance", "contents"}
    assert "could not read" in found["rows"].detail
    workload.install(server, SCALES["stresstest"])


def test_data_that_are_not_there(server: Server, tmp_path: Path) -> None:
    """Whoever wants to run or to check first has to load, and is told how; an older version counts as none."""
    workload = find_workload("stresstest")
    try:
        run_psql(server, ["--command=update st.metadata set value = 0 where name = 'version'"])
        with pytest.raises(RequestError, match=r"another version .* 'ldoms-bench workload load stresstest'"):
            workload.check(server)
        run_psql(server, ["--command=drop schema st cascade"])
        with pytest.raises(
            RequestError, match="has no StressTest: load it with 'ldoms-bench workload load stresstest'"
        ):
            workload.start(find_pgbench(), server, LoadOptions(seconds=1), tmp_path / "run", run=1)
    finally:
        workload.install(server, SCALES["stresstest"])


def test_a_load_that_fails_leaves_what_was_there(server: Server, tmp_path: Path) -> None:
    """Loading is all or nothing: what was loaded before is still there, whole."""
    workload = find_workload("stresstest")
    broken = replace(workload, directory=tmp_path / "sql")
    shutil.copytree(workload.directory, broken.directory)
    with (broken.directory / "data.sql").open("a") as data:
        data.write("select 1 / 0;\n")
    with pytest.raises(HostError, match="division by zero"):
        broken.install(server, {"rows": 5})
    assert workload.read_scale(server) == SCALES["stresstest"]
    assert faults(workload, server) == []


def test_pauses_are_those_that_are_taken_out(server: Server, tmp_path: Path) -> None:
    """What pgbench sleeps is what is taken from its times: responses are as short as without thinking."""
    workload = find_workload("stresstest")
    think = ThinkTimes(intermin_ms=50, intermax_ms=250)
    load = workload.start(
        find_pgbench(), server, LoadOptions(clients=10, seconds=4), tmp_path / "run", run=2, think=think
    )
    result = load.result()
    responses = sorted(one.latency_s for one in result.transactions)
    assert 10 * 4 / 0.25 * 0.5 < len(responses) < 10 * 4 / 0.05
    # A pause that was computed wrongly would be off by up to 200 ms, in both directions.
    assert responses[0] > 0
    assert responses[len(responses) // 2] < 0.03


def test_questions_have_answers(server: Server) -> None:
    """Each question of SalesHistory has an answer with rows, and what a cube adds up is what the table adds up to."""
    assert value(server, "select count(*) from sh.answers where answer = 0") == "0"
    assert value(server, "select count(distinct answer) > 40 from sh.answers") == "t"
    whole, parts = numbers(
        server,
        "(select sum(amount_sold)::bigint from sh.sales)",
        "(select sum(turnover)::bigint from (select sum(amount_sold) as turnover from sh.sales s join sh.times t"
        " using (time_id) join sh.customers c using (cust_id) join sh.countries n using (country_id)"
        " group by n.country_name, t.calendar_year) parts)",
    )
    assert whole == parts


def bench(*words: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """What a user types."""
    program = Path(sys.executable).with_name("ldoms-bench")
    command = [str(program), "workload", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False, env={**os.environ, **(environment or {})}
    )


def test_a_user_loads_runs_and_checks(server: Server, tmp_path: Path) -> None:
    """From the commands alone: load, run with a mix of one's own, read the results, prove that nothing was lost."""
    dsn = f"postgresql://postgres@{server.host}:{server.port}/postgres"
    loaded = bench("load", "callingcircle", "--dsn", dsn, "--scale", "small", "--size", "accounts=200")
    assert (loaded.returncode, loaded.stderr) == (0, "")
    assert "with 200 accounts" in loaded.stdout
    mix = tmp_path / "mix.toml"
    mix.write_text("users = 6\n[weights]\nNC = 10\nRC = 90\n")
    directory, xml = tmp_path / "run", tmp_path / "results.xml"
    words = ("--mix", mix, "-di", "UC", "-rt", "0:00.03", "--warm-up", "1", "-intermin", "5", "-intermax", "20")
    ran = bench("run", "callingcircle", "--dsn", dsn, *words, "--directory", directory, "-r", xml, "--check")
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[3] == "Time     TPM      TPS     Users       Response NC    RC"
    assert re.fullmatch(r"\d\d:\d\d:\d\d \d+ +\d+ +\[6/6\] +\d+ +\d+ +\d+", lines[4])
    assert "Completed Run." in lines
    results = json.loads((directory / "results.json").read_text())
    assert [kind["short"] for kind in results["kinds"]] == ["NC", "RC"]
    assert results["transactions"] == sum(kind["transactions"] for kind in results["kinds"]) > 20
    assert 0.5 < results["ended_at"] - results["began_at"] < 3.5
    assert 0 < results["generator_percent"]["pgbench"] < 100
    assert xml.read_bytes() == (directory / "results.xml").read_bytes()
    host = {"PGHOST": server.host, "PGPORT": str(server.port), "PGUSER": "postgres"}
    checked = bench("check", "callingcircle", "--directory", directory, "--json", environment=host)
    assert checked.returncode == 0, checked.stdout
    assert {"name": "clients' ledger", "holds": True} in [
        {name: item[name] for name in ("name", "holds")} for item in json.loads(checked.stdout)
    ]
    victim = "(select min(seq) from cc.ledger where run = {run} and client = 0)".format(run=results["run"])
    run_psql(
        server, [f"--command=delete from cc.ledger where run = {results['run']} and client = 0 and seq = {victim}"]
    )
    damaged = bench("check", "callingcircle", "--dsn", dsn, "--directory", directory)
    assert damaged.returncode == 1
    assert re.search(r"WRONG  clients' ledger .* 1 missing", damaged.stdout)


def test_an_interrupt_ends_a_run_and_keeps_its_results(server: Server, tmp_path: Path) -> None:
    """Ctrl-C: clients finish what they are at, and everything is written down."""
    dsn = f"host={server.host} port={server.port} user=postgres dbname=postgres"
    program = Path(sys.executable).with_name("ldoms-bench")
    words = ["workload", "run", "stresstest", "--dsn", dsn, "-rt", "1h", "-uc", "4", "--rate", "200", "--check"]
    directory = tmp_path / "run"
    with subprocess.Popen(
        [program, *words, "--directory", directory], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while "[4/4]" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "Completed Run, before its time." in output
    assert "0 missing" in output
    results = json.loads((directory / "results.json").read_text())
    assert results["interrupted"]
    assert results["is_complete"]
    assert results["transactions"] > 50


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "orderentry", "--host", "127.0.0.1", "--port", "1"], "the database server does not answer"),
        (["run", "tpcc"], "there is no workload 'tpcc': there are orderentry, saleshistory"),
        (["load", "stresstest", "--size", "sales=5"], "StressTest has no size 'sales', only rows"),
        (["run", "stresstest", "-di", "INS,XYZ"], "StressTest has no transaction XYZ, only INS, UPD, SEL, DEL"),
        (["run", "stresstest", "--mix", "/nowhere"], "/nowhere is no mix of transactions"),
        (["run", "stresstest", "-min", "5", "-max", "2"], "the think times min and max are 5 and 2 ms"),
        (["run", "stresstest", "-r", "/nowhere/x.xml"], "/nowhere/x.xml cannot be written"),
        (["run", "stresstest", "--dsn", "postgresql://h/d", "--host", "h"], "give either --dsn or the parts"),
        (["run", "stresstest", "--dsn", "open sesame"], "this is not a connection string"),
        (["check", "stresstest", "--directory", "/nowhere"], "there is no run of a workload in /nowhere"),
        (["run", "stresstest", "-uc", "500"], "the load could not begin: .*too many clients"),
    ],
    ids=lambda part: part if isinstance(part, str) else " ".join(part),
)
def test_what_cannot_be_is_said_in_a_sentence(words: list[str], said: str, server: Server, tmp_path: Path) -> None:
    """One line, exit status 1, and nothing is left behind."""
    host = {"PGHOST": server.host, "PGPORT": str(server.port), "PGUSER": "postgres", "PGDATABASE": "postgres"}
    directory = tmp_path / "run"
    more = ["--directory", str(directory)] if words[0] == "run" else []
    done = bench(*words, *more, environment=host)
    assert done.returncode == 1
    assert re.fullmatch(rf"ldoms-bench: .*{said}.*\n", done.stderr), done.stderr
    assert not directory.exists()


def test_results_that_cannot_be_written(server: Server) -> None:
    """The place is named, and nothing is started."""
    dsn = f"host={server.host} port={server.port} user=postgres dbname=postgres"
    done = bench("run", "stresstest", "--dsn", dsn, "-rt", "1", "--directory", "/proc/run")
    assert done.returncode == 1
    assert re.fullmatch(r"ldoms-bench: .*'/proc/run.*\n", done.stderr), done.stderr


def test_password_is_not_shown(server: Server, tmp_path: Path) -> None:
    """Not in the results, not in the files of the run, and not in the words of a process."""
    dsn = f"postgresql://postgres:open-sesame@{server.host}:{server.port}/postgres"
    directory = tmp_path / "run"
    done = bench("run", "stresstest", "--dsn", dsn, "-rt", "1", "-uc", "2", "--directory", directory)
    assert done.returncode == 0, done.stderr
    assert "open-sesame" not in done.stdout + done.stderr
    for path in directory.rglob("*"):
        assert path.is_dir() or "open-sesame" not in path.read_text()


DAMAGE = [
    ("orderentry", "update oe.orders set order_total = order_total + 1 where order_id = 7", "order totals"),
    ("orderentry", "delete from oe.order_items where order_id = 8 and line_item = 1", "order items"),
    ("orderentry", "update oe.inventories set quantity_on_hand = quantity_on_hand - 1 where product_id = 9", "stock"),
    ("orderentry", "delete from oe.inventories where (product_id, warehouse_id) = (9, 2)", "stock"),
    (
        "orderentry",
        "update oe.customers set preferred_address = preferred_address + 1 where customer_id = 4",
        "customers' addresses and cards",
    ),
    (
        "orderentry",
        "delete from oe.logon where logon_id = (select min(logon_id) from oe.logon)",
        "rows for each transaction",
    ),
    ("orderentry", "insert into oe.ledger values (1, 1, 1, 'OP')", "rows for each transaction"),
    ("saleshistory", "update sh.sales set amount_sold = amount_sold + 1 where ctid = '(0,1)'", "sales"),
    ("saleshistory", "delete from sh.sales where ctid = '(0,2)'", "rows"),
    ("saleshistory", "update sh.sales set cust_id = 999999 where ctid = '(0,3)'", "references"),
    ("saleshistory", "update sh.products set prod_category = 'x' where prod_id = 1", "answers"),
    *(
        (
            "saleshistory",
            f"update sh.{table} set {column} = 'x' where {column} = (select min({column}) from sh.{table})",
            table,
        )
        for table, column in (
            ("products", "prod_category"),
            ("customers", "city"),
            ("countries", "country_name"),
            ("times", "day_name"),
            ("channels", "channel_class"),
            ("promotions", "promo_name"),
        )
    ),
    (
        "callingcircle",
        "delete from cc.lines where false; delete from cc.ledger where kind = 'NC'",
        "rows for each transaction",
    ),
    (
        "callingcircle",
        "delete from cc.circle_numbers where line_id = 5 and slot = 10 and valid_to = 'infinity'",
        "circles",
    ),
    (
        "callingcircle",
        "update cc.circle_numbers set valid_from = valid_from + interval '1 second' "
        "where line_id = 6 and slot = 1 and valid_to = 'infinity'",
        "history of circles",
    ),
    ("callingcircle", "update cc.lines set updates = updates + 1 where line_id = 7", "updates of lines"),
    (
        "callingcircle",
        "delete from cc.circle_numbers where line_id = 8 and slot = 1 and dial_code_id <> 0",
        "numbers that were set",
    ),
    ("callingcircle", "update cc.accounts set logins = logins - 1 where account_id = 9", "log-ins"),
    (
        "callingcircle",
        "update cc.circle_numbers a set (dial_code_id, number) = (b.dial_code_id, b.number) from cc.circle_numbers b "
        "where (a.line_id, a.slot, b.line_id, b.slot) = (10, 1, 10, 2) and a.valid_to = 'infinity' "
        "and b.valid_to = 'infinity'",
        "rules of circles",
    ),
    ("stresstest", "delete from st.stresstesttable where id = (select min(id) from st.stresstesttable)", "rows"),
    ("stresstest", "update st.ledger set rows = 2 where kind = 'INS'", "rows"),
    ("stresstest", "update st.stresstesttable set aint = aint - 1", "balance"),
    ("stresstest", "update st.stresstesttable set abigvarchar = left(abigvarchar, 5)", "contents"),
    (
        "stresstest",
        "update st.stresstesttable set asmallvarchar = 'x' where id = (select max(id) from st.stresstesttable)",
        "contents",
    ),
]


@pytest.mark.parametrize(("name", "damage", "found_by"), DAMAGE, ids=[f"{name}-{found}" for name, _, found in DAMAGE])
def test_planted_corruption_is_found(name: str, damage: str, found_by: str, server: Server) -> None:
    """Damage that no transaction does is found by the check that is there for it, and named with a count.

    These are the last tests here: they leave the damage behind.
    """
    workload = find_workload(name)
    workload.install(server, SCALES[name])
    for kind in workload.kinds:
        arguments = {"orderentry": "9, 9, 9, 1, 1, 9", "saleshistory": "9", "callingcircle": "9, 9, 9, 1, 9"}
        value(server, f"select {workload.schema}.{kind.function}({arguments.get(name, '9, 9, 9, 9')})")
    assert faults(workload, server) == []
    run_psql(server, [f"--command={damage}"])
    found = {item.name: item for item in workload.check(server) if not item.holds}
    assert found_by in found, found
    assert "wrong" in found[found_by].detail
