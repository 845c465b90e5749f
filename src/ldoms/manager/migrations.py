"""``migrate-domain``, ``cancel-operation migration`` and what is left of earlier migrations."""

from __future__ import annotations

import time
import uuid as uuids
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import structlog

from ldoms.manager.background import Background
from ldoms.manager.configurations import ConfigurationVerbs
from ldoms.manager.host import Host
from ldoms.manager.operations import Handle, Unobserved, Work
from ldoms.migration.journal import Journal
from ldoms.migration.local import LocalHost, Observer
from ldoms.migration.peer import Connector, Credentials
from ldoms.migration.phases import PHASES, Undo
from ldoms.migration.queue import SendingQueue
from ldoms.migration.source import SourceMigration, beacon_name
from ldoms.migration.target import TargetSide
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.domain import Domain, MigrationStatus
from ldoms.model.errors import LdomsError, MigrationError, NotFound, RequestError
from ldoms.model.migration import (
    LimitChanges,
    MigrationOptions,
    MigrationRecord,
    MigrationReport,
    Outcome,
    Progress,
    Role,
)
from ldoms.model.operation import Operation, OperationStatus
from ldoms.model.phases import POSTCOPY, Phase
from ldoms.model.queue import Copying, whose_promise_breaks

KIND = "migrate-domain"

_log = structlog.get_logger(__name__)


