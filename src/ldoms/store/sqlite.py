"""The store of a host: one SQLite file, in which a commit has reached the disk before it returns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ldoms.model.codec import from_wire, to_wire
from ldoms.model.configuration import Configuration
from ldoms.model.domain import Domain
from ldoms.model.errors import AlreadyExists, HostError, NotFound
from ldoms.model.events import CommandRecord, Event, EventKind
from ldoms.model.migration import MigrationRecord
from ldoms.model.operation import Operation, OperationStatus
from ldoms.model.ownership import Ownership, OwnerState, Verdict
from ldoms.model.services import Services

T = TypeVar("T")

SCHEMA_VERSION = 3
KEPT_EVENTS = 10_000
KEPT_COMMANDS = 1_000
KEPT_OPERATIONS = 1_000

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE domains (uuid TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, position INTEGER NOT NULL,
                      document TEXT NOT NULL) STRICT;
CREATE TABLE services (id INTEGER PRIMARY KEY CHECK (id = 1), document TEXT NOT NULL) STRICT;
CREATE TABLE ownerships (uuid TEXT PRIMARY KEY, epoch INTEGER NOT NULL, state TEXT NOT NULL,
                         migration TEXT NOT NULL) STRICT;
CREATE TABLE verdicts (migration TEXT PRIMARY KEY, verdict TEXT NOT NULL) STRICT;
CREATE TABLE migrations (id TEXT PRIMARY KEY, uuid TEXT NOT NULL, settled INTEGER NOT NULL, started_at REAL NOT NULL,
                         document TEXT NOT NULL) STRICT;
CREATE TABLE operations (id TEXT PRIMARY KEY, started_at REAL NOT NULL, document TEXT NOT NULL) STRICT;
CREATE TABLE events (sequence INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL,
                     domain TEXT NOT NULL, data TEXT NOT NULL) STRICT;
CREATE TABLE commands (number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, user TEXT NOT NULL,
                       command TEXT NOT NULL, succeeded INTEGER NOT NULL) STRICT;
"""

_CONFIGURATIONS = """
CREATE TABLE configurations (name TEXT NOT NULL, autosaved INTEGER NOT NULL, saved_at REAL NOT NULL,
                             document TEXT NOT NULL, PRIMARY KEY (name, autosaved)) STRICT;
"""

_OPERATIONS_OF_COMMANDS = "ALTER TABLE commands ADD COLUMN operations TEXT NOT NULL DEFAULT ''"

_UPGRADES: Mapping[int, str] = {1: _CONFIGURATIONS, 2: _OPERATIONS_OF_COMMANDS}
"""What makes the next version out of each earlier one; a new store goes through all of them as well."""


class StoreFailed(HostError):
    """The file cannot be read or written just now: its disk is full, say, or broken. Nothing of the change is there."""

    default_code = "store-failed"


class _Connection(sqlite3.Connection):
    """Translates the errors of the disk."""

    def execute(self, *words: Any) -> sqlite3.Cursor:
        try:
            return super().execute(*words)
        except sqlite3.OperationalError as error:
            raise StoreFailed(f"ldmd cannot read or write its state: {error}") from error


