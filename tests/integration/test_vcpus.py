"""Virtual CPUs of guests that run: they come and go, move along, and can be changed after every move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ldoms.bench.server import Server, query
from ldoms.lab import images
from ldoms.model.errors import HostError
from support import SOURCE, TARGET, Hosts, wait_until


@dataclass
class Database:
    """A PostgreSQL guest, which has the guest agent, and what is needed to ask it."""

    hosts: Hosts
    name: str
    server: Server
    prefix: list[str]
    host: str = SOURCE

    def online(self) -> str:
        """The CPUs that the guest's kernel uses."""
        sql = "select trim(pg_read_file('/sys/devices/system/cpu/online'), E'\\n')"
        return query(self.server, sql, prefix=self.prefix, timeout_s=10)[0][0]

    def answers(self) -> bool:
        try:
            return bool(self.online())
        except HostError:
            return False

    def change(self, command: str, amount: int) -> None:
        self.hosts.ldm(self.host, command, str(amount), self.name)

    def move(self) -> None:
        done = self.hosts.migrate(self.name, self.host)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        self.host = TARGET if self.host == SOURCE else SOURCE

    def given(self) -> tuple[int, list[int]]:
        """How many virtual CPUs it has, and which are parked."""
        view = self.hosts.view(self.host, self.name)
        assert view is not None
        bindings = view["domain"]["bindings"]
        assert view["domain"]["constraints"]["vcpus"] == len(bindings["vcpus"])
        return len(bindings["vcpus"]), list(bindings["parked"])

    def check(self, online: str, vcpus: int, parked: list[int]) -> None:
        assert (self.online(), self.given()) == (online, (vcpus, parked))


@pytest.fixture(scope="module")
def database(hosts: Hosts) -> Iterator[Database]:
    """A guest with two virtual CPUs."""
    images.build("postgres")
    name = hosts.add_guest("postgres")
    try:
        made = Database(hosts, name, Server(hosts.lab.guests[name]), hosts.lab.space("client").command([]))
        hosts.ldm(SOURCE, "start-domain", name)
        wait_until(made.answers, 90, "the database does not answer")
        made.check("0-1", 2, [])
        yield made
    finally:
        hosts.remove_guest(name)


def test_a_guest_moves_after_every_kind_of_change(database: Database) -> None:
    """Added, taken, added again; there and back, and over a restart of the manager."""
    database.change("add-vcpu", 2)
    database.check("0-3", 4, [])
    database.move()
    database.check("0-3", 4, [])
    database.change("remove-vcpu", 3)
    database.check("0", 1, [1, 2, 3])
    database.move()
    database.check("0", 1, [1, 2, 3])
    database.change("add-vcpu", 1)
    database.check("0-1", 2, [2, 3])
    database.hosts.kill_manager(database.host)
    database.hosts.start_manager(database.host)
    database.check("0-1", 2, [2, 3])
    database.move()
    database.change("set-vcpu", 5)
    database.check("0-4", 5, [])
    database.move()
    database.check("0-4", 5, [])
    database.change("set-vcpu", 2)


def test_a_guest_that_boots_again_wakes_nothing_for_long(database: Database) -> None:
    """What was parked is put to sleep as soon as its agent answers."""
    database.change("set-vcpu", 3)
    database.change("set-vcpu", 2)
    (parked, *_) = [database.given()]
    assert parked[0] == 2
    boot = query(database.server, "select pg_postmaster_start_time()", prefix=database.prefix)
    database.hosts.run(database.host, "ldm", "stop-domain", "-r", database.name, check=True)

    def again() -> bool:
        try:
            return query(database.server, "select pg_postmaster_start_time()", prefix=database.prefix) != boot
        except HostError:
            return False

    wait_until(again, 90, "the guest does not boot again")
    wait_until(lambda: database.online() == "0-1", 30, "what was parked is awake")
    assert database.given() == parked


def test_a_policy_follows_the_load(database: Database) -> None:
    """A busy guest gets a virtual CPU and brings it online; when it is idle again it gives it back."""
    hosts, name = database.hosts, database.name

    def stats() -> str:
        return hosts.ldm(database.host, "list", "-o", "stats", "-p", name)

    database.change("set-vcpu", 2)
    limits = ("vcpu-min=2", "vcpu-max=3", "util-lower=70", "util-upper=90", "sample-rate=2")
    hosts.ldm(database.host, "add-policy", "enable=yes", *limits, "name=follow", name)
    try:
        sql = "select count(*) from (select md5(i::text) from generate_series(1, 100000000) i) x"
        busy = [hosts.start("client", "psql", "-h", database.server.host, "-U", "postgres", "-c", sql) for _ in "ab"]
        try:
            wait_until(lambda: database.online() == "0-2", 60, f"no third virtual CPU: {stats()}")
        finally:
            query(
                database.server,
                "select pg_terminate_backend(pid) from pg_stat_activity where query like '%md5%100000000%'"
                " and pid <> pg_backend_pid()",
                prefix=database.prefix,
            )
            for process in busy:
                process.wait(20)
        wait_until(lambda: "|added=1|removed=1|" in stats(), 60, f"it was not given back: {stats()}")
        assert database.online() == "0-1"
    finally:
        hosts.ldm(database.host, "remove-policy", "follow", name)


def test_a_guest_without_an_agent_takes_and_moves(hosts: Hosts) -> None:
    """The tiny guest brings it online by itself; nobody can ask it to give one back."""
    name = hosts.standing_guest()
    hosts.ldm(SOURCE, "add-vcpu", "1", name)
    refused = hosts.run(SOURCE, "ldm", "remove-vcpu", "1", name)
    assert refused.returncode == 1
    assert "run qemu-guest-agent in the guest, or stop the domain first" in refused.stderr
    for host in (SOURCE, TARGET):
        done = hosts.migrate(name, host)
        assert (done.returncode, done.stderr) == (0, "")
    count, errors = hosts.ask(name)
    assert count > 0
    assert errors == 0
    hosts.ldm(SOURCE, "stop-domain", "-f", name)
    hosts.ldm(SOURCE, "set-vcpu", "1", name)
