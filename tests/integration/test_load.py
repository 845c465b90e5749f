"""OrderEntry, its load, its ledger and the probes, against a real PostgreSQL on the loopback address."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from ldoms.bench.figures import Window, window_figures
from ldoms.bench.ledger import check_ledger, compare, read_rows
from ldoms.bench.log import LoadResult
from ldoms.bench.pgbench import LoadOptions, Script, fetch_pgbench, find_pgbench, start_load
from ldoms.bench.probe import Ending, line_counters, probe_figures, sql_record, start_probe, start_sql_probe
from ldoms.bench.server import Server, run_psql
from ldoms.bench.workloads import default_weights
from ldoms.bench.workloads.orderentry import ORDER_ENTRY
from ldoms.model.errors import HostError
from postgresql import PostgreSQL, free_port, numbers, running_postgresql, value

SCALE = {"customers": 1000, "warehouses": 10}


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    with running_postgresql() as instance:
        yield instance


@pytest.fixture(scope="module")
def server(postgresql: PostgreSQL) -> Server:
    ORDER_ENTRY.install(postgresql.server, SCALE)
    return postgresql.server


@pytest.fixture(scope="module")
def pgbench() -> Path:
    return find_pgbench()


KINDS = {kind.short: kind.function for kind in ORDER_ENTRY.kinds}


def wrong_totals(server: Server) -> int:
    return int(value(server, "select oe.wrong_totals()"))


def count(table: str) -> str:
    return f"(select count(*) from oe.{table})"


def test_data_is_of_the_size_asked_for(server: Server) -> None:
    """Tables have the rows that the scale promises, totals are right, and the scale can be read back."""
    tables = ("customers", "addresses", "card_details", "orders", "warehouses", "products", "inventories", "ledger")
    assert numbers(server, *map(count, tables)) == [1000, 1500, 1500, 1500, 10, 1000, 10_000, 0]
    assert ORDER_ENTRY.read_scale(server) == SCALE
    assert wrong_totals(server) == 0


def test_same_data_each_time(server: Server) -> None:
    """Loading again replaces what was there by the same rows."""
    digest = "select md5(string_agg(t::text, ';' order by order_id)) from oe.orders t"
    people = "select md5(string_agg(t::text, ';' order by customer_id)) from oe.customers t"
    before = [value(server, sql) for sql in (digest, people)]
    ORDER_ENTRY.install(server, SCALE)
    assert [value(server, sql) for sql in (digest, people)] == before


def call(server: Server, kind: str, seq: int, *, customer: int = 7, warehouse: int = 3, seed: int = 42) -> str:
    return value(server, f"select oe.{KINDS[kind]}(1, 0, {seq}, {customer}, {warehouse}, {seed})")


CHANGES = {
    "NCR": {"customers": 1, "addresses": 1, "card_details": 1, "logon": 1},
    "UCD": {"addresses": 1},
    "BP": {},
    "OP": {"orders": 1, "logon": 1},
    "PO": {},
    "BO": {"logon": 1},
    "SQ": {},
    "WQ": {},
    "WA": {},
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_transaction_adds_its_rows(server: Server, kind: str) -> None:
    """A transaction adds the rows it should and no others, and exactly one to the ledger."""
    tables = ("customers", "addresses", "card_details", "orders", "order_items", "logon", "ledger")
    before = numbers(server, *map(count, tables))
    seq = 100 + list(KINDS).index(kind)
    call(server, kind, seq)
    after = numbers(server, *map(count, tables))
    added = {table: now - then for table, then, now in zip(tables, before, after, strict=True) if now != then}
    items = added.pop("order_items", 0)
    assert items in ((2, 3) if kind == "OP" else (0,))
    assert added == {**CHANGES[kind], "ledger": 1}
    assert value(server, f"select kind from oe.ledger where run = 1 and client = 0 and seq = {seq}") == kind


def test_registered_customer_is_whole(server: Server) -> None:
    """A new customer has the address and the card that it prefers."""
    customer = call(server, "NCR", 200)
    joined = f"""select count(*) from oe.customers c
        join oe.addresses a on (a.address_id, a.customer_id) = (c.preferred_address, c.customer_id)
        join oe.card_details d on (d.card_id, d.customer_id) = (c.preferred_card, c.customer_id)
        where c.customer_id = {customer}"""
    assert int(customer) > SCALE["customers"]
    assert value(server, joined) == "1"


def test_customer_moves_house(server: Server) -> None:
    """The new address becomes the preferred one of exactly one customer."""
    address = call(server, "UCD", 201)
    assert value(server, f"select count(*) from oe.customers where preferred_address = {address}") == "1"


def test_browsing_changes_nothing(server: Server) -> None:
    """Looking at products leaves stock as it was."""
    stock = "select sum(quantity_on_hand) from oe.inventories"
    before = value(server, stock)
    assert 1 <= int(call(server, "BP", 202)) <= 24
    assert value(server, stock) == before


def test_order_takes_from_stock(server: Server) -> None:
    """What an order has in pieces is what its warehouse has less, and its total is the sum of its items."""
    stock = "select sum(quantity_on_hand) from oe.inventories where warehouse_id = 5"
    before = int(value(server, stock))
    order = call(server, "OP", 203, customer=11, warehouse=5)
    ordered = numbers(
        server,
        f"(select sum(quantity) from oe.order_items where order_id = {order})",
        f"(select count(*) from oe.orders where order_id = {order} and customer_id = 11 and order_total > 0)",
    )
    assert ordered == [before - int(value(server, stock)), 1]
    assert wrong_totals(server) == 0


def test_warehouse_processes_an_order(server: Server) -> None:
    """An order that waited is no longer waiting; when none waits, there is none to process."""
    waiting = "select count(*) from oe.orders where warehouse_id = 4 and order_status <= 4"
    before = int(value(server, waiting))
    order = call(server, "PO", 204, warehouse=4)
    assert int(value(server, waiting)) == before - 1
    assert value(server, f"select warehouse_id from oe.orders where order_id = {order} and order_status >= 5") == "4"
    assert call(server, "PO", 205, warehouse=999_999) == ""


def test_browsed_order_grows(server: Server) -> None:
    """One item has one piece more, and the total follows; a customer without orders changes nothing."""
    pieces = "select sum(quantity) from oe.order_items"
    before = int(value(server, pieces))
    order = call(server, "BO", 206, customer=12)
    assert value(server, f"select customer_id from oe.orders where order_id = {order}") == "12"
    assert int(value(server, pieces)) == before + 1
    assert wrong_totals(server) == 0
    newcomer = call(server, "NCR", 207)
    assert call(server, "BO", 208, customer=int(newcomer)) == ""


def test_same_seed_same_choice(server: Server) -> None:
    """What a transaction chooses follows from its arguments."""
    assert call(server, "BP", 209, seed=1) == call(server, "BP", 210, seed=1)


@pytest.fixture(scope="module")
def long_run(server: Server, pgbench: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadResult:
    """Ten seconds of 20 clients at full speed, number 10 in the ledger."""
    directory = tmp_path_factory.mktemp("load") / "run"
    run = ORDER_ENTRY.start(pgbench, server, LoadOptions(clients=20, seconds=10), directory, run=10)
    result = run.result()
    assert len(run.progress()) >= 8
    return result


def test_every_acknowledged_transaction_is_in_the_ledger_once(server: Server, long_run: LoadResult) -> None:
    """After ten seconds at full speed log and ledger agree line by line, and no transaction met a deadlock."""
    found = check_ledger(server, 10, long_run)
    assert found.is_clean, found
    assert found.log_is_complete
    assert found.acknowledged == found.rows > 200
    assert found.in_doubt == 0
    assert (long_run.report.failed, long_run.report.aborted_clients) == (0, ())
    assert value(server, "select deadlocks from pg_stat_database where datname = 'postgres'") == "0"
    assert wrong_totals(server) == 0
    assert {one.kind for one in long_run.transactions} == set(default_weights(ORDER_ENTRY))
    assert {one.client for one in long_run.transactions} == set(range(20))


def test_figures_agree_with_pgbench(long_run: LoadResult) -> None:
    """Our figures over the whole run are pgbench's own."""
    first, last = long_run.transactions[0], long_run.transactions[-1]
    figures = window_figures(long_run.transactions, Window(first.at - first.latency_s, last.at + 1e-6))
    assert figures.transactions == long_run.report.processed
    assert figures.tps == pytest.approx(long_run.report.tps, rel=0.02)
    assert figures.latency == figures.service
    assert figures.longest_gap.seconds < 5


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("delete from oe.ledger where run = 10 and (client, seq) in ((3, 5), (4, 1))", (2, 0, 0)),
        (
            "insert into oe.ledger select * from oe.ledger where run = 10 and (client, seq) in ((3, 6), (8, 2))",
            (0, 2, 0),
        ),
        ("insert into oe.ledger values (10, 2, 999999, 'OP'), (10, 77, 3, 'BP')", (0, 0, 2)),
        ("update oe.ledger set seq = seq + 500000 where run = 10 and (client, seq) = (1, 1)", (1, 0, 1)),
    ],
)
def test_planted_damage_is_found(
    server: Server, long_run: LoadResult, damage: str, expected: tuple[int, int, int]
) -> None:
    """Rows deleted, doubled, made up or renumbered in the database are found, each as what it is."""
    run_psql(server, ["--command=create table oe.kept as select * from oe.ledger"])
    try:
        run_psql(server, [f"--command={damage}"])
        found = check_ledger(server, 10, long_run)
        assert (found.missing, found.doubled, found.invented) == expected
    finally:
        run_psql(server, ["--command=truncate oe.ledger; insert into oe.ledger table oe.kept; drop table oe.kept"])


