"""A database under load moves, and one of its managers is killed over it: every promise to its clients is kept."""

from __future__ import annotations

import contextlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from ldoms.bench.database import Snapshot, database_report, take_snapshot
from ldoms.bench.ledger import check_ledger
from ldoms.bench.log import LoadResult
from ldoms.bench.pgbench import LoadOptions, LoadRun, ensure_pgbench
from ldoms.bench.record import RunRecord, Stretch, read_record
from ldoms.bench.server import Server, query
from ldoms.bench.workloads.orderentry import ORDER_ENTRY
from ldoms.lab import images
from ldoms.migration.clock import STEP_ABOVE_S
from ldoms.model.codec import from_wire
from ldoms.model.errors import HostError
from ldoms.model.migration import MigrationReport, Outcome
from ldoms.model.phases import Phase
from support import ADMINISTRATOR, SOURCE, TARGET, Hosts, Watch, other, wait_until

SCALE = {"customers": 200, "warehouses": 20}
LOAD = LoadOptions(clients=10, seconds=120, rate_per_s=10.0)


@dataclass
class Database:
    """A PostgreSQL domain on t4-1, and what is needed to ask it."""

    hosts: Hosts
    name: str
    server: Server
    prefix: list[str]
    pgbench: Path
    run: int = 0

    @property
    def uuid(self) -> str:
        place = self.hosts.place(self.name)[0]
        view = self.hosts.view(place, self.name)
        assert view is not None
        return str(view["domain"]["uuid"])

    def answers(self) -> bool:
        try:
            return query(self.server, "select 1", prefix=self.prefix, timeout_s=5) is not None
        except HostError:
            return False

    def load(self, directory: Path) -> LoadRun:
        """Ten clients that order, each with one connection that is never made again."""
        self.run += 1
        return ORDER_ENTRY.start(self.pgbench, self.server, LOAD, directory / "load", run=self.run, prefix=self.prefix)

    def snapshot(self) -> Snapshot:
        """What it has counted so far."""
        return take_snapshot(self.server, prefix=self.prefix)

    def check_report(self, snapshots: dict[Stretch, tuple[Snapshot, Snapshot]]) -> None:
        """Counters go on over the move: no transaction is missing in them, and none is there twice."""
        migration = from_wire(MigrationReport, self.hosts.reports()[-1])
        report = database_report(self.server, snapshots, prefix=self.prefix, migration=migration)
        tables = {table.title: table for table in report.tables}
        segments = tables["Segments by Row Changes"]
        ledger = next(row for row in segments.rows if row[1] == "ledger")
        counted = [ledger[segments.columns.index(f"{stretch} rows")] for stretch in Stretch]
        (kept,) = query(self.server, f"select count(*) from oe.ledger where run = {self.run}", prefix=self.prefix)[0]
        # Those that were rolled back when the load was stopped, at most one of each client, are counted, too.
        assert int(kept) <= sum(counted) <= int(kept) + LOAD.clients, counted
        assert all(counted), counted
        assert all(changes > 0 for changes in report.block_changes_s.values())
        related = {row[1]: row[3] for row in tables["Block Changes and Dirty Rate"].rows}
        assert related["dirty rate seen by the passes of the migration"] > 0
        assert tables["Top Events by Total Wait Time"].rows, "the guest does not say what it waits for"

    def check(self, result: LoadResult) -> None:
        """What was acknowledged is there, once; nobody's connection was lost."""
        checks = ORDER_ENTRY.check(self.server, prefix=self.prefix)
        assert all(one.holds for one in checks), checks
        ledger = check_ledger(self.server, self.run, result, prefix=self.prefix)
        assert ledger.acknowledged > 0
        assert (ledger.missing, ledger.doubled, ledger.invented) == (0, 0, 0)
        assert result.report.lost_clients == ()


