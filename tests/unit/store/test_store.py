"""What a host remembers: durable when it is written, whole or not at all, and read again after a restart."""

from __future__ import annotations

import json
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from ldoms.model.codec import to_wire
from ldoms.model.configuration import Configuration
from ldoms.model.domain import Constraints, Domain
from ldoms.model.errors import AlreadyExists, HostError, NotFound
from ldoms.model.events import CommandRecord, EventKind
from ldoms.model.migration import MigrationOptions, MigrationRecord, MigrationReport, Outcome, Role
from ldoms.model.operation import Operation, OperationStatus
from ldoms.model.ownership import Ownership, OwnerState, Verdict
from ldoms.model.phases import Phase
from ldoms.model.services import Services, VirtualSwitch
from ldoms.store import Store, StoreFailed, sqlite


def domain(name: str, order: int = 0) -> Domain:
    return Domain(uuid=f"uuid-{name}", name=name, mac="00:14:4f:f8:00:01", hostid="0x84f80001", order=order)


def migration(identity: str, started_at: float = 1.0, *, settled: bool = False) -> MigrationRecord:
    report = MigrationReport(
        identity, "ldg1", "ldg1", "uuid-ldg1", "t4-1", "t4-2", "root", True, Outcome.UNDER_WAY, started_at
    )
    return MigrationRecord(
        *(identity, Role.SOURCE, "uuid-ldg1", "ldg1", "t4-2", "", "", 1, Phase.COPY, 2.0),
        MigrationOptions("t4-2"),
        report,
        settled=settled,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ldoms.db"


def test_everything_is_there_after_a_restart(path: Path) -> None:
    """Domains, services, ownership, verdicts, the journal, operations, events and commands."""
    store = Store(path)
    operation = Operation("o", "migrate-domain", "ldg1", "root", 1.0, OperationStatus.FAILURE, error={"code": "x"})
    store.put_domain(domain("ldg1"))
    store.put_services(Services(switches=(VirtualSwitch("vsw0", 0, "00:14:4f:f8:00:02"),)))
    store.put_ownership(Ownership("uuid-ldg1", 3, OwnerState.HANDING_OFF, "m"))
    store.put_verdict("m", Verdict.TAKEN)
    store.put_migration(migration("m"))
    store.put_operation(operation)
    event = store.add_event(5.0, EventKind.DOMAIN_STARTED, "ldg1", {"seconds": 1})
    store.add_command(CommandRecord(6.0, "root", "ldm start-domain ldg1", True))
    store.add_command(CommandRecord(7.0, "root", "ldm migrate-domain ldg1 t4-2", True, ("o",)))
    store.put_operation(replace(operation, id="p", status=OperationStatus.RUNNING))
    store.add_command(CommandRecord(8.0, "root", "ldm stop-domain ldg1", True, ("p",)))
    store.put_operation(replace(operation, id="q", status=OperationStatus.SUCCESS))
    for others in ((), ("p",), ("p", "o")):
        store.extend_command(store.add_command(CommandRecord(9.0, "root", "ldm stop -a", True, ("q",))), others)
    store.close()
    store = Store(path)
    assert store.domains() == (domain("ldg1"),)
    assert store.services().switch("vsw0").id == 0
    assert store.ownership("uuid-ldg1") == Ownership("uuid-ldg1", 3, OwnerState.HANDING_OFF, "m")
    assert store.verdict("m") is Verdict.TAKEN
    assert store.migration("m") == migration("m")
    assert store.operation("o") == operation
    assert store.events() == (event,)
    assert store.commands()[0].command == "ldm start-domain ldg1"
    assert [record.succeeded for record in store.commands()] == [True, False, None, True, None, False], (
        "by what became of the operation"
    )


def test_a_commit_waits_for_the_disk(path: Path) -> None:
    """The whole hand-off stands on it (SQLite: FULL is 2)."""
    store = Store(path)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_changes_are_made_together_or_not_at_all(path: Path) -> None:
    """A crash between two of them leaves neither."""
    store = Store(path)

    def crash_in_between() -> None:
        with store.transaction():
            store.put_ownership(Ownership("uuid-ldg1", 3, OwnerState.GONE, "m"))
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        crash_in_between()
    assert store.ownership("uuid-ldg1") is None
    assert store.domains() == ()
    with store.transaction(), store.transaction():
        store.put_domain(domain("ldg1"))
    assert store.domains() == (domain("ldg1"),)


def test_domains_are_listed_in_the_order_in_which_they_were_made(path: Path) -> None:
    """And a change keeps a domain's place."""
    store = Store(path)
    for name in ("primary", "b", "a"):
        store.put_domain(domain(name, store.next_position()))
    store.put_domain(replace(store.domain("b"), constraints=Constraints(vcpus=4)))
    assert [one.name for one in store.domains()] == ["primary", "b", "a"]
    assert store.domain("b").constraints.vcpus == 4
    store.delete_domain("uuid-b")
    assert store.domain_by_uuid("uuid-b") is None
    with pytest.raises(NotFound, match="LDom b was not found"):
        store.domain("b")


def test_two_domains_cannot_have_one_name(path: Path) -> None:
    """The second one is refused, and the first stays."""
    store = Store(path)
    store.put_domain(domain("ldg1"))
    with pytest.raises(AlreadyExists, match="LDom ldg1 already exists"):
        store.put_domain(replace(domain("ldg1"), uuid="another"))
    assert store.domain("ldg1").uuid == "uuid-ldg1"


def test_unsettled_migrations_are_found(path: Path) -> None:
    """Oldest first: a restart goes on with them in that order."""
    store = Store(path)
    store.put_migration(migration("later", 9.0))
    store.put_migration(migration("earlier", 3.0))
    store.put_migration(migration("over", 1.0, settled=True))
    assert [record.id for record in store.migrations(unsettled=True)] == ["earlier", "later"]
    assert [record.id for record in store.migrations()] == ["over", "earlier", "later"]


def test_old_events_make_room(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file does not grow for ever, and their numbers are never used again."""
    monkeypatch.setattr(sqlite, "KEPT_EVENTS", 5)
    store = Store(path)
    for number in range(8):
        store.add_event(float(number), EventKind.DOMAIN_STARTED, "ldg1", {})
    assert [event.sequence for event in store.events()] == [4, 5, 6, 7, 8]
    assert [event.sequence for event in store.events(after=6, limit=1)] == [7]


def test_a_store_of_a_newer_version_is_left_alone(path: Path) -> None:
    """One sentence says what to do, and nothing is changed."""
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    with pytest.raises(HostError, match=r"written by a newer ldmd .schema 99, this one knows 3") as caught:
        Store(path)
    assert caught.value.code == "store-too-new"


def test_an_old_store_is_brought_up_to_date(path: Path) -> None:
    """What the first version has written is all there, and what came later can be used."""
    with sqlite3.connect(path) as db:
        db.executescript(sqlite._SCHEMA)
        db.execute("INSERT INTO meta VALUES ('schema', '1')")
        db.execute("INSERT INTO domains VALUES (?, ?, ?, ?)", ("u", "ldg1", 0, json.dumps(to_wire(domain("ldg1")))))
    for _ in range(2):
        store = Store(path)
        assert [known.name for known in store.domains()] == ["ldg1"]
        assert store.configurations() == ()
        assert store.recall("schema") == str(sqlite.SCHEMA_VERSION)
        store.close()


def test_configurations_and_single_facts_are_kept(path: Path) -> None:
    """A configuration and the autosave of its name are two things; an empty fact is none."""
    store = Store(path)
    saved = Configuration("mine", 2.0, (domain("ldg1"),), Services())
    store.put_configuration(replace(saved, name="later", saved_at=3.0))
    store.put_configuration(saved)
    store.put_configuration(replace(saved, domains=()), autosaved=True)
    store.remember("boot-id", "one")
    store.remember("next", "mine")
    store.remember("next", "")
    store.close()
    store = Store(path)
    assert [known.name for known in store.configurations()] == ["mine", "later"]
    assert store.configuration("mine") == saved
    assert store.configuration("mine", autosaved=True) == replace(saved, domains=())
    store.delete_configuration("mine", autosaved=True)
    assert store.configuration("mine", autosaved=True) is None
    assert store.configuration("mine") == saved
    assert (store.recall("boot-id"), store.recall("next"), store.recall("never")) == ("one", "", "")


@pytest.mark.parametrize("content", [b"this is not a database, and longer than its head" * 40, b""])
def test_a_file_that_is_no_store_is_named(path: Path, content: bytes) -> None:
    """An empty one is a new store; anything else is an error that names the file."""
    path.write_bytes(content)
    if not content:
        assert Store(path).domains() == ()
        return
    with pytest.raises(HostError, match=f"the store {path} cannot be opened") as caught:
        Store(path)
    assert caught.value.code == "store-broken"
    assert path.read_bytes() == content


def test_what_is_taken_back_was_never_there(path: Path) -> None:
    """Domains and services are kept in memory, too: a transaction that fails leaves nothing of itself there."""
    store = Store(path)
    store.put_domain(domain("ldg1"))
    store.put_services(Services(switches=(VirtualSwitch("vsw0", 0, "00:14:4f:f8:00:02"),)))
    with suppress(ZeroDivisionError), store.transaction():
        store.put_domain(replace(domain("ldg1"), name="renamed"))
        store.put_domain(domain("ldg2", 1))
        store.put_services(Services())
        assert [known.name for known in store.domains()] == ["renamed", "ldg2"]
        raise ZeroDivisionError
    assert store.domains() == (domain("ldg1"),)
    assert store.domain_by_uuid("uuid-ldg2") is None
    assert store.services().switch("vsw0").id == 0
    with suppress(ZeroDivisionError), store.transaction():
        store.delete_domain("uuid-ldg1")
        raise ZeroDivisionError
    assert store.domain("ldg1") == domain("ldg1")


def test_what_is_read_is_what_a_restart_reads(path: Path) -> None:
    """Also of a value whose numbers are of another type than the model says."""
    store = Store(path)
    store.put_domain(replace(domain("ldg1"), started_at=7))
    before = store.domain("ldg1")
    store.close()
    after = Store(path).domain("ldg1")
    assert before == after
    assert type(before.started_at) is type(after.started_at) is float


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """The kernel lets no file of this process grow beyond what the store's log has now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name(f"{path.name}-wal").stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def put_together(store: Store, one: Domain) -> None:
    with store.transaction():
        store.put_domain(one)
        store.put_ownership(Ownership(one.uuid, 1, OwnerState.OWNER, "m"))


def test_a_full_disk_takes_nothing_and_spoils_nothing(tmp_path: Path) -> None:
    """What could not be written is an error and is not there; what is written later is, in the file, too."""
    path = tmp_path / "ldoms.db"
    store = Store(path)
    store.put_domain(domain("ldg1"))
    with full_disk(path):
        for _ in range(2):
            with pytest.raises(StoreFailed) as caught:
                put_together(store, domain("ldg2", 1))
            assert caught.value.code == "store-failed"
        with pytest.raises(StoreFailed):
            store.put_verdict("m", Verdict.TAKEN)
        assert [known.name for known in store.domains()] == ["ldg1"]
    with store.transaction():
        store.put_domain(domain("ldg3", 2))
    other = Store(path)
    assert [known.name for known in other.domains()] == ["ldg1", "ldg3"]
    assert (other.ownership("uuid-ldg2"), other.verdict("m")) == (None, None)