def test_planted_wrong_total_is_found(server: Server) -> None:
    """An order whose total is not the sum of its items is counted."""
    run_psql(server, ["--command=update oe.orders set order_total = order_total + 1 where order_id in (3, 4)"])
    assert wrong_totals(server) == 2
    run_psql(server, ["--command=update oe.orders set order_total = order_total - 1 where order_id in (3, 4)"])


@pytest.mark.parametrize("prefix", [[], ["sh", "-c", '"$@"; exit $?', "sh"]], ids=["plain", "wrapped"])
def test_load_can_be_stopped_at_once(server: Server, pgbench: Path, tmp_path: Path, prefix: Sequence[str]) -> None:
    """Stopped in mid-run, also behind a program of its own process, pgbench loses nothing of its log."""
    number = 20 + len(prefix)
    options = LoadOptions(clients=10, seconds=300, rate_per_s=200)
    load = ORDER_ENTRY.start(pgbench, server, options, tmp_path / "run", run=number, prefix=prefix)
    try:
        time.sleep(2.0)
        began = time.monotonic()
        load.stop()
        assert time.monotonic() - began < 3.0
    finally:
        load.kill()
    result = load.result()
    assert result.is_complete
    found = check_ledger(server, number, result)
    assert found.is_clean, found
    assert found.acknowledged > 100
    assert any(one.lag_s > 0 for one in result.transactions)


