"""A database under load moves, and one of its managers is killed over it: every promise to its clients is kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ldoms.bench.ledger import check_ledger
from ldoms.bench.log import LoadResult
from ldoms.bench.pgbench import LoadOptions, LoadRun, ensure_pgbench
from ldoms.bench.server import Server, query
from ldoms.bench.workloads.orderentry import ORDER_ENTRY
from ldoms.lab import images
from ldoms.model.errors import HostError
from support import SOURCE, TARGET, Hosts, Watch, other, wait_until

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
    load = database.load(tmp_path)
    try:
        time.sleep(5)
        done = hosts.migrate(database.name)
        moved_at = time.time()
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert hosts.place(database.name) == [TARGET]
        time.sleep(5)
    finally:
        load.stop()
    result = load.result()
    database.check(result)
    assert any(one.at > moved_at + 1 for one in result.transactions), "nobody was served after the move"
    wait_until(lambda: hosts.reports()[-1]["guest_clock"], 30, "the guest's clock was not looked at")
    clock = hosts.reports()[-1]["guest_clock"]
    assert abs(clock["error_after_s"]) < 0.5, f"the guest's clock is wrong after the move: {clock}"


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
