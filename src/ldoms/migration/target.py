"""The target of a migration: it describes itself, prepares, receives, and decides once: taken or refused.

It never lets a guest run by itself. Its decision is durable before anything follows from it, and stays the same
however often it is asked for (`model.ownership`).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog

from ldoms.auth.tokens import digest, make_token, matches
from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.states import IN_POSTCOPY, GuestEvent, GuestEventKind, MigrationEnd, RunState
from ldoms.hypervisor.states import MigrationStatus as CopyStatus
from ldoms.migration.clock import correct_guest_clock
from ldoms.migration.gates import gate
from ldoms.migration.journal import durably
from ldoms.migration.local import LocalHost
from ldoms.migration.plan import copying_threads
from ldoms.migration.queue import ReceivingQueue
from ldoms.model.boost import BoostWish
from ldoms.model.domain import Domain, MigrationStatus
from ldoms.model.errors import AlreadyExists, HostError, LdomsError, NotFound, RequestError
from ldoms.model.events import EventKind
from ldoms.model.migration import (
    Description,
    DescriptionAnswer,
    DiskCopy,
    GuestClock,
    MigrationRecord,
    MigrationReport,
    Outcome,
    Pages,
    Preparation,
    Role,
    TargetStatus,
    Ticket,
    Trial,
)
from ldoms.model.ownership import (
    Action,
    IllegalTransition,
    OwnerEvent,
    OwnerState,
    Verdict,
    advance,
    announce,
    verdict_of,
)
from ldoms.model.phases import POSTCOPY, Phase
from ldoms.model.queue import Turn, fair_shares
from ldoms.store import StoreFailed

SILENCE_S = 45.0
"""A source that was not heard for so long, before the copy was complete, is taken for lost: the copy is discarded."""
WATCH_S = 0.5
TOKEN_S = 600.0
"""How long a token from a description is good for; that of a prepared migration is good to its end."""
TRIAL_S = 15.0
"""A trial of the link that its source does not end is ended after so long."""
MOST_TRIAL_MIB = 1024
RUN_TRIES, RUN_PAUSE_S = 5, 0.2
TIDY_S, TIDY_PAUSE_S = 600.0, 5.0
"""How long images are looked for that were not found when the migration was decided, and how often."""
ARRIVE_S, ARRIVE_POLL_S = 1.0, 0.01
"""What a guest needs to run may be on its way still when the source asks to take over."""
PAGES_S = 1.0
"""Between two looks at whether all of a guest's memory has come; QEMU tells it by itself."""

_NEWS_OF_PAGES = frozenset({GuestEventKind.MIGRATION, GuestEventKind.GONE})
_log = structlog.get_logger(__name__)


@dataclass
class Arrival:
    """What is known of a migration to this host beyond its durable record.

    Attributes:
        heard_at: when the source last called, by the event loop's clock.
        phase, progress: how it stands on the source, as that has told.
        resumed_at: when the guest began to run here, in seconds since 1970.
        error: what QEMU said when the copy failed.
        keeps_time: the guest corrects its clock by itself; forgotten with a restart, and its clock is set then.
        fetching: the guest runs here, and part of its memory has still to come.
        has_shut_down: it did that while it was so, and lacks nothing any more; forgotten with a restart.
        deciding: held while the verdict is being made.
    """

    heard_at: float
    watcher: asyncio.Task[None] | None = None
    phase: str = Phase.PREPARE.value
    progress: int = 0
    resumed_at: float = 0.0
    error: str = ""
    keeps_time: bool = False
    guest_clock: GuestClock | None = None
    follow_up: asyncio.Task[None] | None = None
    fetching: bool = False
    has_shut_down: bool = False
    deciding: asyncio.Lock = field(default_factory=asyncio.Lock)