def test_load_that_was_killed_says_so(server: Server, pgbench: Path, tmp_path: Path) -> None:
    """Without the end of its log nothing is called invented, and the result says that it is not complete."""
    load = ORDER_ENTRY.start(pgbench, server, LoadOptions(clients=4, seconds=60), tmp_path / "run", run=30)
    wait_for(lambda: any((tmp_path / "run").glob("transactions.*")) and load.progress(), "no progress")
    load.kill()
    result = load.result()
    assert not result.is_complete
    found = check_ledger(server, 30, result)
    assert found.is_clean, found
    assert not found.log_is_complete


def test_load_without_a_server(pgbench: Path, tmp_path: Path) -> None:
    """A server that cannot be reached is named, before anything is started."""
    with pytest.raises(HostError, match=r"does not answer: .*127\.0\.0\.1.*Connection refused") as caught:
        ORDER_ENTRY.start(pgbench, Server("127.0.0.1", 1), LoadOptions(seconds=5), tmp_path / "run", run=1)
    assert caught.value.code == "no-server"
    load = start_load(pgbench, Server("127.0.0.1", 1), [Script("one", "select 1;")], LoadOptions(), tmp_path / "run")
    with pytest.raises(HostError, match="Connection refused") as caught:
        load.result()
    assert caught.value.code == "load-failed"


