"""The source of a migration: it leads, phase by phase, and goes back or forward when something breaks.

The order of things that must hold is in two tables, `phases.PHASES` and `model.ownership.TRANSITIONS`; here is what
is done in each phase.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from ldoms.checks import evaluate
from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.states import ENDED, IN_POSTCOPY, GuestEvent, MigrationEnd, MigrationStatus, RunState
from ldoms.migration.clock import measure_clock, read_guest_time
from ldoms.migration.copying import (
    CANCEL_S,
    LATE_CANCEL_S,
    WAITING_LEAST,
    WAITING_S,
    MemoryCopy,
    make_run,
    make_run_later,
    stop_copy,
)
from ldoms.migration.disks import DiskCopies, WithDisks
from ldoms.migration.forecasting import Forecasting
from ldoms.migration.gates import gate
from ldoms.migration.journal import Journal, durably
from ldoms.migration.link import LAST_RETRY_S, TargetLink, abort_target, persist
from ldoms.migration.local import LocalHost, Observer
from ldoms.migration.peer import Connector, Credentials
from ldoms.migration.phases import PHASES, Restart, Undo, phases_of
from ldoms.migration.plan import copying_threads, make_plan
from ldoms.migration.postcopy import PageService
from ldoms.migration.queue import SendingQueue
from ldoms.model.boost import Boost, BoostWish
from ldoms.model.domain import Domain
from ldoms.model.errors import Cancelled, CheckFailed, HostError, LdomsError, PeerError, RequestError
from ldoms.model.events import EventKind
from ldoms.model.findings import blocking
from ldoms.model.guest import GuestTime
from ldoms.model.migration import (
    CheckFacts,
    Description,
    LimitChanges,
    MigrationPlan,
    MigrationRecord,
    MigrationReport,
    Outcome,
    Postcopy,
    Preparation,
    TargetStatus,
    Ticket,
)
from ldoms.model.named_cores import with_core_map
from ldoms.model.ownership import Action, OwnerEvent, Ownership, OwnerState, Verdict, advance
from ldoms.model.phases import QUEUED, Phase
from ldoms.model.queue import Queued, Turn
from ldoms.store import StoreFailed

ASK_LOST_S = 15.0
"""How long a target is asked whether it has a complete copy, when this host's has died."""
ABORT_TRIES_S = 600.0
"""How long a target that cannot be reached is told, again and again, that a migration is off."""
SETTLE_TRIES, SETTLE_PAUSE_S = 20, 0.5
"""How often the target is asked for what it does after the hand-off."""
TELL_LATER_S = 1.0
LATE_POLL_S = 0.25
TELL_LATE_S = 2.0
"""A target that is too slow to get ready in time is not waited for any longer before its end is said here."""
ANSWER_SOON_S = 2.0
"""A target that has not answered the hand-off within so long is waited for without a boost."""

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class SourceMigration:
    """One migration away from this host.

    `run` goes through it from the beginning, `resume` from wherever a restart has found it. Both return the report
    of a migration that has succeeded; every other end is an error, and the domain is here as before.
    """

    def __init__(
        self,
        local: LocalHost,
        connector: Connector,
        journal: Journal,
        observer: Observer,
        let_go: Callable[[str], Awaitable[None]],
        queue: SendingQueue,
    ) -> None:
        """Lead the migration of the journal's record.

        Args:
            local: this host.
            connector: to the other one.
            journal: of the migration.
            observer: hears how far it is.
            let_go: ends what is still to be done about the earlier arrival of the domain with that UUID.
            queue: of the migrations that leave this host.
        """
        self._queue = queue
        self._place = (0, "")
        self._let_go = let_go
        self._local = local
        self._connector = connector
        self._journal = journal
        self._observer = observer
        self._facts: CheckFacts | None = None
        self._forecasting: Forecasting | None = None
        self._ticket = Ticket()
        self._events: asyncio.Queue[GuestEvent] = asyncio.Queue()
        self._opened_link: TargetLink | None = None
        self._waits_for_word = False
        self._reclaimed = asyncio.Event()
        self._untold: list[tuple[asyncio.TimerHandle, Phase]] = []

    @property
    def record(self) -> MigrationRecord:
        """The record as it stands."""
        return self._journal.record

    # Ways in

    async def run(self, credentials: Credentials) -> MigrationReport:
        """Migrate the domain of the journal's record.

        Raises:
            CheckFailed: requirements are not met; nothing was started.
            MigrationError: it failed later; the domain is here as before.
            Cancelled: somebody asked for an end; the domain is here as before.
        """
        return await self._lead(lambda: self._go_through(phases_of(self.record.active)), credentials)

    async def check(self, credentials: Credentials) -> MigrationReport:
        """Phase 1 alone, for a dry run: ask both hosts everything, and change nothing.

        Raises:
            CheckFailed: requirements are not met.
        """
        return await self._lead(lambda: self._go_through((Phase.CHECK,)), credentials)

    async def resume(self) -> MigrationReport:
        """Go on with a migration that a restart of the manager has interrupted, or take it back."""

        async def go_on() -> MigrationReport:
            phases = phases_of(self.record.active)
            next_phase = await self._where_to_go_on()
            if next_phase is Phase.COPY:
                await self._boost()
            return await self._go_through(phases[phases.index(next_phase) :])

        return await self._lead(go_on, Credentials(token=self.record.token))

    def reclaim(self) -> None:
        """Settle a hand-off whose target is lost for good: the domain is ours again, and its guest resumes.

        Only an administrator can know that the target is lost. If it is not, the guest may run twice.
        """
        self._reclaimed.set()

    def change_limits(self, changes: LimitChanges, user: str) -> None:
        """Change limits of a migration whose guest still runs here; a copy takes them up when it next looks.

        Raises:
            RequestError: it is too late, or there is no guest whose memory is copied.
        """
        name = self.record.name
        if not self.record.active:
            raise RequestError(
                f"LDom {name} moves without a guest: its migration has no limits to be changed", code="no-limits"
            )
        if self.record.called_off or self.record.phase not in (Phase.CHECK, Phase.PREPARE, Phase.COPY):
            raise RequestError(
                f"the migration of LDom {name} is past its copy: its limits cannot be changed any more",
                code="too-late",
            )
        self._journal.change_limits(changes, user)

    # The way through

    async def _lead(
        self, way: Callable[[], Coroutine[Any, Any, MigrationReport]], credentials: Credentials
    ) -> MigrationReport:
        try:
            async with TargetLink.open(self._connector, self.record, credentials) as self._opened_link:
                with self._subscribed():
                    return await way()
        except LdomsError as error:
            await self._take_back(error)
            raise
        except Exception as bug:  # a mistake of ours is no reason to leave a guest suspended, or a target waiting
            await self._take_back(self._journal.error(f"internal error: {bug!r}", "internal"))
            raise
        finally:
            if self._forecasting is not None:
                await self._forecasting.close()
            self._tell_now()
            await self._give_back()

    async def _go_through(self, phases: tuple[Phase, ...]) -> MigrationReport:
        for phase in phases:
            if phase is Phase.PREPARE and self.record.active:
                await self._or_cancelled(self._wait_for_turn, lambda: f"it waits for its turn: {self._place[1]}")
            self._enter(phase)
            await gate(f"source-{phase.value}")
            step = self._steps[phase]
            await (step() if PHASES[phase].undo is Undo.IMPOSSIBLE else self._or_cancelled(step, self._too_slow(phase)))
        await self._give_back()
        return await self._end(Outcome.DONE)

    @property
    def _steps(self) -> Mapping[Phase, Callable[[], Coroutine[Any, Any, None]]]:
        return {
            Phase.CHECK: self._check,
            Phase.PREPARE: self._prepare,
            Phase.COPY: self._send,
            Phase.SUSPEND: self._suspend,
            Phase.HAND_OFF: self._hand_off,
        }

    def _too_slow(self, phase: Phase) -> Callable[[], str] | None:
        """Says what a phase has waited for when the time is over; None = nothing was promised, or it looks itself."""
        if self.record.options.dry_run:
            return None
        match phase:
            case Phase.CHECK:
                return lambda: f"{self.record.peer} has not answered all that is asked before"
            case Phase.PREPARE:
                return lambda: f"{self.record.peer} is not ready for it"
        return None

    def _enter(self, phase: Phase) -> None:
        self._journal.enter(phase, self._journal.report.stopped_at if phase is Phase.SUSPEND else 0.0)
        self._observer.update(phase=phase.value, may_cancel=PHASES[phase].undo is not Undo.IMPOSSIBLE)
        self._link.phase = phase.value
        # While the guest stands still, telling others can wait: it costs a write to the disk.
        stands_still = self.record.active and phase in (Phase.SUSPEND, Phase.HAND_OFF)
        later = asyncio.get_running_loop().call_later(TELL_LATER_S if stands_still else 0.0, self._tell_now)
        self._untold.append((later, phase))

    def _tell_now(self) -> None:
        untold, self._untold = self._untold, []
        for later, phase in untold:
            later.cancel()
            self._publish(EventKind.MIGRATION_PHASE_ENTERED, phase=phase.value)

    # Phase 1

    async def _check(self) -> None:
        if self.record.active and (guest := self._guest_or_none()) is not None:
            thorough = self.record.options.dry_run
            self._forecasting = Forecasting(self._local, guest, self.record.uuid, thorough=thorough)
        # The guest is asked while the target describes itself.
        guest_time = asyncio.create_task(self._read_guest_time(), name=f"guest-time-{self.record.name}")
        try:
            self._facts = await self._collect_facts(guest_time)
        finally:
            guest_time.cancel()
        facts, findings = self._facts, evaluate(self._facts)
        self._journal.note(
            findings=findings, clock=facts.clock, guest_time=facts.guest_time, target=facts.target.host.name
        )
        stops = blocking(findings, force=facts.options.force)
        if stops:
            raise CheckFailed(
                "\n".join(finding.message for finding in stops), findings, domain=facts.domain.domain.name
            )
        # The limits may have been changed since the facts were asked for.
        self._facts = facts = replace(facts, options=self.record.options)
        plan = self._make_plan(facts)
        if self._forecasting is not None:
            self._forecasting.checked()
            if self.record.options.dry_run:
                assert plan is not None
                await self._forecasting.measure(facts, plan, self._link.peer, self.record.id)
                plan = self._make_plan(facts)  # the speed of the link is known now
                assert plan is not None
                self._journal.note(forecast=self._forecasting.guess(facts, plan))

    def _make_plan(self, facts: CheckFacts) -> MigrationPlan | None:
        plan = None
        if self.record.active:
            if (measured := self._forecasting) is not None:
                facts = replace(facts, link=measured.known_link(facts), source_control_cpus=measured.control_cpus)
            plan = make_plan(facts)
        self._journal.amend(plan=plan)
        self._journal.note(plan=plan)
        return plan

    async def _collect_facts(self, guest_time: Awaitable[GuestTime | None]) -> CheckFacts:
        options, domain = self.record.options, self._domain()
        beacon, content = beacon_name(self.record.id), secrets.token_hex(16)
        try:
            facts = await self._local.describe_domain(domain, beacon, content)
            description = Description(
                migration=self.record.id,
                source=self._local.facts,
                domain=facts,
                new_name=options.new_name,
                encrypted=options.encrypted,
                beacon=beacon,
                copy_storage=options.copy_storage,
            )
            answer = await self._link.peer.describe(description)
        finally:
            await self._local.take_beacons_back(domain, beacon)
        address = self._link.peer.address
        self._link.peer.use_token(answer.token)
        self._journal.amend(token=answer.token, address=address)
        return CheckFacts(
            options=options,
            source=self._local.facts,
            domain=facts,
            target=answer.target,
            clock=await measure_clock(self._link.peer, self.record.id),
            source_data_mtu=await self._local.mtu_towards(address),
            guest_time=await guest_time,
            source_free_strands=self._local.free_strands(),
        )

    async def _read_guest_time(self) -> GuestTime | None:
        guest = self._guest_or_none()
        return await read_guest_time(guest) if guest is not None else None

    # Between phases 1 and 2

    async def _wait_for_turn(self) -> None:
        """Wait until neither host has too many migrations under way; what was checked before may not hold any more."""
        assert self._facts is not None
        grants_turns = self._facts.target.grants_turns

        async def ask() -> Turn:
            return await self._link.peer.ask_turn(self.record.id) if grants_turns else Turn(True)

        waited = await self._queue.wait(self.record.id, self.record.name, ask, self._note_queued)
        if not waited:
            return
        queued = self._journal.report.queued
        assert queued is not None
        self._journal.note(queued=replace(queued, position=0, seconds=time.time() - queued.since_at))
        self._observer.update(phase=Phase.CHECK.value, figures={})
        if self._forecasting is not None:
            await self._forecasting.close()
        await self._check()

    def _note_queued(self, position: int, reason: str) -> None:
        if self._place == (position, reason):
            return
        self._place, known = (position, reason), self._journal.report.queued
        queued = Queued(position, reason, known.since_at if known else time.time())
        self._journal.note(queued=queued)
        self._journal.write()  # a restart of the manager finds it
        self._observer.update(phase=QUEUED, figures={"position": position, "reason": reason})
        _log.info("migration-queued", position=position, reason=reason)

    # Phase 2

    async def _prepare(self) -> None:
        assert self._facts is not None
        await self._let_go(self.record.uuid)
        options = self.record.options
        plan = self.record.plan
        key = secrets.token_hex(32) if plan and plan.encrypted else ""
        await self._boost()
        self._journal.write()
        self._ticket = await self._link.peer.prepare(
            Preparation(
                migration=self.record.id,
                epoch=self.record.epoch,
                source=self._local.facts.name,
                domain=with_core_map(self._domain(), options.core_map),
                new_name=options.new_name,
                active=self.record.active,
                user=self._journal.report.user,
                plan=plan,
                options=options,
                keeps_time=self._facts.guest_time is not None and self._facts.guest_time.is_synchronised,
                key=key,
            )
        )
        self._link.heard()
        if plan is not None and self._forecasting is not None:
            # As late as it can be: the measurements have had all the time that the preparation took.
            self._note_guess(self._forecasting, self._facts, plan)
        self._link.bandwidth_bytes_s = self._ticket.bandwidth_bytes_s
        if boost := self._journal.report.boost:
            self._journal.note(boost=replace(boost, target_strands=self._ticket.lent_strands))
        if plan is not None:
            assert self.record.plan is not None
            await self._guest().set_migration(MigrationEnd.SEND, self.record.plan, key)

    async def _boost(self) -> None:
        """Have strands lent to the control domain, if that was asked for; a restart has ended what was lent before."""
        asked, plan = self.record.options.boost, self.record.plan
        if asked is None or plan is None:
            return
        lent, reason = await self._local.lend(self.record.id, BoostWish(asked, copying_threads(plan)))
        boost = self._journal.report.boost or Boost(asked, lent, time.time(), reason=reason)
        self._journal.note(boost=replace(boost, returned_at=0.0))

    async def _give_back(self) -> None:
        """The copy is over: what was lent is given back."""
        taken, boost = await self._local.give_back(self.record.id), self._journal.report.boost
        if boost is not None and not boost.returned_at:
            self._journal.note(boost=replace(boost, returned_at=time.time(), taken=taken))

    def _note_guess(self, forecasting: Forecasting, facts: CheckFacts, plan: MigrationPlan) -> None:
        try:
            self._journal.note(forecast=forecasting.guess(facts, plan))
        except Exception:
            _log.exception("not-forecast", domain=self.record.name)

    # Phases 3 and 4

    async def _send(self) -> None:
        plan = self.record.plan
        assert plan is not None
        if not plan.disks:
            self._waits_for_word = await self._memory_copy().send(self._ticket, self._observer)
            return
        disks = DiskCopies(self._guest(), self._journal, self._link)
        if (await self._guest().progress()).status in (MigrationStatus.NONE, *ENDED):
            # Else this is after a restart of the manager: the disks have been copied, and the memory is on its way.
            await self._guest().drop_mirrors()  # of an earlier attempt whose end this QEMU has not heard of
            await disks.send(self._ticket, self._observer, self._memory_mib())
            await gate("source-disks-copied")
        observer = WithDisks(self._observer, self._journal.report.storage)
        self._waits_for_word = await disks.beside(self._memory_copy().send(self._ticket, observer))

    async def _suspend(self) -> None:
        if self._guest_or_none() is None or not await self._memory_copy().switch_over(waits=self._waits_for_word):
            await self._ask_for_complete_copy()

    async def _ask_for_complete_copy(self) -> None:
        """This host's QEMU has died in the last part of the copy: if the target has it all, the guest is not lost."""

        async def ask() -> TargetStatus:
            status = await self._link.status()
            if not (status.complete or status.error or status.verdict):
                raise PeerError("the target is still receiving")
            return status

        status = await persist(ask, limit_s=ASK_LOST_S)
        if not status.complete:
            raise self._journal.error("QEMU on this host has ended in the middle of the copy", "qemu-died")
        _log.warning("source-qemu-died", consequence="the target has a complete copy and takes over")

    # Phase 5

    async def _hand_off(self) -> None:
        if self._ownership().state is OwnerState.OWNER:
            await self._note_postcopy()
            await self._decide(OwnerEvent.SENT_ALL)
        await gate("source-handing-off")
        if self._ownership().state is OwnerState.GONE:
            await durably(lambda: self._carry_out(Action.REMOVE))
            self._check_alive()
            return
        async with self._serving() as service:
            status = await self._or_reclaimed(self._ask_for_verdict())
            if status is not None and status.verdict is Verdict.TAKEN:
                self._journal.note_resumed(status)
                if service is not None and await self._or_reclaimed(service.wait()) is None:
                    status = None
        if status is None:
            settled = "the hand-off was settled by force: the domain is on this host again"
            settled += await self._lost_with_it()
            await self._decide(OwnerEvent.RECLAIMED, called_off=settled)
            raise self._journal.error(settled, "reclaimed")
        if status.verdict is Verdict.REFUSED:
            reason = f": {status.error}" if status.error else ""
            refused = f"the target has refused to take over{reason}{await self._lost_with_it()}"
            await self._decide(OwnerEvent.PEER_REFUSED, called_off=refused)
            raise self._journal.error(refused, "refused")
        if self._guest_or_none() is not None and self.record.active:
            await self._memory_copy().note_figures()
        await self._decide(OwnerEvent.PEER_TOOK)
        self._check_alive()

    # Postcopy: the guest is handed over before all of its memory is

    async def _note_postcopy(self) -> None:
        """Whether the guest goes over before all of its memory does; it goes to disk with the hand-off."""
        guest = self._guest_or_none()
        if guest is None or self.record.plan is None or not self.record.plan.may_postcopy:
            return
        try:
            progress = await guest.progress()
        except HostError:  # it may be, and is looked at again: from there is no way back
            self._journal.note(postcopy=Postcopy(time.time(), 0))
            return
        if progress.status in IN_POSTCOPY:
            begun = Postcopy(time.time(), progress.remaining_bytes, progress.transferred_bytes)
            self._journal.note(postcopy=begun)

    def _serving(self) -> AbstractAsyncContextManager[PageService | None]:
        """Send what the target lacks, from the hand-off on: it may need some of it before it can take over."""
        report = self._journal.report
        if report.postcopy is None:
            return nullcontext()
        bandwidth = report.stall.bandwidth_bytes_s if report.stall else 0.0
        may_wait = max(WAITING_LEAST, round(bandwidth * WAITING_S))
        return PageService(self._guest_or_none, self._journal, self._link, self._observer, may_wait)

    async def _lost_with_it(self) -> str:
        """What is said of a guest that cannot run on, as QEMU has sent it in parts; empty if it can."""
        guest = self._guest_or_none()
        if self._journal.report.postcopy is None or (guest is not None and not await _is_split(guest)):
            return ""
        return (
            f"; its guest is lost, as it had been sent in parts and has been whole on neither host: it is ended, and"
            f" 'ldm start-domain {self.record.name}' starts it anew"
        )

    def _check_alive(self) -> None:
        """Tell of a guest that was lost on the target, which has its domain.

        Raises:
            MigrationError: it was.
        """
        known = self._journal.report.postcopy
        if known is not None and known.is_lost:
            name, target = self.record.report.target_name, self.record.report.target
            raise self._journal.error(
                f"the guest has ended on {target} before all of its memory had come. The domain is there, bound:"
                f" 'ldm start-domain {name}' starts it anew",
                "guest-lost",
            )

    async def _ask_for_verdict(self) -> TargetStatus:
        """Ask until there is an answer: until then the guest stays stopped here, as it may run there."""
        return await persist(lambda: self._link.peer.finish(self.record.id), on_failure=self._undecided)

    async def _or_reclaimed(self, work: Awaitable[T]) -> T | None:
        """What `work` comes to; None if an administrator ends the waiting for it."""
        task = asyncio.ensure_future(work)
        force = asyncio.create_task(self._reclaimed.wait(), name="reclaimed")
        try:
            done, _ = await asyncio.wait({task, force}, timeout=ANSWER_SOON_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                if self._journal.report.postcopy is None:  # it may take for ever, and nothing is copied any more
                    await self._give_back()
                await asyncio.wait({task, force}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for one in (task, force):
                one.cancel()

    def _undecided(self, error: LdomsError) -> None:
        if error.code == "still-arriving":
            return
        if self._journal.report.outcome is not Outcome.UNDECIDED:
            self._journal.note(outcome=Outcome.UNDECIDED, cause=error.message)
            with suppress(StoreFailed):  # only for those who read reports; it is known here
                self._journal.write()
            _log.error(
                "hand-off-undecided", reason=error.message, consequence="the guest stays suspended; asking again"
            )

    async def _decide(self, event: OwnerEvent, called_off: str = "") -> None:
        """Take one step of the ownership table: durable first, then the action."""
        after, action = advance(self._ownership(), event)
        self._journal.amend(called_off=called_off)

        async def write() -> None:
            with self._local.store.transaction():
                self._local.store.put_ownership(after)
                self._journal.write()

        # Before the hand-off a failure is one of the migration; after it there is no way but on.
        await (write() if event is OwnerEvent.SENT_ALL else durably(write))
        await gate(f"source-{event.value}")
        await durably(lambda: self._carry_out(action))

    async def _carry_out(self, action: Action) -> None:
        match action:
            case Action.REMOVE:
                await self._local.remove(self.record.uuid)
            case Action.RESUME:
                await self._make_run()
            case Action.ASK_TARGET:
                pass  # what follows does it
            case _:
                raise AssertionError(f"{action} is not for a source")

    async def settle(self) -> None:
        """Wait for what the target does after the hand-off, complete the report with it, and share the report."""
        with suppress(LdomsError):
            async with TargetLink.open(self._connector, self.record, Credentials(token=self.record.token)) as link:
                for _ in range(SETTLE_TRIES):
                    status = await link.status()
                    if status.settled:
                        self._journal.note(guest_clock=status.guest_clock)
                        self._journal.write()
                        break
                    await asyncio.sleep(SETTLE_PAUSE_S)
                await link.peer.deliver_report(self._journal.report)

    # The way back

    async def _take_back(self, error: LdomsError) -> None:
        """Undo what was done; the domain is here, as before."""
        if error.code == "guest-lost" and self._ownership().state is OwnerState.GONE:
            await self._give_back()
            await self._end(Outcome.FAILED, error.message)
            return
        if self._ownership().state is not OwnerState.OWNER:
            # It is handed over, or gone: nothing can be undone, and a restart of the manager goes on with it.
            _log.error("hand-off-interrupted", reason=error.message)
            return
        is_told = True
        if PHASES[self.record.phase].undo is not Undo.NOTHING:
            # On disk first: after a restart, a guest that runs here again must not look as if it had been sent.
            self._journal.amend(called_off=error.message)
            await self._journal.write_durably()
            await gate("source-called-off")
            await self._bring_guest_back(error)
            await self._give_back()
            is_slow = self.record.phase is Phase.PREPARE and error.code == "promise"
            is_told = await self._tell_target(error.message, TELL_LATE_S if is_slow else None)
        await self._give_back()
        outcome = Outcome.CANCELLED if isinstance(error, Cancelled) else Outcome.FAILED
        await self._end(outcome, error.message, settled=is_told and not self.record.suspended)

    async def _bring_guest_back(self, error: LdomsError) -> None:
        guest = self._guest_or_none()
        if guest is None or not self.record.active:
            return
        is_late = error.code == "promise" and self.record.phase is Phase.SUSPEND
        await stop_copy(guest, LATE_CANCEL_S if is_late else CANCEL_S)
        try:
            await self._make_run()
            if self._journal.report.stopped_at:
                self._journal.note(resumed_at=time.time())
        except HostError as problem:
            if guest.is_gone:
                return
            self._journal.amend(suspended=True)
            error.message += (
                f"; the guest is suspended: {problem.message}; it is resumed as soon as that can be done, and"
                f" 'ldm stop-domain -f {self.record.name}' ends it instead"
            )
            _log.error("guest-not-resumed", reason=problem.message, consequence="tried again and again")

    async def settle_later(self) -> None:
        """Do what is left of a migration that has failed: resume the guest, and tell the target that it is off."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._resume_later())
            both.create_task(self._tell_later())
        self._journal.amend(settled=True)
        await self._journal.write_durably()

    async def _resume_later(self) -> None:
        guest = self._guest_or_none()
        if not self.record.suspended or guest is None:
            return
        await make_run_later(guest, lambda: self._ownership().state is OwnerState.OWNER)
        self._journal.amend(suspended=False)
        await self._journal.write_durably()
        _log.info("guest-resumed-late", domain=self.record.name, has_ended=guest.is_gone)

    async def _tell_later(self) -> None:
        """A target that could not be reached may have cleaned up by itself meanwhile."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ABORT_TRIES_S
        while loop.time() < deadline and not await self._tell_target(self._journal.report.cause):
            await asyncio.sleep(LAST_RETRY_S)

    async def _tell_target(self, reason: str, limit_s: float | None = None) -> bool:
        """Whether the target knows that it is off; it may be told again if it has not said so within the limit."""
        try:
            async with asyncio.timeout(limit_s):
                status = await abort_target(self._connector, self.record, reason)
        except (LdomsError, TimeoutError) as error:
            _log.warning("target-not-told", reason=str(error) or "it is busy")
            return False
        if status is not None and status.verdict is Verdict.TAKEN:
            await self._taken_after_all()
        return True

    async def _taken_after_all(self) -> None:
        """The target took over by force while this host was lost: it is theirs, unless the guest runs here again."""
        if self._guest_or_none() is None or self.record.suspended:
            await self._decide(OwnerEvent.PEER_TOOK)
        else:
            _log.critical("two-copies", domain=self.record.name, remedy="stop one of them at once: both may run")
            self._publish(EventKind.DOMAIN_DOUBLED)

    async def _make_run(self) -> None:
        assert self._ownership().state is OwnerState.OWNER, "only an owner lets a guest run"
        guest = self._guest_or_none()
        if guest is not None and self.record.active:
            if self.record.plan is not None and self.record.plan.disks:
                await guest.drop_mirrors()
            if await _is_split(guest):
                _log.error("guest-lost", domain=self.record.name, reason="QEMU had begun to send it in parts")
                await guest.quit()  # it never runs again, here or there
                return
            await make_run(guest)

    async def _end(self, outcome: Outcome, cause: str = "", *, settled: bool = True) -> MigrationReport:
        report = self._journal.end(outcome, cause, settled=settled)
        await self._journal.write_durably()
        self._tell_now()
        self._publish(EventKind.MIGRATION_ENDED, outcome=outcome.value, cause=cause)
        return report

    # After a restart

    async def _where_to_go_on(self) -> Phase:
        if self.record.called_off:
            raise self._journal.error(self.record.called_off, "restarted")
        match PHASES[self.record.phase].restart:
            case Restart.ROLL_BACK:
                raise self._journal.error("the manager was restarted before the copy began", "restarted")
            case Restart.GO_ON:
                return Phase.HAND_OFF
        guest = self._guest_or_none()
        if guest is None:
            await self._ask_for_complete_copy()
            return Phase.HAND_OFF
        progress = await guest.progress()
        match progress.status:
            case MigrationStatus.COMPLETED if await guest.state() is RunState.SENT:
                return Phase.HAND_OFF
            case MigrationStatus.PRE_SWITCHOVER | MigrationStatus.DEVICE:
                return Phase.SUSPEND
            case status if status in IN_POSTCOPY:
                return Phase.HAND_OFF
            case MigrationStatus.NONE | MigrationStatus.FAILED | MigrationStatus.CANCELLED | MigrationStatus.COMPLETED:
                reason = progress.error or progress.status
                raise self._journal.error(f"the copy ended while the manager was away: {reason}", "restarted")
        return Phase.COPY

    # Small things

    @property
    def _link(self) -> TargetLink:
        assert self._opened_link is not None
        return self._opened_link

    def _domain(self) -> Domain:
        domain = self._local.store.domain_by_uuid(self.record.uuid)
        assert domain is not None, "a migration holds its domain"
        return domain

    def _guest(self) -> Guest:
        guest = self._guest_or_none()
        if guest is None:
            raise self._journal.error("the guest has ended on this host", "qemu-died")
        return guest

    def _guest_or_none(self) -> Guest | None:
        guest = self._local.guest(self.record.uuid)
        return None if guest is None or guest.is_gone else guest

    def _memory_mib(self) -> int:
        bindings = self._domain().bindings
        return bindings.memory_mib if bindings is not None else 0

    def _memory_copy(self) -> MemoryCopy:
        assert self.record.plan is not None
        share = functools.partial(self._queue.share, self.record.id)
        return MemoryCopy(self._guest(), self._events, self.record.plan, self._journal, self._link, share)

    def _ownership(self) -> Ownership:
        known = self._local.store.ownership(self.record.uuid)
        if known is not None and known.migration == self.record.id:
            return known
        return Ownership(self.record.uuid, self.record.epoch - 1, OwnerState.OWNER, self.record.id)

    def _publish(self, kind: EventKind, **data: object) -> None:
        self._local.publish(kind, self.record.name, migration=self.record.id, **data)

    @contextmanager
    def _subscribed(self) -> Iterator[None]:
        guest = self._guest_or_none()
        if guest is None:
            yield
            return
        with guest.events() as self._events:
            yield

    async def _or_cancelled(
        self, work: Callable[[], Coroutine[Any, Any, None]], too_slow: Callable[[], str] | None
    ) -> None:
        """Do `work`, unless somebody asks for an end before it is done, or what was promised ends.

        Args:
            work: to do.
            too_slow: says what it has waited for when the time is over; None = `work` looks at the time itself.
        """
        if self._observer.cancelled.is_set():
            raise self._cancellation()
        task = asyncio.ensure_future(work())
        wish = asyncio.ensure_future(self._observer.cancelled.wait())
        late = asyncio.ensure_future(self._until_late(too_slow))
        try:
            await asyncio.wait({task, wish, late}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return
            end = self._cancellation() if wish.done() else self._journal.error(late.result(), "promise")
        finally:
            for other in (wish, late):
                other.cancel()
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, LdomsError):
                    await task
        raise end

    async def _until_late(self, too_slow: Callable[[], str] | None) -> str:
        """Wait until what is left of the time that was promised would only do for the suspension; say why it is over.

        The time may be changed meanwhile.
        """
        clock = asyncio.get_running_loop().time
        began = clock() - max(0.0, time.time() - self._journal.report.started_at)
        while True:
            options = self.record.options
            if too_slow is not None and (promised_s := options.max_time_s):
                rest_s = options.max_suspend_s if self.record.active else 0.0
                if clock() - began > promised_s - rest_s:
                    return (
                        f"the {promised_s:g} s that were promised for all of the migration of LDom {self.record.name}"
                        f" are over, and {too_slow()}; what would do: a longer --max-time"
                    )
            await asyncio.sleep(LATE_POLL_S)

    def _cancellation(self) -> Cancelled:
        return Cancelled(f"the migration of LDom {self.record.name} was cancelled")


async def _is_split(guest: Guest) -> bool:
    """Whether QEMU has begun to send a guest in a way that leaves it whole on neither host."""
    with suppress(HostError):
        return (await guest.progress()).status in IN_POSTCOPY
    return False


def beacon_name(migration: str) -> str:
    """The file that the source of a migration leaves beside each image for a moment."""
    return f".ldoms-{migration}"