class Store:
    """The durable memory of one host.

    Every method that changes something returns after the change is on disk. Use `transaction` to make several
    changes together or not at all.

    Nobody else writes to the file while it is open. So what was read or written once, is not read again: domains and
    services are asked for by everything, all the time.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the store at `path`, and make it if it is not there; ``:memory:`` makes one that forgets.

        Raises:
            HostError: the file cannot be opened, or was written by a newer version.
        """
        self._known_domains: dict[str, Domain] | None = None
        self._known_services: Services | None = None
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=_Connection)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._prepare()
        except (sqlite3.Error, StoreFailed) as error:
            raise HostError(f"the store {path} cannot be opened: {error}", code="store-broken") from error

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the changes inside together: all of them are durable at the end, or none is made."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # A transaction that could not be written may be there still, and would take in all that comes later.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._known_domains, self._known_services = None, None
            raise

    # Domains

    def domains(self) -> tuple[Domain, ...]:
        """Every domain of the host, in the order in which they were made."""
        return tuple(sorted(self._domains.values(), key=lambda domain: domain.order))

    def domain(self, name: str) -> Domain:
        """The domain of that name.

        Raises:
            NotFound: there is none.
        """
        for domain in self._domains.values():
            if domain.name == name:
                return domain
        raise NotFound(f"LDom {name} was not found")

    def domain_by_uuid(self, uuid: str) -> Domain | None:
        """The domain with that UUID, or None."""
        return self._domains.get(uuid)

    def next_position(self) -> int:
        """A number for `Domain.order` that is larger than all in use."""
        row = self._db.execute("SELECT coalesce(max(position), -1) + 1 FROM domains").fetchone()
        return int(row[0])

    def put_domain(self, domain: Domain) -> None:
        """Write a domain, new or changed.

        Raises:
            AlreadyExists: another domain has its name.
        """
        known, document = self._domains, _dump(domain)
        try:
            self._db.execute(
                "INSERT INTO domains VALUES (?, ?, ?, ?) ON CONFLICT (uuid) DO UPDATE SET"
                " name = excluded.name, position = excluded.position, document = excluded.document",
                (domain.uuid, domain.name, domain.order, document),
            )
        except sqlite3.IntegrityError as error:
            raise AlreadyExists(f"LDom {domain.name} already exists") from error
        known[domain.uuid] = _load(Domain, document)  # what a restart will read

    def delete_domain(self, uuid: str) -> None:
        """Forget a domain; its ownership record stays."""
        self._db.execute("DELETE FROM domains WHERE uuid = ?", (uuid,))
        self._domains.pop(uuid, None)

    # Services

    def services(self) -> Services:
        """The virtual services of the host."""
        if self._known_services is None:
            row = self._db.execute("SELECT document FROM services").fetchone()
            self._known_services = _load(Services, row[0]) if row else Services()
        return self._known_services

    def put_services(self, services: Services) -> None:
        """Write the virtual services of the host."""
        document = _dump(services)
        self._db.execute("INSERT OR REPLACE INTO services VALUES (1, ?)", (document,))
        self._known_services = _load(Services, document)

    # Ownership and migrations

    def ownership(self, uuid: str) -> Ownership | None:
        """What this host is to a domain; None if no migration ever touched it here."""
        row = self._db.execute("SELECT epoch, state, migration FROM ownerships WHERE uuid = ?", (uuid,)).fetchone()
        return Ownership(uuid, row[0], OwnerState(row[1]), row[2]) if row else None

    def put_ownership(self, ownership: Ownership) -> None:
        """Write what this host is to a domain."""
        self._db.execute(
            "INSERT OR REPLACE INTO ownerships VALUES (?, ?, ?, ?)",
            (ownership.uuid, ownership.epoch, ownership.state.value, ownership.migration),
        )

    def forget_ownership(self, uuid: str) -> None:
        """Forget what this host was to a domain that an administrator has removed."""
        self._db.execute("DELETE FROM ownerships WHERE uuid = ?", (uuid,))

    def verdict(self, migration: str) -> Verdict | None:
        """How this host, as a target, has decided a migration; None if it has not."""
        row = self._db.execute("SELECT verdict FROM verdicts WHERE migration = ?", (migration,)).fetchone()
        return Verdict(row[0]) if row else None

    def put_verdict(self, migration: str, verdict: Verdict) -> None:
        """Write how this host, as a target, decides a migration."""
        self._db.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?)", (migration, verdict.value))

    def migration(self, migration: str) -> MigrationRecord | None:
        """The journal of that migration, or None."""
        row = self._db.execute("SELECT document FROM migrations WHERE id = ?", (migration,)).fetchone()
        return _load(MigrationRecord, row[0]) if row else None

    def migrations(self, *, unsettled: bool = False) -> tuple[MigrationRecord, ...]:
        """Migrations that this host took part in, oldest first."""
        where = "WHERE settled = 0" if unsettled else ""
        rows = self._db.execute(f"SELECT document FROM migrations {where} ORDER BY started_at")  # noqa: S608
        return tuple(_load(MigrationRecord, row[0]) for row in rows)

    def migrations_of(self, uuid: str, count: int) -> tuple[MigrationRecord, ...]:
        """The last so many migrations of a domain that this host took part in, the latest last."""
        rows = self._db.execute(
            "SELECT document FROM migrations WHERE uuid = ? ORDER BY started_at DESC LIMIT ?", (uuid, count)
        )
        return tuple(_load(MigrationRecord, row[0]) for row in rows)[::-1]

    def put_migration(self, record: MigrationRecord) -> None:
        """Write the journal of a migration."""
        self._db.execute(
            "INSERT OR REPLACE INTO migrations VALUES (?, ?, ?, ?, ?)",
            (record.id, record.uuid, record.settled, record.report.started_at, _dump(record)),
        )

    # Configurations, and single facts

    def configurations(self, *, autosaved: bool = False) -> tuple[Configuration, ...]:
        """The configurations that were saved, oldest first; or what was kept of changes that were not."""
        rows = self._db.execute(
            "SELECT document FROM configurations WHERE autosaved = ? ORDER BY saved_at, name", (autosaved,)
        )
        return tuple(_load(Configuration, row[0]) for row in rows)

    def configuration(self, name: str, *, autosaved: bool = False) -> Configuration | None:
        """The configuration of that name, or None."""
        row = self._db.execute(
            "SELECT document FROM configurations WHERE name = ? AND autosaved = ?", (name, autosaved)
        ).fetchone()
        return _load(Configuration, row[0]) if row else None

    def put_configuration(self, configuration: Configuration, *, autosaved: bool = False) -> None:
        """Write a configuration, new or changed."""
        self._db.execute(
            "INSERT OR REPLACE INTO configurations VALUES (?, ?, ?, ?)",
            (configuration.name, autosaved, configuration.saved_at, _dump(configuration)),
        )

    def delete_configuration(self, name: str, *, autosaved: bool = False) -> None:
        """Forget a configuration."""
        self._db.execute("DELETE FROM configurations WHERE name = ? AND autosaved = ?", (name, autosaved))

    def recall(self, key: str) -> str:
        """A single fact that was remembered, or empty."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def remember(self, key: str, value: str) -> None:
        """Write a single fact; an empty one is forgotten."""
        if value:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
        else:
            self._db.execute("DELETE FROM meta WHERE key = ?", (key,))

    # Operations, events, commands

    def put_operation(self, operation: Operation) -> None:
        """Write an operation, new or changed."""
        self._db.execute(
            "INSERT OR REPLACE INTO operations VALUES (?, ?, ?)",
            (operation.id, operation.started_at, _dump(operation)),
        )
        self._keep_newest("operations", "started_at", KEPT_OPERATIONS)

    def operation(self, operation: str) -> Operation | None:
        """The operation with that id, or None."""
        row = self._db.execute("SELECT document FROM operations WHERE id = ?", (operation,)).fetchone()
        return _load(Operation, row[0]) if row else None

    def operations(self) -> tuple[Operation, ...]:
        """Operations of the host, running and over, oldest first."""
        rows = self._db.execute("SELECT document FROM operations ORDER BY started_at")
        return tuple(_load(Operation, row[0]) for row in rows)

    def add_event(self, at: float, kind: EventKind, domain: str, data: dict[str, Any]) -> Event:
        """Write down something that happened."""
        cursor = self._db.execute(
            "INSERT INTO events (at, kind, domain, data) VALUES (?, ?, ?, ?)",
            (at, kind.value, domain, json.dumps(data)),
        )
        assert cursor.lastrowid is not None
        self._keep_last("events", "sequence", KEPT_EVENTS)
        return Event(cursor.lastrowid, at, kind, domain, data)

    def events(self, after: int = 0, limit: int = KEPT_EVENTS) -> tuple[Event, ...]:
        """The events after sequence number `after`, oldest first."""
        rows = self._db.execute(
            "SELECT sequence, at, kind, domain, data FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?",
            (after, limit),
        )
        return tuple(Event(row[0], row[1], EventKind(row[2]), row[3], json.loads(row[4])) for row in rows)

    def add_command(self, record: CommandRecord) -> int:
        """Write down a command for ``list-history``; the number of its row."""
        cursor = self._db.execute(
            "INSERT INTO commands (at, user, command, succeeded, operations) VALUES (?, ?, ?, ?, ?)",
            (record.at, record.user, record.command, bool(record.succeeded), " ".join(record.operations)),
        )
        assert cursor.lastrowid is not None
        self._keep_last("commands", "number", KEPT_COMMANDS)
        return cursor.lastrowid

    def fail_command(self, number: int) -> None:
        """Write down that a command has failed after all."""
        self._db.execute("UPDATE commands SET succeeded = ? WHERE number = ?", (False, number))

    def extend_command(self, number: int, operations: Sequence[str]) -> None:
        """Write down what a command has begun besides."""
        more = "".join(f" {operation}" for operation in operations)
        self._db.execute("UPDATE commands SET operations = trim(operations || ?) WHERE number = ?", (more, number))

    def commands(self) -> tuple[CommandRecord, ...]:
        """Commands that changed something, oldest first; those that began operations with what became of them."""
        rows = self._db.execute("SELECT at, user, command, succeeded, operations FROM commands ORDER BY number")
        return tuple(
            CommandRecord(row[0], row[1], row[2], self._outcome(row[3], row[4].split()), tuple(row[4].split()))
            for row in rows.fetchall()
        )

    # Inside

    def _outcome(self, succeeded: int, operations: Sequence[str]) -> bool | None:
        known = [operation.status for one in operations if (operation := self.operation(one)) is not None]
        if not succeeded or any(status in (OperationStatus.FAILURE, OperationStatus.CANCELLED) for status in known):
            return False
        return None if OperationStatus.RUNNING in known else True

    @property
    def _domains(self) -> dict[str, Domain]:
        """Domains by their UUID."""
        if self._known_domains is None:
            rows = self._db.execute("SELECT uuid, document FROM domains")
            self._known_domains = {row[0]: _load(Domain, row[1]) for row in rows}
        return self._known_domains

    def _prepare(self) -> None:
        with self.transaction():
            known = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
            if known is None:
                self._execute(_SCHEMA)
                self.remember("schema", "1")
            version = int(self.recall("schema"))
            for step in range(version, SCHEMA_VERSION):
                self._execute(_UPGRADES[step])
                self.remember("schema", str(step + 1))
        if version > SCHEMA_VERSION:
            raise HostError(
                f"the store was written by a newer ldmd (schema {version}, this one knows {SCHEMA_VERSION}):"
                " install that version again",
                code="store-too-new",
            )

    def _execute(self, statements: str) -> None:
        for statement in statements.split(";"):
            self._db.execute(statement)

    def _keep_last(self, table: str, number: str, count: int) -> None:
        """Keep the rows with the highest numbers, which are given in sequence: counting rows would take time."""
        self._db.execute(f"DELETE FROM {table} WHERE {number} <= (SELECT max({number}) FROM {table}) - {count}")  # noqa: S608

    def _keep_newest(self, table: str, column: str, count: int) -> None:
        self._db.execute(
            f"DELETE FROM {table} WHERE {column} <"  # noqa: S608
            f" (SELECT {column} FROM {table} ORDER BY {column} DESC LIMIT 1 OFFSET {count - 1})"
        )


def _dump(value: object) -> str:
    return json.dumps(to_wire(value))


def _load(kind: type[T], document: str) -> T:
    return from_wire(kind, json.loads(document))