def test_crash_of_the_server_loses_nothing_acknowledged(
    postgresql: PostgreSQL, server: Server, pgbench: Path, tmp_path: Path
) -> None:
    """After a crash in mid-run every acknowledged transaction is there, and each lost connection is counted."""
    options = LoadOptions(clients=20, seconds=60)
    load = ORDER_ENTRY.start(pgbench, server, options, tmp_path / "run", run=40)
    try:
        wait_for(lambda: len(load.progress()) >= 3, "no progress")
        postgresql.stop()
        result = load.result(timeout_s=20)
    finally:
        load.kill()
        postgresql.start()
    assert result.is_complete
    assert result.report.lost_clients == result.report.aborted_clients == tuple(range(20))
    found = check_ledger(server, 40, result)
    assert found.is_clean, found
    assert found.acknowledged > 100
    assert found.in_doubt <= 20
    assert wrong_totals(server) == 0


def test_one_lost_connection_is_counted(server: Server, pgbench: Path, tmp_path: Path) -> None:
    """The other clients go on when one connection is lost."""
    load = ORDER_ENTRY.start(pgbench, server, LoadOptions(clients=5, seconds=4), tmp_path / "run", run=50)
    wait_for(lambda: len(load.progress()) >= 1, "no progress")
    victim = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgbench' limit 1"
    assert value(server, victim) == "t"
    result = load.result()
    assert len(result.report.lost_clients) == 1
    assert compare(result.transactions, read_rows(server, 50)).is_clean
    assert len({one.client for one in result.transactions if one.at > result.transactions[-1].at - 1}) == 4


def test_sql_probe(server: Server, pgbench: Path, tmp_path: Path) -> None:
    """A SQL client that asks every 5 ms is read like any other probe."""
    load = start_sql_probe(pgbench, server, tmp_path / "probe")
    wait_for(lambda: len(load.progress()) >= 2, "no progress")
    load.stop()
    record = sql_record(load.result(), target="database")
    figures = probe_figures(record, Window(record.began_at, record.ended_at))
    assert 0.005 <= figures.median_gap_s < 0.03
    assert (figures.lost, figures.connection_lost) == (0, False)
    assert figures.answers > 50


def wait_for(condition: Callable[[], object], message: str, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.05)