class TargetSide:
    """All migrations to this host."""

    def __init__(self, local: LocalHost) -> None:
        self._local = local
        self._arrivals: dict[str, Arrival] = {}
        self._tokens: dict[str, tuple[str, float]] = {}
        self._names: dict[str, str] = {}
        self._queue = ReceivingQueue(local.max_incoming, self._now)
        self._trials: dict[str, asyncio.Task[None]] = {}
        self._tidying: set[asyncio.Task[None]] = set()

    # What the source calls

    async def describe(self, description: Description, caller: str) -> DescriptionAnswer:
        """Say what this host is and has; the token in the answer opens the calls that follow."""
        target = await self._local.describe_self(description, caller)
        token = make_token()
        now = self._now()
        self._tokens = {known: entry for known, entry in self._tokens.items() if now - entry[1] < TOKEN_S}
        self._tokens[description.migration] = (digest(token), now)
        self._names = {known: name for known, name in self._names.items() if known in self._tokens}
        self._names[description.migration] = description.new_name or description.domain.domain.name
        return DescriptionAnswer(target, token)

    def admits(self, migration: str, token: str) -> bool:
        """Whether that is the token of that migration.

        Raises:
            NotFound: this host knows nothing of the migration.
        """
        record = self._local.store.migration(migration)
        if record is not None and record.role is Role.TARGET:
            return matches(token, record.token)
        if migration in self._tokens:
            return matches(token, self._tokens[migration][0])
        raise NotFound(f"migration {migration} was not found on {self._local.facts.name}")

    async def begin_trial(self, trial: Trial, address: str) -> Ticket:
        """Receive a trial of the link, at `address`.

        Raises:
            LdomsError: it cannot be done; nothing is left behind.
        """
        if trial.size_mib > MOST_TRIAL_MIB or trial.migration in self._trials:
            raise RequestError("one trial of the link at a time, and no larger than 1 GiB", code="bad-request")
        ready: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._receive_trial(trial, address, ready), name=f"trial-{trial.migration}")
        self._trials[trial.migration] = task
        task.add_done_callback(lambda done: self._trials.pop(trial.migration, None))
        return await ready

    async def end_trial(self, migration: str) -> None:
        """End it; nothing happens if there is none."""
        task = self._trials.get(migration)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _receive_trial(self, trial: Trial, address: str, ready: asyncio.Future[Ticket]) -> None:
        try:
            guest = await self._local.start_trial(trial.size_mib, incoming=True)
            try:
                await guest.set_migration(MigrationEnd.RECEIVE, trial.plan, trial.key)
                ready.set_result(Ticket(address, await self._local.listen(guest, address)))
                await asyncio.sleep(TRIAL_S)
            finally:
                await self._local.end_trial(guest)
        except LdomsError as error:
            ready.set_exception(error)
        finally:
            if not ready.done():
                ready.set_exception(HostError("the trial of the link was ended", code="trial-failed"))

    def ask_turn(self, migration: str) -> Turn:
        """Whether a domain that was described may come now; who is told no asks again, and keeps its place so."""
        self._keep_token(migration)
        under_way = {record.id: record.name for record in self._under_way()}
        return self._queue.ask(migration, self._names.get(migration, migration), under_way)

    def _under_way(self) -> list[MigrationRecord]:
        """The active domains that are coming."""
        return [
            record
            for record in self._local.store.migrations(unsettled=True)
            if record.role is Role.TARGET and record.active
            if self._verdict(record) is None or self._arrival(record).fetching
        ]

    def _share(self, migration: str) -> int:
        """What one that is coming may take of this host's network; 0 = not limited."""
        limit = self._local.bandwidth_bytes_s
        if limit == 0:
            return 0
        wanted = {record.id: record.plan.max_bandwidth_bytes_s if record.plan else 0 for record in self._under_way()}
        return fair_shares(limit, {**wanted, migration: wanted.get(migration, 0)})[migration]

    def _keep_token(self, migration: str) -> None:
        """A token that is used does not grow old."""
        if migration in self._tokens:
            self._tokens[migration] = (self._tokens[migration][0], self._now())

    async def prepare(self, preparation: Preparation, address: str) -> Ticket:
        """Reserve what the domain needs, and start a QEMU that waits for its memory.

        Raises:
            LdomsError: it cannot be done; nothing is left behind.
        """
        record = self._new_record(preparation)
        domain = self._local.check_admits(preparation)
        try:
            ownership = announce(
                self._local.store.ownership(domain.uuid), domain.uuid, preparation.epoch, preparation.migration
            )
        except IllegalTransition as error:
            raise AlreadyExists(f"LDom {domain.name} is on {self._local.facts.name} already") from error
        with self._local.store.transaction():
            self._local.make_volumes(_disks(record))
            self._local.store.put_domain(domain)
            self._local.store.put_ownership(ownership)
            self._local.store.put_migration(record)
        self._queue.forget(record.id)
        arrival = self._watch(record)
        arrival.keeps_time = preparation.keeps_time
        async with arrival.deciding:  # whoever calls it off meanwhile waits, and then discards all of it
            try:
                ticket = await self._get_ready(record, domain, preparation, address)
            except BaseException as error:
                arrival.error = str(error)
                await self._give_up(record)
                raise
        self._local.publish(EventKind.DOMAIN_ADDED, domain.name, migration=record.id, source=preparation.source)
        await gate("target-prepared")
        return ticket

    async def _get_ready(
        self, record: MigrationRecord, domain: Domain, preparation: Preparation, address: str
    ) -> Ticket:
        await gate("target-prepare")
        if domain.is_bound:
            await self._local.open_console(domain)
        ticket = Ticket()
        if preparation.plan is not None and preparation.active:
            disks = preparation.plan.disks
            await self._local.make_images(record.id, disks)
            await gate("target-images-made")
            guest = await self._local.start_incoming(domain)
            await guest.set_migration(MigrationEnd.RECEIVE, preparation.plan, preparation.key)
            lent = await self._boost(record)
            port = await self._local.listen(guest, address)
            ticket = Ticket(address, port, lent_strands=lent, bandwidth_bytes_s=self._share(record.id))
            if disks:
                ticket = replace(ticket, disk_port=await self._local.listen_for_disks(guest, address, disks))
        self._local.store.put_migration(replace(record, phase=Phase.COPY, phase_at=time.time()))
        return ticket

    async def _boost(self, record: MigrationRecord) -> int:
        """Have strands lent to the control domain, if the source was asked for a boost; how many there were to lend."""
        if record.options.boost is None or record.plan is None:
            return 0
        lent, _ = await self._local.lend(record.id, BoostWish(record.options.boost, copying_threads(record.plan)))
        return lent

    async def status(self, migration: str, phase: str, progress: int) -> TargetStatus:
        """How it stands here; also the sign of life of the source."""
        record = self._record(migration)
        arrival = self._arrival(record)
        arrival.heard_at, arrival.phase, arrival.progress = self._now(), phase, progress
        return await self._status(record, arrival)

    async def finish(self, migration: str) -> TargetStatus:
        """Take over, if the copy is complete; else refuse. Asked again, the answer is the same."""
        record = self._record(migration)
        arrival = self._arrival(record)
        arrival.heard_at = self._now()
        async with arrival.deciding:
            if self._verdict(record) is None:
                if await self._may_take_over(record):
                    await self._take_over(record, arrival)
                else:
                    arrival.error = arrival.error or "the copy here is not complete"
                    await self._give_up(record)
            elif (
                self._may_run(record)
                and arrival.follow_up is None
                and (await self._run(record, arrival) or _may_be_split(record))  # in parts it cannot go back
            ):
                self._follow_up(record, arrival)  # the first attempt had left it open whether it runs
            return await self._status(record, arrival)

    async def abort(self, migration: str, reason: str) -> TargetStatus:
        """Discard the copy, unless it was taken over already; the answer has the verdict.

        A guest that runs here and lacks memory is ended: nothing more of it will come.
        """
        record = self._record(migration)
        arrival = self._arrival(record)
        async with arrival.deciding:
            if self._verdict(record) is None:
                arrival.error = reason
                await self._give_up(record)
            elif await self._pages(record) is Pages.MISSING:
                await self._end_guest(record, arrival, reason)
            return await self._status(record, arrival)

    async def listen_again(self, migration: str, address: str) -> Ticket:
        """Wait for the rest of a guest's memory at another port: the connection is broken, whatever this end knows.

        Raises:
            RequestError: none is missing, or the guest has ended.
        """
        record = self._record(migration)
        arrival = self._arrival(record)
        arrival.heard_at = self._now()
        async with arrival.deciding:
            guest = self._guest(record)
            if guest is None or await self._pages(record) is not Pages.MISSING:
                raise RequestError(f"LDom {record.name} lacks no memory that could come", code="no-pages-missing")
            port = await self._local.listen_again(guest, address)
            _log.warning("postcopy-recovering", migration=record.id, port=port)
            return Ticket(address, port)

    async def let_go(self, uuid: str) -> None:
        """A domain leaves this host: what is still to be done about its arrival is not done any more."""
        for record in self._local.store.migrations(unsettled=True):
            if record.uuid != uuid or self._verdict(record) is not Verdict.TAKEN:
                continue
            arrival = self._arrival(record)
            async with arrival.deciding:
                if arrival.follow_up is not None:
                    arrival.follow_up.cancel()
                    await asyncio.gather(arrival.follow_up, return_exceptions=True)
                guest = self._guest(record)
                if guest is not None:
                    await guest.clear_migration()
                await self._settle(record, Outcome.DONE, "")

    def keep_report(self, report: MigrationReport) -> None:
        """Keep the source's report of a migration to this host."""
        record = self._record(report.id)
        self._local.store.put_migration(replace(record, report=report))

    # What an administrator may do

    async def claim(self, uuid: str) -> None:
        """Take over a complete copy whose source is lost for good.

        Only an administrator can know that the source is lost. If it is not, the guest may run twice.

        Raises:
            RequestError: there is no complete copy that waits.
        """
        record = self._waiting(uuid)
        if record is None or not await self._is_complete(record):
            raise RequestError("no complete copy of the domain waits on this host", code="no-copy")
        arrival = self._arrival(record)
        async with arrival.deciding:
            if self._verdict(record) is None:
                _log.warning("claimed-by-force", migration=record.id)
                await self._take_over(record, arrival)

    async def discard(self, uuid: str) -> None:
        """Discard a copy that waits for a source that is silent; the source, if it asks later, goes on with its own.

        Raises:
            RequestError: it was taken over meanwhile.
        """
        record = self._waiting(uuid)
        if record is None:
            raise RequestError("no copy of the domain waits on this host", code="no-copy")
        _log.warning("discarded-by-force", migration=record.id)
        status = await self.abort(record.id, "an administrator has discarded the copy")
        if status.verdict is not Verdict.REFUSED:
            raise RequestError("the copy was taken over meanwhile: the domain is here", code="no-copy")

    def migration_status(self, uuid: str) -> MigrationStatus | None:
        """What a listing shows of the migration that brings the domain here; None when there is none."""
        record = self._waiting(uuid) or self._fetching(uuid)
        if record is None:
            return None
        arrival = self._arrival(record)
        is_orphan = self._now() - arrival.heard_at > SILENCE_S
        return MigrationStatus("migration", "target", record.peer, arrival.phase, arrival.progress, error=is_orphan)

    # Restart and end of the manager

    async def recover(self) -> None:
        """Go on with every migration to this host that a restart has interrupted."""
        for record in self._local.store.migrations():
            if record.role is Role.TARGET and record.settled:
                await self._keep_or_discard(record)  # their storage may have been away to the end
        for record in self._local.store.migrations(unsettled=True):
            if record.role is not Role.TARGET:
                continue
            verdict = self._verdict(record)
            _log.info("arrival-found", migration=record.id, verdict=verdict and verdict.value)
            arrival = self._arrival(record)
            if verdict is Verdict.REFUSED:
                await self._carry_out(record, Action.DISCARD)
            elif verdict is Verdict.TAKEN and not self._may_run(record):
                await self._settle(record, Outcome.DONE, "")
            elif verdict is Verdict.TAKEN:
                with suppress(LdomsError):
                    await self._run(record, arrival)
                self._follow_up(record, arrival)
            elif record.phase is Phase.PREPARE:
                arrival.error = "the manager of the target was restarted while it prepared"
                await self._give_up(record)
            else:
                await self._boost(record)
                self._watch(record)

    async def close(self) -> None:
        """Stop watching; everything goes on after the restart."""
        tasks = [
            task
            for arrival in self._arrivals.values()
            for task in (arrival.watcher, arrival.follow_up)
            if task is not None
        ]
        tasks += [*self._trials.values(), *self._tidying]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Deciding

    async def _take_over(self, record: MigrationRecord, arrival: Arrival) -> None:
        await gate("target-take-over")
        await self._decide(record, OwnerEvent.TAKE_OVER)
        await gate("target-taken")
        if not await self._run(record, arrival):
            await self._decide(record, OwnerEvent.CANNOT_RUN)
            return
        await gate("target-running")
        self._follow_up(record, arrival)

    async def _give_up(self, record: MigrationRecord) -> None:
        await gate("target-give-up")
        await self._decide(record, OwnerEvent.GIVE_UP)

    async def _decide(self, record: MigrationRecord, event: OwnerEvent) -> None:
        """Take one step of the ownership table: durable first, then the action."""
        ownership = self._local.store.ownership(record.uuid)
        assert ownership is not None
        assert ownership.migration == record.id, "a domain is in one migration at a time"
        after, action = advance(ownership, event)

        async def write() -> None:
            with self._local.store.transaction():
                self._local.store.put_ownership(after)
                self._local.store.put_verdict(record.id, verdict_of(event))

        # Whoever asked for a verdict asks again. But a guest that does not run must not look like one that does.
        await (durably(write) if event is OwnerEvent.CANNOT_RUN else write())
        if action is Action.DISCARD:
            await durably(lambda: self._carry_out(record, action))

    async def _carry_out(self, record: MigrationRecord, action: Action) -> None:
        assert action is Action.DISCARD
        arrival = self._arrival(record)
        if arrival.watcher is not None and arrival.watcher is not asyncio.current_task():
            arrival.watcher.cancel()
        await self._local.remove(record.uuid)
        await self._tidy_up(record)
        self._local.discard_volumes(_disks(record))
        await self._settle(record, Outcome.FAILED, arrival.error)

    async def _run(self, record: MigrationRecord, arrival: Arrival) -> bool:
        """Let the guest run; may be repeated.

        Returns:
            False if it certainly does not run here and never did, not even for a moment.

        Raises:
            HostError: nobody knows whether it runs: QEMU was told to let it, and has not answered.
        """
        if not record.active:
            return True
        for _ in range(RUN_TRIES):
            guest = self._guest(record)
            if guest is None:
                arrival.error = "the QEMU that had received the copy has ended"
                return False
            is_told = False
            try:
                if await guest.state() is RunState.RUNNING:
                    return True
                if _disks(record):
                    await guest.withdraw_disks()  # two would write to them otherwise
                is_told = True
                arrival.resumed_at = await guest.resume()
                return True
            except HostError as error:
                arrival.error = error.message
                waits_for_page = _may_be_split(record) and error.code == "qemu-silent"
                if waits_for_page or (is_told and error.code != "qemu-refused"):
                    raise
            # The source may hold the lock of an image for a moment more; the end of a QEMU may not be noticed yet.
            await asyncio.sleep(RUN_PAUSE_S)
        return False

    # After the hand-off

    def _follow_up(self, record: MigrationRecord, arrival: Arrival) -> None:
        if arrival.watcher is not None:
            arrival.watcher.cancel()
        arrival.follow_up = asyncio.create_task(self._after_arrival(record, arrival), name=f"arrived-{record.name}")

    async def _after_arrival(self, record: MigrationRecord, arrival: Arrival) -> None:
        is_split = _may_be_split(record)
        if not is_split:
            await self._local.give_back(record.id)
        self._local.arrived(record.uuid)
        guest = self._guest(record)
        if guest is not None:
            with suppress(HostError):
                await guest.announce()
        if is_split and (guest is None or await self._wait_for_pages(record, arrival, guest) is Pages.LOST):
            cause = arrival.error or "the guest has ended before all of its memory had come"
            await durably(lambda: self._settle(record, Outcome.FAILED, cause))
            return
        if guest is not None and not guest.is_gone:
            await guest.clear_migration()
            arrival.guest_clock = await correct_guest_clock(guest, keeps_time=arrival.keeps_time)
        await durably(lambda: self._settle(record, Outcome.DONE, ""))

    async def _wait_for_pages(self, record: MigrationRecord, arrival: Arrival, guest: Guest) -> Pages | None:
        """Wait until all of the memory of a guest that runs here has come, or the guest has ended; which of them."""
        arrival.fetching, arrival.phase = True, POSTCOPY
        try:
            with self._local.fetching(record.uuid), guest.events() as events:
                while (pages := await self._look_for_pages(record)) is Pages.MISSING:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(PAGES_S):
                            while (event := await events.get()).kind not in _NEWS_OF_PAGES:
                                arrival.has_shut_down |= _is_own_end(event)
                return pages
        finally:
            arrival.fetching = False

    async def _end_guest(self, record: MigrationRecord, arrival: Arrival, reason: str) -> None:
        """End a guest that lacks memory which will never come; the domain stays here."""
        _log.error("guest-lost", domain=record.name, reason=reason)
        arrival.error = f"the guest is lost, as part of its memory will never come: {reason}"
        guest = self._guest(record)
        if guest is not None:
            await guest.quit()
        if arrival.follow_up is None:
            self._follow_up(record, arrival)
        assert arrival.follow_up is not None
        await asyncio.gather(arrival.follow_up, return_exceptions=True)

    async def _settle(self, record: MigrationRecord, outcome: Outcome, cause: str) -> None:
        if outcome is Outcome.DONE:
            await self._tidy_up(record)
        known = self._local.store.migration(record.id) or record
        await self._local.give_back(record.id)
        report = replace(known.report, outcome=outcome, cause=cause, ended_at=time.time())
        if known.report.phases:
            report = known.report  # the source's own, which has been delivered
        self._local.store.put_migration(replace(known, report=report, settled=True))

    async def _tidy_up(self, record: MigrationRecord) -> None:
        """Keep or remove the images that were made: now, or when the storage is back that they are on."""
        if not await self._keep_or_discard(record):
            task = asyncio.create_task(self._tidy_up_later(record), name=f"tidy-up-{record.name}")
            self._tidying.add(task)
            task.add_done_callback(self._tidying.discard)

    async def _tidy_up_later(self, record: MigrationRecord) -> None:
        deadline = self._now() + TIDY_S
        while self._now() < deadline and not await self._keep_or_discard(record):
            await asyncio.sleep(TIDY_PAUSE_S)

    async def _keep_or_discard(self, record: MigrationRecord) -> bool:
        """Whether all images of a migration that is decided were found, if any were made."""
        is_ours = self._verdict(record) is Verdict.TAKEN
        decide = self._local.keep_images if is_ours else self._local.discard_images
        return await decide(record.id, _disks(record))

    # Watching

    def _watch(self, record: MigrationRecord) -> Arrival:
        arrival = self._arrival(record)
        arrival.heard_at = self._now()
        arrival.watcher = asyncio.create_task(self._watch_until_decided(record, arrival), name=f"watch-{record.name}")
        return arrival

    async def _watch_until_decided(self, record: MigrationRecord, arrival: Arrival) -> None:
        while self._verdict(record) is None:
            await asyncio.sleep(WATCH_S)
            reason = await self._reason_to_give_up(record, arrival)
            if reason:
                async with arrival.deciding:
                    if self._verdict(record) is None:
                        arrival.error = reason
                        _log.warning("arrival-given-up", migration=record.id, reason=reason)
                        with suppress(StoreFailed):  # it is looked at again in a moment
                            await self._give_up(record)

    async def _reason_to_give_up(self, record: MigrationRecord, arrival: Arrival) -> str:
        guest = self._guest(record)
        if guest is not None:
            with suppress(HostError):
                progress = await guest.progress()
                if progress.status in (CopyStatus.FAILED, CopyStatus.CANCELLED):
                    return f"the copy failed: {progress.error or progress.status}"
                if progress.status == CopyStatus.COMPLETED or progress.status in IN_POSTCOPY:
                    return ""  # the source alone may call it off now: the only complete copy may be here
        elif record.active and self._record(record.id).phase is Phase.COPY:
            return "the QEMU that received the copy has ended"
        if arrival.phase == POSTCOPY:
            return ""  # the source cannot go back, however late what it has sent may come
        if self._now() - arrival.heard_at > SILENCE_S:
            return f"the source has not been heard for {SILENCE_S:g} s"
        return ""

    # Small things

    async def _may_take_over(self, record: MigrationRecord) -> bool:
        """Whether the guest can run here; waits a little for one that comes in parts.

        Raises:
            HostError: it is still on its way: ask again.
        """
        if not _may_be_split(record):
            return await self._is_complete(record)
        deadline = self._now() + ARRIVE_S
        while (guest := self._guest(record)) is not None:
            with suppress(HostError):
                status = (await guest.progress()).status
                if status in (CopyStatus.FAILED, CopyStatus.CANCELLED):
                    return False
                # It leaves `RunState.INCOMING` when it has the state of its devices.
                has_state = status in IN_POSTCOPY and await guest.state() is RunState.PAUSED
                if has_state or status == CopyStatus.COMPLETED:
                    return True
            if self._now() > deadline:
                raise HostError(f"what LDom {record.name} needs to run is still on its way", code="still-arriving")
            await asyncio.sleep(ARRIVE_POLL_S)
        return False

    async def _pages(self, record: MigrationRecord) -> Pages | None:
        """Whether the guest has all of its memory here; None where it cannot run without."""
        if not _may_be_split(record):
            return None
        known = self._record(record.id)
        if known.settled:
            return Pages.WHOLE if known.report.outcome is Outcome.DONE else Pages.LOST
        if self._guest(record) is not None and self._arrival(record).fetching:
            return Pages.MISSING  # whoever waits for them hears of it; QEMU may not answer meanwhile
        return await self._look_for_pages(record)

    async def _look_for_pages(self, record: MigrationRecord) -> Pages | None:
        guest, is_taken = self._guest(record), self._verdict(record) is Verdict.TAKEN
        if guest is None and self._arrival(record).has_shut_down:
            return Pages.WHOLE
        if guest is None:
            return Pages.LOST if is_taken else None
        try:
            status = (await guest.progress()).status
        except HostError:  # its main loop may wait for a page
            return Pages.MISSING
        if status == CopyStatus.COMPLETED:
            return Pages.WHOLE
        return Pages.MISSING if is_taken or status in IN_POSTCOPY else None

    async def _is_complete(self, record: MigrationRecord) -> bool:
        if not record.active:
            return True
        guest = self._guest(record)
        if guest is None:
            return False
        try:
            return (await guest.progress()).status == CopyStatus.COMPLETED
        except HostError:
            return False

    async def _status(self, record: MigrationRecord, arrival: Arrival) -> TargetStatus:
        ownership = self._local.store.ownership(record.uuid)
        verdict = self._verdict(record)
        return TargetStatus(
            state=ownership.state if ownership and ownership.migration == record.id else None,
            verdict=verdict,
            complete=verdict is None and await self._is_complete(record),
            resumed_at=arrival.resumed_at,
            error=arrival.error,
            settled=self._record(record.id).settled,
            guest_clock=arrival.guest_clock,
            bandwidth_bytes_s=self._share(record.id) if verdict is None or arrival.fetching else 0,
            pages=await self._pages(record),
        )

    def _record(self, migration: str) -> MigrationRecord:
        record = self._local.store.migration(migration)
        if record is None or record.role is not Role.TARGET:
            raise NotFound(f"migration {migration} was not found on {self._local.facts.name}")
        return record

    def _new_record(self, preparation: Preparation) -> MigrationRecord:
        if self._local.store.migration(preparation.migration) is not None:
            raise AlreadyExists(f"migration {preparation.migration} was prepared before", code="prepared-before")
        token = self._tokens.pop(preparation.migration, None)
        if token is None:
            raise NotFound(f"migration {preparation.migration} was not described before", code="not-described")
        name = preparation.new_name or preparation.domain.name
        now = time.time()
        report = MigrationReport(
            id=preparation.migration,
            domain=preparation.domain.name,
            target_name=name,
            uuid=preparation.domain.uuid,
            source=preparation.source,
            target=self._local.facts.name,
            user=preparation.user,
            active=preparation.active,
            outcome=Outcome.UNDER_WAY,
            started_at=now,
            plan=preparation.plan,
        )
        return MigrationRecord(
            id=preparation.migration,
            role=Role.TARGET,
            uuid=preparation.domain.uuid,
            name=name,
            peer=preparation.source,
            address="",
            token=token[0],
            epoch=preparation.epoch,
            phase=Phase.PREPARE,
            phase_at=now,
            options=preparation.options,
            report=report,
            plan=preparation.plan,
            active=preparation.active,
        )

    def _may_run(self, record: MigrationRecord) -> bool:
        """Whether the domain is here because of this very migration, and is not on its way to somewhere else."""
        ownership = self._local.store.ownership(record.uuid)
        is_mine = ownership is not None and ownership.state is OwnerState.OWNER and ownership.migration == record.id
        is_leaving = any(
            other.role is Role.SOURCE and other.uuid == record.uuid and not other.report.ended_at
            for other in self._local.store.migrations(unsettled=True)
        )
        return is_mine and not is_leaving

    def _waiting(self, uuid: str) -> MigrationRecord | None:
        ownership = self._local.store.ownership(uuid)
        if ownership is None or ownership.state is not OwnerState.INCOMING:
            return None
        return self._local.store.migration(ownership.migration)

    def _fetching(self, uuid: str) -> MigrationRecord | None:
        """The migration whose guest runs here and lacks memory, if that is so for the domain."""
        found = (self._local.store.migration(known) for known, arrival in self._arrivals.items() if arrival.fetching)
        return next((record for record in found if record is not None and record.uuid == uuid), None)

    def _verdict(self, record: MigrationRecord) -> Verdict | None:
        return self._local.store.verdict(record.id)

    def _arrival(self, record: MigrationRecord) -> Arrival:
        return self._arrivals.setdefault(record.id, Arrival(heard_at=self._now()))

    def _guest(self, record: MigrationRecord) -> Guest | None:
        guest = self._local.guest(record.uuid)
        return None if guest is None or guest.is_gone else guest

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _is_own_end(event: GuestEvent) -> bool:
    """Whether the guest has shut down by itself; QEMU says as much of one that it was told to end."""
    return event.kind is GuestEventKind.SHUT_DOWN and bool(event.data.get("guest"))


def _may_be_split(record: MigrationRecord) -> bool:
    """Whether the guest may run here before all of its memory has come."""
    return record.active and record.plan is not None and record.plan.may_postcopy


def _disks(record: MigrationRecord) -> tuple[DiskCopy, ...]:
    """What is copied beside the memory."""
    return record.plan.disks if record.plan is not None else ()