@pytest.fixture(scope="module")
def database(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database with a schema, for all tests here."""
    images.build("postgres")
    name = hosts.add_guest("postgres")
    try:
        made = Database(
            hosts,
            name,
            Server(hosts.lab.guests[name]),
            hosts.lab.space("client").command([]),
            ensure_pgbench(tmp_path_factory.mktemp("pgbench")),
        )
        hosts.ldm(SOURCE, "start-domain", name)
        wait_until(made.answers, 90, "the database does not answer")
        ORDER_ENTRY.install(made.server, SCALE, prefix=made.prefix)
        yield made
    finally:
        hosts.remove_guest(name)


def test_a_busy_database_moves_and_its_clients_keep_their_promises(database: Database, tmp_path: Path) -> None:
    """Nothing that was acknowledged is lost, nothing is there twice, and transactions go on on the other host."""
    hosts = database.hosts
    snapshots = [database.snapshot()]
    load = database.load(tmp_path)
    try:
        time.sleep(5)
        snapshots.append(database.snapshot())
        done = hosts.migrate(database.name)
        moved_at = time.time()
        snapshots.append(database.snapshot())
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert hosts.place(database.name) == [TARGET]
        time.sleep(5)
    finally:
        load.stop()
    snapshots.append(database.snapshot())
    result = load.result()
    database.check(result)
    database.check_report(dict(zip(Stretch, pairwise(snapshots), strict=True)))
    assert any(one.at > moved_at + 1 for one in result.transactions), "nobody was served after the move"
    wait_until(lambda: hosts.reports()[-1]["guest_clock"], 30, "the guest's clock was not looked at")
    clock = hosts.reports()[-1]["guest_clock"]
    assert abs(clock["error_after_s"]) < STEP_ABOVE_S, f"the guest's clock is wrong after the move: {clock}"


@pytest.mark.parametrize(("victim", "gate"), [("source", ""), ("target", "target-taken")])
def test_a_manager_is_killed_over_a_busy_database(database: Database, tmp_path: Path, victim: str, gate: str) -> None:
    """Killed while memory flows, or after the hand-off, and started again: one guest runs, and the ledger is intact."""
    hosts, source = database.hosts, database.hosts.place(database.name)[0]
    load = database.load(tmp_path)
    try:
        time.sleep(5)
        if gate:
            hosts.close_gate(gate)
        with Watch(hosts, database.uuid) as watch:
            command = hosts.start(source, *hosts.migrate_words(database.name, source))
            if gate:
                hosts.wait_at_gate(gate)
            else:
                wait_until(lambda: hosts.progress(source, database.name) >= 10, 60, "the copy does not begin")
            killed = source if victim == "source" else other(source)
            hosts.kill_manager(killed)
            if gate:
                hosts.open_gate(gate)
            hosts.start_manager(killed)
            said = command.wait(90)
            hosts.settle(database.name)
        watch.check()
        time.sleep(3)
    finally:
        load.stop()
    (place,) = hosts.place(database.name)
    assert said == (0 if place != source else 1)
    assert hosts.state(place, database.name) == "active"
    database.check(load.result())


def test_a_run_records_what_everybody_sees(database: Database, tmp_path: Path) -> None:
    """From the command to the record: every clock and every witness is in it, on one axis; nothing goes on after it."""
    hosts, source = database.hosts, database.hosts.place(database.name)[0]
    target = other(source)
    words = run_words(database, source, tmp_path, "--with", "--max-bandwidth 100M")  # for the copy to take a while
    done = subprocess.run(words, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "runs").glob("*/run.json")
    record = read_record(path)
    assert record.id == path.parent.name
    assert "<svg" in (path.parent / "report.html").read_text()
    assert (record.migration.outcome, record.runs_on) == (Outcome.DONE, target)
    assert hosts.place(database.name) == [target]
    assert all(item.holds for item in record.checks), record.checks
    assert {name: value for name, value in record.suspension_ms.items() if not value} == {}, "a clock has said nothing"
    assert set(record.probes) == {"ping", "connect", "sql"}
    assert all(set(by) == set(Stretch) for by in record.probes.values())
    assert all(record.load.windows[one].transactions > 0 for one in (Stretch.BEFORE, Stretch.AFTER))
    assert record.database is not None
    assert "Block Changes and Dirty Rate" in [table.title for table in record.database.tables]
    assert all(changes > 0 for changes in record.database.block_changes_s.values())
    _check_series(record, source, target)
    for sentence in record.findings:
        assert sentence in done.stdout
    left = [process.pid for process in psutil.process_iter() if _belongs_to_run(process, database.name, tmp_path)]
    assert left == []


def _check_series(record: RunRecord, source: str, target: str) -> None:
    names = {(series.group, series.name) for series in record.series}
    for wanted in (
        ("throughput", "transactions"),
        ("latency", "95 %"),
        ("guest-cpu", "cpu1 usr"),
        ("guest-cpu-all", "usr"),
        ("host-cpu", f"{source} vcpu0"),
        ("host-cpu", f"{source} migration"),
        ("host-cpu", f"{target} vcpu0"),
        ("host-cpu", f"{target} emulator"),
        ("migration", "sent"),
        ("probes", "sql"),
    ):
        assert wanted in names, f"{wanted} is not among {sorted(names)}"
    for series in record.series:
        assert list(series.times) == sorted(series.times), series.name
        assert record.measured.begin <= series.times[0], series.name
        assert series.times[-1] <= record.measured.end + 1, series.name
    by_name = {(series.group, series.name): series for series in record.series}
    copy = next(phase for phase in record.migration.phases if phase.name is Phase.COPY)
    sent = by_name["migration", "sent"]
    assert copy.started_at < sent.times[0] <= sent.times[-1] < copy.started_at + copy.seconds + 1
    # The guest's counters have moved with it: its line goes on over the move.
    usr = by_name["guest-cpu", "cpu0 usr"]
    assert usr.times[0] < record.migration.started_at
    assert usr.times[-1] > record.migration.ended_at
    assert all(0 <= value <= 100 for value in usr.values)
    assert max(by_name["host-cpu", f"{source} vcpu0"].values) > 1, "the guest worked, and its threads did not"


def test_a_run_that_is_interrupted_leaves_nothing_behind(database: Database, tmp_path: Path) -> None:
    """In the middle of the copy: the domain stays, no load, no probe and no watch goes on, and there is no record."""
    hosts, source = database.hosts, database.hosts.place(database.name)[0]
    words = run_words(database, source, tmp_path, "--with", "--max-bandwidth 10M")
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_until(lambda: hosts.progress(source, database.name) >= 5, 60, "the copy does not begin")
        run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130, said
    hosts.settle(database.name)
    assert hosts.place(database.name) == [source]
    assert hosts.state(source, database.name) == "active"
    left = [process.pid for process in psutil.process_iter() if _belongs_to_run(process, database.name, tmp_path)]
    assert left == []
    assert not list(tmp_path.glob("runs/*/run.json"))


def run_words(database: Database, source: str, build: Path, *more: str) -> list[str]:
    """A run as it is typed, small."""
    programs, lab = Path(sys.executable).parent, database.hosts.lab
    target = other(source)
    places = {"source": source, "target": target, "client": "client"}
    words = [str(programs / "ldoms-bench"), "run", "--domain", database.name, "--to", f"{ADMINISTRATOR}@{target}"]
    for option, place in places.items():
        inside = [str(programs / "ldoms-lab"), "--lab", lab.name, "exec", place, "--"]
        words += [f"--on-{option}", shlex.join(inside)]
    words += ["-p", str(lab.password_file), "--dsn", f"host={database.server.host} user=postgres dbname=bench"]
    words += ["--workload", "orderentry", "--users", "5", "--rate", "5", "--build", str(build)]
    return [*words, "--warm-up", "2", "--before", "5", "--after", "6", *more]


def _belongs_to_run(process: psutil.Process, domain: str, build: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        # By its full path: labs of other checkouts, whose domains have the same names, may be up meanwhile.
        watch = [str(Path(sys.executable).with_name("ldoms-bench")), "watch", domain]
        return any(str(build) in word for word in words) or words[-3:] == watch
    return False


def test_the_database_is_shut_down_by_its_own_wish(database: Database) -> None:
    """stop-domain asks the guest, and it stops its server before it switches off: the next start needs no recovery."""
    hosts = database.hosts
    (place,) = hosts.place(database.name)
    assert hosts.ldm(place, "stop-domain", database.name) == f"LDom {database.name} stopped\n"
    assert hosts.state(place, database.name) == "bound"
    hosts.ldm(place, "start-domain", database.name)
    wait_until(database.answers, 90, "the database does not answer")
    log = query(database.server, "select pg_read_file('/var/log/postgresql/postgresql.log')", prefix=database.prefix)
    last_start = str(log).rpartition("starting PostgreSQL")[2]
    assert "database system was shut down at" in last_start
    assert "not properly shut down" not in last_start