class LineServer:
    """Answers lines as the guest's service does, and pauses or hangs up when told to."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.pause_s = 0.0
        self.paused_at = 0.0
        self.hang_up = False
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rw") as lines:
            for counter, line in enumerate(lines):
                if self.hang_up:
                    return
                if self.pause_s:
                    self.paused_at = time.time()
                    time.sleep(self.pause_s)
                    self.pause_s = 0.0
                lines.write(f"{line.strip()} count={counter} errors=0\n")
                lines.flush()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


@pytest.fixture
def lines() -> Iterator[LineServer]:
    line_server = LineServer()
    try:
        yield line_server
    finally:
        line_server.close()


def test_line_probe_finds_a_planted_pause(lines: LineServer, tmp_path: Path) -> None:
    """A pause of 300 ms is the longest gap, at the right time, and its answer comes; nothing is lost."""
    run = start_probe("tcp", "127.0.0.1", tmp_path / "probe.jsonl", port=lines.port, seconds=30)
    try:
        run.wait_until_begun()
        time.sleep(0.5)
        lines.pause_s = 0.3
        time.sleep(1.0)
    finally:
        run.stop()
    record = run.result()
    figures = probe_figures(record, Window(record.began_at, record.ended_at))
    assert record.ending is Ending.STOPPED
    assert 0.3 <= figures.longest_gap.seconds < 0.4
    assert figures.longest_gap.at == pytest.approx(lines.paused_at, abs=0.05)
    assert 0.004 < figures.median_gap_s < 0.02
    assert (figures.lost, figures.connection_lost, record.wrong_answers) == (0, False, 0)
    assert line_counters(record.exchanges[9].answer) == {"count": 9, "errors": 0}


def test_line_probe_reports_a_lost_connection(lines: LineServer, tmp_path: Path) -> None:
    """It does not connect again: the loss is in the record, with the question that had no answer."""
    run = start_probe("tcp", "127.0.0.1", tmp_path / "probe.jsonl", port=lines.port, seconds=30)
    try:
        run.wait_until_begun()
        lines.hang_up = True
        wait_for(lambda: not run.is_running, "it went on")
    finally:
        run.stop()
    record = run.result()
    assert record.ending is Ending.LOST
    assert record.exchanges[-1].answered_at is None
    assert "closed the connection" in record.error


def test_line_probe_that_finds_nobody(tmp_path: Path) -> None:
    """A probe without a peer says what it met."""
    run = start_probe("tcp", "127.0.0.1", tmp_path / "probe.jsonl", port=free_port(), seconds=30)
    with pytest.raises(HostError, match="Connection refused"):
        run.wait_until_begun()
    run.stop()


def test_probe_ends_by_its_time(lines: LineServer, tmp_path: Path) -> None:
    """It needs nobody to end it."""
    run = start_probe("tcp", "127.0.0.1", tmp_path / "probe.jsonl", port=lines.port, interval_s=0.05, seconds=1.0)
    record = run.result()
    assert record.ending is Ending.TIME
    assert record.ended_at - record.began_at == pytest.approx(1.0, abs=0.3)
    assert 10 <= len(record.exchanges) <= 21


def test_connection_probe_finds_a_service_that_is_away(tmp_path: Path) -> None:
    """While nobody listens connections are refused, and that time is the longest gap; the probe goes on."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    run = start_probe("connect", "127.0.0.1", tmp_path / "probe.jsonl", port=port, interval_s=0.02, seconds=30)
    try:
        run.wait_until_begun()
        time.sleep(0.5)
        listener.close()
        away_at = time.time()
        time.sleep(0.3)
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        time.sleep(0.5)
    finally:
        run.stop()
        listener.close()
    record = run.result()
    figures = probe_figures(record, Window(record.began_at, away_at + 0.8))
    assert record.ending is Ending.STOPPED
    assert 0.29 <= figures.longest_gap.seconds < 0.5
    assert figures.longest_gap.at == pytest.approx(away_at, abs=0.1)
    assert [one.seq for one in record.exchanges] == list(range(1, len(record.exchanges) + 1)), "each has its line"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a network namespace and cut its link")
def test_echo_probe_finds_a_cut(tmp_path: Path) -> None:
    """In a namespace whose link is cut for 300 ms, that is the longest gap, and the requests of it are lost."""
    up = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    run = start_probe("icmp", "127.0.0.1", tmp_path / "probe.jsonl", seconds=30, prefix=up)
    try:
        run.wait_until_begun()
        time.sleep(0.5)
        inside = ["nsenter", f"--net=/proc/{run.pid}/ns/net", "sh", "-c"]
        subprocess.run([*inside, "ip link set lo down; sleep 0.3; ip link set lo up"], check=True, timeout=10)
        time.sleep(1.5)
    finally:
        run.stop()
    record = run.result()
    figures = probe_figures(record, Window(record.began_at, record.ended_at))
    assert 0.3 <= figures.longest_gap.seconds < 0.6
    assert 20 <= figures.lost <= 120
    assert 0.003 < figures.median_gap_s < 0.02


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="not a machine with Debian packages")
def test_pgbench_is_fetched_without_a_server_package(tmp_path: Path) -> None:
    """Where there is no server package and no wrapper that works, pgbench comes out of a package into the cache."""
    empty = tmp_path / "empty"
    empty.mkdir()
    find = partial(find_pgbench, tmp_path / "cache", server_programs=empty, search_path=str(empty))
    with pytest.raises(HostError):
        find()
    try:
        fetched = fetch_pgbench(tmp_path / "cache")
    except HostError as error:
        if "apt-get" in error.message:
            pytest.skip(f"the package sources do not answer: {error.message}")
        raise
    assert find() == fetched == tmp_path / "cache/tools/pgbench"
    assert [path.name for path in fetched.parent.iterdir()] == ["pgbench"]