class MigrationVerbs:
    """The migrations of this host, as their source; `target` has those that come here."""

    def __init__(
        self,
        host: Host,
        local: LocalHost,
        connector: Connector,
        target: TargetSide,
        configurations: ConfigurationVerbs,
    ) -> None:
        self._host = host
        self._configurations = configurations
        self._local = local
        self._connector = connector
        self._target = target
        self._sources: dict[str, SourceMigration] = {}
        self._sources_again: set[str] = set()
        self._unsettled: dict[str, SourceMigration] = {}
        self._background = Background()
        self._queue = SendingQueue(
            host.config.migration.max_outgoing, self._whose_promise_breaks, host.config.migration.bandwidth_bytes_s
        )

    def migrate(self, name: str, options: MigrationOptions, credentials: Credentials, user: str) -> Operation:
        """Begin to move a domain; the operation that is returned goes on by itself, under the migration's id.

        Raises:
            NotFound: there is no such domain.
            Busy: another operation holds it.
            RequestError: it is on its way already.
        """
        with self._host.changing(name, KIND) as domain:
            self._check_resumed(name)
            record = self._new_record(domain, options, user)
        work = self._lead(record, credentials)
        return self._host.operations.start(KIND, name, user, work, may_cancel=True, identity=record.id)

    async def cancel(self, name: str, *, force: bool) -> None:
        """Stop the migration of a domain, and return when everything is as before.

        With `force`, a hand-off that waits for its target's answer is settled: the domain is ours again. On a target,
        it discards a copy whose source is silent.

        Raises:
            RequestError: none is under way, this host is its target, or it cannot be stopped any more.
        """
        domain = self._host.store.domain(name)
        arriving = self._target.migration_status(domain.uuid)
        if domain.uuid in self._host.fetching:
            assert arriving is not None
            raise RequestError(
                f"LDom {name} runs here, and fetches the rest of its memory from {arriving.peer}: it cannot go back. If"
                f" {arriving.peer} is lost for good, so is its guest: 'ldm stop-domain -f {name}' ends it here",
                code="in-postcopy",
            )
        if arriving is not None and arriving.error:
            if not force:
                raise RequestError(
                    f"the source of LDom {name}, {arriving.peer}, is silent. If the domain runs there, or is wanted no"
                    f" more, 'ldm cancel-operation -f migration {name}' discards the copy that is here; if the source"
                    " is lost for good, it may be the only one",
                    code="source-silent",
                )
            await self._target.discard(domain.uuid)
            return
        if arriving is not None:
            raise RequestError(
                f"the migration of LDom {name} is led by its source: run 'ldm cancel-operation migration {name}' on"
                f" {arriving.peer}",
                code="not-the-source",
            )
        operation, migration = self._host.operations.on(name), self._sources.get(name)
        if operation is None:
            self._check_resumed(name)
        if operation is None or operation.kind != KIND or migration is None:
            raise RequestError(f"no migration of LDom {name} is under way", code="no-migration")
        if operation.may_cancel:
            self._host.operations.cancel(operation.id)
        elif force:
            migration.reclaim()
        elif operation.phase == POSTCOPY:
            raise RequestError(
                f"LDom {name} runs on {migration.record.peer} already, and fetches the rest of its memory from here: it"
                f" cannot be cancelled any more. If {migration.record.peer} is lost for good, so is its guest:"
                f" 'ldm cancel-operation -f migration {name}' ends it, and brings the domain back here, to be started"
                " anew",
                code="in-postcopy",
            )
        else:
            raise RequestError(
                f"LDom {name} has been handed over and waits for the answer of the target, which may have it running"
                " already. If the target is lost for good, 'ldm cancel-operation -f migration"
                f" {name}' lets it run here again; if it is not, the guest may then run on both hosts and destroy its"
                " disks",
                code="handed-over",
            )
        ended = await self._host.operations.wait(operation.id)
        if ended.status is OperationStatus.SUCCESS:
            raise RequestError(
                f"the migration of LDom {name} was complete before it could be cancelled: the domain is on"
                f" {migration.record.peer}",
                code="too-late",
            )

    def change_limits(self, name: str, changes: LimitChanges, user: str) -> None:
        """Change limits of the migration of a domain; they count from when the copy is next looked at.

        Raises:
            NotFound: there is no such domain.
            RequestError: no migration is under way, this host is its target, or it is too late.
        """
        domain = self._host.store.domain(name)
        arriving = self._target.migration_status(domain.uuid)
        if arriving is not None:
            raise RequestError(
                f"the migration of LDom {name} is led by its source: run 'ldm set-migration' on {arriving.peer}",
                code="not-the-source",
            )
        operation, migration = self._host.operations.on(name), self._sources.get(name)
        if operation is None or operation.kind != KIND or migration is None or migration.record.options.dry_run:
            raise RequestError(f"no migration of LDom {name} is under way", code="no-migration")
        migration.change_limits(changes, user)

    async def claim(self, name: str) -> None:
        """Let the complete copy of a domain run here whose source is lost for good.

        Raises:
            RequestError: no copy waits here, or its source is not silent.
        """
        domain = self._host.store.domain(name)
        status = self._target.migration_status(domain.uuid)
        if status is None:
            raise RequestError(f"no copy of LDom {name} waits on this host", code="no-copy")
        if not status.error:
            raise RequestError(
                f"the source of LDom {name} is alive: the migration goes on by itself", code="source-alive"
            )
        await self._target.claim(domain.uuid)

    def status(self, domain: Domain) -> MigrationStatus | None:
        """What a listing shows of the migration that a domain takes part in; None when there is none."""
        operation, migration = self._host.operations.on(domain.name), self._sources.get(domain.name)
        if operation is None and self._is_suspended(domain.name):
            record = self._unsettled[domain.name].record
            return MigrationStatus("migration", "source", record.peer, record.phase.value, 0, error=True)
        if operation is None or migration is None:
            return self._target.migration_status(domain.uuid)
        queued = migration.record.report.queued
        return MigrationStatus(
            operation="migration",
            role="source",
            peer=migration.record.peer,
            phase=operation.phase,
            progress=operation.progress,
            error=migration.record.report.outcome is Outcome.UNDECIDED,
            position=queued.position if queued else 0,
            reason=queued.reason if queued and queued.position else "",
        )

    def history(self) -> tuple[MigrationReport, ...]:
        """The report of every migration that this host took part in, oldest first."""
        return tuple(record.report for record in self._host.store.migrations())

    def report(self, migration: str) -> MigrationReport:
        """The report of one migration; the beginning of its id is enough.

        Raises:
            NotFound: there is none.
        """
        found = [report for report in self.history() if report.id.startswith(migration)]
        if len(found) != 1:
            raise NotFound(f"migration {migration} was not found")
        return found[0]

    async def recover(self) -> None:
        """Go on with, or take back, every migration that a restart of the manager has interrupted."""
        unsettled = self._host.store.migrations(unsettled=True)
        for waiting in sorted(unsettled, key=_in_queue_since):
            if waiting.role is Role.SOURCE and waiting.phase is Phase.CHECK:
                self._queue_again(waiting)
        for operation in self._host.store.operations():
            current = self._host.operations.on(operation.domain)
            if operation.is_over or (current is not None and current.id == operation.id):
                continue
            record = self._host.store.migration(operation.id)
            if record is None or record.settled:
                await self._take_beacons_back(operation)
                self._host.operations.abandon(operation, record.report.cause if record else "")
        for record in self._host.store.migrations(unsettled=True):
            if record.role is not Role.SOURCE or record.id in self._sources_again:
                continue
            _log.info("migration-found", migration=record.id, phase=record.phase.value)
            if record.report.ended_at:
                self._settle_later(self._migration(record, Unobserved()))
            else:
                self._host.operations.start(
                    KIND,
                    record.name,
                    record.report.user,
                    self._lead(record, None),
                    may_cancel=PHASES[record.phase].undo is not Undo.IMPOSSIBLE,
                    identity=record.id,
                )

    async def close(self) -> None:
        """Let go; everything goes on after the restart."""
        await self._background.close()

    # Inside

    def _lead(self, record: MigrationRecord, credentials: Credentials | None) -> Work:
        """The work of a migration: from the beginning with credentials, from where it stands without."""

        async def work(handle: Handle) -> Mapping[str, Any]:
            try:
                report = await self._attempt(record, credentials, handle)
            except MigrationError as error:
                again = self._again(record, error)
                if again is None or credentials is None:
                    raise
                _log.warning("migration-tried-again", earlier=record.id, migration=again.id, reason=error.message)
                report = await self._attempt(again, credentials, handle)
            return {"report": to_wire(report)}

        return work

    async def _attempt(
        self, record: MigrationRecord, credentials: Credentials | None, handle: Handle
    ) -> MigrationReport:
        migration = self._migration(record, handle)
        self._sources[record.name] = migration
        try:
            if credentials is None:
                if record.active:
                    self._queue.enter(record.id, record.name)
                report = await migration.resume()
                self._configurations.save_after_migration(record.options)
            elif record.options.dry_run:
                report = await migration.check(credentials)
            else:
                report = await migration.run(credentials)
                self._configurations.save_after_migration(record.options)
                self._background.start(migration.settle(), f"settle {record.id}")
        except LdomsError:
            if not migration.record.settled:
                self._settle_later(migration)
            raise
        finally:
            self._queue.leave(record.id)
            del self._sources[record.name]
        return report

    def _again(self, first: MigrationRecord, error: MigrationError) -> MigrationRecord | None:
        """The second attempt after one whose last part was late, which nobody could foresee; None: there is none."""
        ended = self._host.store.migration(first.id)
        options = options_again(ended, error) if ended is not None else None
        if options is None:
            return None
        record = self._new_record(self._host.store.domain(first.name), options, first.report.user)
        return replace(record, report=replace(record.report, earlier=first.id))

    def _migration(self, record: MigrationRecord, observer: Observer) -> SourceMigration:
        journal = Journal(self._host.store, record)
        return SourceMigration(self._local, self._connector, journal, observer, self._target.let_go, self._queue)

    def _queue_again(self, record: MigrationRecord) -> None:
        """One that has waited for its turn waits again, if it needs no password, which is kept nowhere."""
        if record.options.certificates:
            _log.info("migration-queued-again", migration=record.id, domain=record.name)
            self._sources_again.add(record.id)
            self._queue.keep_place(record.id, record.name)
            self._host.operations.start(
                KIND,
                record.name,
                record.report.user,
                self._lead(record, Credentials(certificate=True)),
                may_cancel=True,
                identity=record.id,
            )
            return
        cause = (
            f"the manager was restarted while the migration of LDom {record.name} waited for its turn, and passwords"
            " are kept nowhere: begin it again"
        )
        journal = Journal(self._host.store, record)
        journal.end(Outcome.FAILED, cause)
        journal.write()

    def _whose_promise_breaks(self) -> str:
        """Why another migration would break the promise of one that leaves this host now; empty: it would not."""
        operations = (self._host.operations.on(name, KIND) for name in self._queue.running.values())
        return whose_promise_breaks([self._copying(operation) for operation in operations if operation is not None])

    def _copying(self, operation: Operation) -> Copying:
        if operation.phase != Phase.COPY.value or not operation.figures:
            return Copying(operation.domain)
        progress, options = from_wire(Progress, operation.figures), self._sources[operation.domain].record.options
        left_s = operation.started_at + options.max_time_s - time.time() if options.max_time_s else 0.0
        return Copying(
            operation.domain,
            progress.dirty_bytes_s,
            progress.bandwidth_bytes_s,
            progress.remaining_bytes,
            max(0.0, left_s),
        )

    def _settle_later(self, migration: SourceMigration) -> None:
        self._unsettled[migration.record.name] = migration
        self._background.start(self._settle(migration), f"settle {migration.record.id}")

    async def _settle(self, migration: SourceMigration) -> None:
        """Do what is left. A domain whose guest is not here is held meanwhile: it may be on the target."""
        record = migration.record
        try:
            with ExitStack() as stack:
                if record.active and self._host.guests.get(record.uuid) is None:
                    stack.enter_context(self._host.operations.holding(record.name, "settling its migration"))
                await migration.settle_later()
        finally:
            if self._unsettled.get(record.name) is migration:
                del self._unsettled[record.name]

    def _is_suspended(self, name: str) -> bool:
        return name in self._unsettled and self._unsettled[name].record.suspended

    def _check_resumed(self, name: str) -> None:
        if self._is_suspended(name):
            raise RequestError(
                f"the last migration of LDom {name} has failed, and its guest is suspended: QEMU does not answer, or"
                " does not resume it. It is resumed as soon as that can be done; 'ldm stop-domain -f"
                f" {name}' ends it instead",
                code="not-resumed",
            )

    async def _take_beacons_back(self, operation: Operation) -> None:
        with suppress(NotFound):
            domain = self._host.store.domain(operation.domain)
            await self._local.take_beacons_back(domain, beacon_name(operation.id))

    def _new_record(self, domain: Domain, options: MigrationOptions, user: str) -> MigrationRecord:
        ownership = self._host.store.ownership(domain.uuid)
        active = self._host.guests.get(domain.uuid) is not None
        identity, now = str(uuids.uuid4()), time.time()
        report = MigrationReport(
            id=identity,
            domain=domain.name,
            target_name=options.new_name or domain.name,
            uuid=domain.uuid,
            source=self._host.facts.name,
            target=options.host,
            user=user,
            active=active,
            outcome=Outcome.UNDER_WAY,
            started_at=now,
        )
        return MigrationRecord(
            id=identity,
            role=Role.SOURCE,
            uuid=domain.uuid,
            name=domain.name,
            peer=options.host,
            address="",
            token="",
            epoch=(ownership.epoch if ownership else 0) + 1,
            phase=Phase.CHECK,
            phase_at=now,
            options=options,
            report=report,
            active=active,
        )


def _in_queue_since(record: MigrationRecord) -> float:
    queued = record.report.queued
    return queued.since_at if queued else record.report.started_at


def options_again(ended: MigrationRecord, error: MigrationError) -> MigrationOptions | None:
    """With what a migration that has ended with `error` is tried once more.

    Returns:
        None if it is not: for another reason than a last part that came too late; while something is left of it; when
        another would not be over in time; or when disks would have to be copied again.
    """
    options, took_s = ended.options, ended.report.total_s
    if error.code != "promise" or error.phase is not Phase.SUSPEND or not ended.settled or options.copy_storage:
        return None
    if not options.max_time_s:
        return options
    left_s = options.max_time_s - took_s
    return replace(options, max_time_s=left_s) if left_s > took_s else None
