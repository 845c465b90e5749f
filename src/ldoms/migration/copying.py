"""Phases 3 and 4 on the source: memory crosses while the guest runs, then the guest stops and the rest crosses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.states import ENDED, IN_POSTCOPY, GuestEvent, GuestEventKind, MigrationStatus, RunState
from ldoms.migration.convergence import (
    GiveUp,
    PassSample,
    SetLimit,
    Situation,
    StartPostcopy,
    SuspendNow,
    Throttle,
    decide,
    promise_of,
)
from ldoms.migration.disks import end_copies
from ldoms.migration.journal import Journal
from ldoms.migration.link import TargetLink
from ldoms.migration.local import Observer
from ldoms.migration.unkept import milliseconds
from ldoms.model.codec import to_wire
from ldoms.model.errors import HostError, MigrationError
from ldoms.model.migration import MigrationPlan, OnStall, Progress, Ticket
from ldoms.model.phases import POSTCOPY

POLL_S = 0.25
STILL_POLL_S = 0.05
"""Of a guest that stands still meanwhile."""
REST_S = 3.0
"""What is left of a guest that was allowed to be suspended for all of it gets at least so long."""
CANCEL_S = 1.0
"""QEMU may end a copy by itself for so long; over a silent link it may not even answer, and the guest stands still."""
WAY_BACK_S = 0.05
"""Kept of what was promised for a guest whose last part is late: a write to disk, QEMU's cancel and ``cont``."""
LATE_CANCEL_S = 0.05
"""The same where the time that was promised is over already."""
STOP_S = 10.0
WAITING_FIRST, WAITING_LEAST, WAITING_S = 1 << 20, 64 * 1024, 0.02
"""So much of what is sent may wait in the kernel, beyond what is on its way: enough that the link has always something.

At first in bytes, and as soon as the bandwidth is known in what can be sent in that time.
"""
RESUME_TRIES, RESUME_PAUSE_S = 100, 0.05
LATER_S = 1.0
"""Between two tries to resume a guest whose QEMU has not answered, or has refused."""


class MemoryCopy:
    """The copy of one guest's memory, as its sending end sees it."""

    def __init__(
        self,
        guest: Guest,
        events: asyncio.Queue[GuestEvent],
        plan: MigrationPlan,
        journal: Journal,
        link: TargetLink,
        share: Callable[[int], int] = lambda wanted: 0,
    ) -> None:
        """Copy the memory of `guest`, whose `events` have been subscribed to before.

        `share` says what this host has left for the copy, which has a use for so much; 0 = not limited.
        """
        self._guest = guest
        self._events = events
        self._plan = plan
        self._journal = journal
        self._link = link
        self._promise = promise_of(plan)
        self._limit_s = plan.downtime_limit_s
        self._since_s = self._before_s = 0.0
        self._throttle_percent = 0
        self._is_suspended = self._goes_over = False
        self._samples: list[PassSample] = []
        self._is_told_limit = True
        self._share = share
        self._kept_to: tuple[int, int] | None = None

    async def send(self, ticket: Ticket, observer: Observer) -> bool:
        """Phase 3: send memory until QEMU has stopped the guest for the last part.

        A copy that is under way already, from before a restart of the manager, is followed from where it is.

        Returns:
            Whether QEMU now waits for our word to send the last part.

        Raises:
            MigrationError: it failed, or does not come to an end.
        """
        progress = await self._guest.progress()
        if progress.status in (MigrationStatus.NONE, *ENDED):
            self._journal.begin_copy(*self._cpu_use())
            if self._plan.stands_still:
                await self._guest.pause()
            await self._keep_to_share()
            await self._guest.send(ticket.host, ticket.port)
            self._guest.limit_unsent(WAITING_FIRST)
        else:
            # Nobody knows what QEMU was told before the restart.
            self._is_told_limit = False
            self._kept_to = None
        async with self._link.heartbeat():
            return await self._follow(observer)

    async def switch_over(self, *, waits: bool) -> bool:
        """Phase 4: send the rest. The guest stands still meanwhile; nothing here may dawdle.

        Args:
            waits: QEMU is known to wait for our word.

        Returns:
            Whether everything was sent that the guest needs to run there; False = this QEMU has died over it, and the
            target must be asked.

        Raises:
            MigrationError: it failed, and the guest can go on here.
        """
        try:
            if waits or (await self._guest.progress()).status == MigrationStatus.PRE_SWITCHOVER:
                await self._make_sure_of_target()
                await end_copies(self._guest, self._plan, self._journal)
                await self._guest.continue_switchover()
            async with asyncio.timeout(self._last_part_s()):
                status = await self._wait_ended()
        except (TimeoutError, HostError) as error:
            if self._guest.is_gone:
                return False
            if await self._is_in_postcopy():
                return True
            if isinstance(error, HostError):
                raise self._journal.error(
                    f"the last part of the copy failed: {error.message}", "copy-failed"
                ) from error
            raise self._journal.error(
                f"the last part of the copy did not arrive within the {milliseconds(self._plan.max_suspend_s)} that"
                f" LDom {self._journal.record.name} may stand still, although QEMU had expected it: the link, or one"
                " of the hosts, is slower than it was; what would do: a longer --max-suspend, or a time when they have"
                " less to do",
                "promise",
            ) from error
        if status is None:
            return False
        if status != MigrationStatus.COMPLETED and status not in IN_POSTCOPY:
            raise await self._failure(await self._guest.progress())
        return True

    async def _make_sure_of_target(self) -> None:
        """The last moment at which nothing is lost."""
        if self._plan.may_postcopy:
            # It has to know, too: from then on its copy is not discarded for the silence of this host.
            self._link.phase = POSTCOPY
            is_alive = await self._link.status_now() is not None
        else:
            is_alive = await self._link.is_alive()
        if not is_alive:
            raise self._journal.error("the target's manager does not answer: it gets nothing", "peer-silent")

    async def _is_in_postcopy(self) -> bool:
        """Whether QEMU has passed the point of no return while nobody looked."""
        with suppress(HostError):
            return self._plan.may_postcopy and (await self._guest.progress()).status in IN_POSTCOPY
        return False

    async def note_figures(self) -> None:
        """Put QEMU's own figures into the report, and the guest's cost; after the hand-off, as questions take time."""
        self._journal.note_slowdown(*self._cpu_use())
        with suppress(HostError):
            self._journal.note_copied(await self._guest.progress())

    # Inside

    def _cpu_use(self) -> tuple[float, float]:
        """For how long the virtual CPUs have run so far, and waited for a CPU."""
        return sum(self._guest.cpu_seconds()), sum(self._guest.cpu_wait_seconds())

    def _last_part_s(self) -> float:
        """How long the last part may take: after it the guest goes on here within what was promised."""
        promised_s, stopped_at = self._plan.max_suspend_s, self._journal.report.stopped_at
        if self._plan.stands_still or self._plan.on_stall is OnStall.SUSPEND or self._goes_over:
            return max(REST_S, 3 * promised_s)
        most_s = promised_s - min(WAY_BACK_S, promised_s / 3)
        left_s = stopped_at + most_s - time.time() if stopped_at else most_s
        # It may be over already, after a restart of the manager. To go on is as quick then as to go back.
        return left_s if 0 < left_s < most_s else most_s

    async def _follow(self, observer: Observer) -> bool:
        loop = asyncio.get_running_loop()
        began, seen_passes = loop.time(), 0
        self._before_s = max(0.0, time.time() - self._journal.report.started_at)
        # A restart of the manager finds it so.
        self._is_suspended = self._plan.on_stall is OnStall.SUSPEND and await self._guest.state() is RunState.PAUSED
        while True:
            status, known = await self._next_status(), bool(self._journal.report.passes)
            if status == MigrationStatus.PRE_SWITCHOVER and known:
                self._journal.note_throttle(0, loop.time())
                return True
            progress = await self._guest.progress()
            observer.update(progress=progress.percent, figures=to_wire(progress))
            self._link.progress = progress.percent
            # A quick copy stops the guest before anybody has looked: its first pass has ended all the same.
            if progress.passes > seen_passes > 0 or (progress.status == MigrationStatus.PRE_SWITCHOVER and not known):
                self._journal.note_pass(progress)
                self._keep_kernel_short(progress)
                self._samples.append(_sample(loop.time() - began, progress, self._guest.unsent_bytes()))
            seen_passes = max(seen_passes, progress.passes)
            self._journal.note_throttle(progress.throttle_percent, loop.time())
            if progress.status == MigrationStatus.PRE_SWITCHOVER:
                self._catch_up()
                return True
            if progress.status == MigrationStatus.COMPLETED:
                return False
            if progress.status in ENDED:
                raise await self._failure(progress)
            await self._heed(loop.time() - began)
            await self._steer(loop.time() - began, progress)

    def _keep_kernel_short(self, progress: Progress) -> None:
        """What waits in the kernel is part of the suspension."""
        if not self._samples and progress.bandwidth_bytes_s > 0:
            self._guest.limit_unsent(max(WAITING_LEAST, round(progress.bandwidth_bytes_s * WAITING_S)))

    async def _heed(self, now_s: float) -> None:
        """Take up what an administrator has changed of the limits meanwhile, and what a restart has left open."""
        plan = self._journal.record.plan
        assert plan is not None
        if plan is not self._plan:
            self._plan, self._promise, self._since_s = plan, promise_of(plan), now_s
        await self._keep_to_share()
        if self._limit_s > self._promise.most_limit_s or not self._is_told_limit:
            self._limit_s = min(self._limit_s, self._promise.most_limit_s)
            await self._guest.set_downtime_limit(self._limit_s)
            self._is_told_limit = True

    async def _keep_to_share(self) -> None:
        """Send no faster than was asked for, and than either host has left for this copy."""
        most = self._plan.max_bandwidth_bytes_s
        limits = (most, self._share(most), self._link.bandwidth_bytes_s)
        kept_to = (most, min((limit for limit in limits if limit), default=0))
        if kept_to != self._kept_to:
            await self._guest.set_bandwidth(kept_to[1])
            if self._kept_to is not None:
                self._samples = []  # what they say of the rest no longer holds
            self._kept_to = kept_to

    async def _steer(self, now_s: float, progress: Progress) -> None:
        situation = Situation(
            passes=self._samples,
            now_s=now_s,
            limit_s=self._limit_s,
            silence_s=self._link.silence_s,
            since_s=self._since_s,
            before_s=self._before_s,
            still_s=progress.elapsed_s if self._plan.stands_still else 0.0,
            throttle_percent=self._throttle_percent,
            throttled_percent=progress.throttle_percent,
            is_suspended=self._is_suspended,
            goes_over=self._goes_over,
        )
        match decide(situation, self._promise):
            case SetLimit(seconds):
                await self._guest.set_downtime_limit(seconds)
                self._since_s = now_s if seconds > self._limit_s else self._since_s
                self._limit_s = seconds
            case Throttle(percent):
                self._journal.note_measure(f"held back by {percent} %", self._samples, now_s)
                await self._guest.throttle(percent)
                self._throttle_percent, self._since_s = percent, now_s
            case SuspendNow():
                self._journal.note_measure("suspended for the rest", self._samples, now_s)
                await self._guest.pause()
                self._is_suspended, self._since_s = True, now_s
            case StartPostcopy():
                self._journal.note_measure("handed over before the rest", self._samples, now_s)
                await self._guest.start_postcopy()
                self._goes_over, self._since_s = True, now_s
            case GiveUp(reason, None):
                raise self._journal.error(reason, "peer-silent")
            case GiveUp(reason, unkept):
                raise self._journal.error(reason, "promise", **(to_wire(unkept)))

    async def _wait_ended(self) -> str | None:
        """QEMU's last word about the copy, or that the guest is in postcopy; None if it died before it."""
        while True:
            status = await self._next_status()
            if status in ENDED or status in IN_POSTCOPY:
                return status
            if self._guest.is_gone:
                return None
            if status is None and (status := (await self._guest.progress()).status) in (*ENDED, *IN_POSTCOPY):
                self._catch_up()
                return status

    async def _next_status(self) -> str | None:
        """The next word of QEMU about the copy, or None when there is something else to look at, or no news."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STILL_POLL_S if self._plan.stands_still or self._is_suspended else POLL_S):
                while True:
                    event = await self._events.get()
                    self._take_note(event)
                    if event.kind is GuestEventKind.MIGRATION:
                        return str(event.data["status"])
                    if event.kind in (GuestEventKind.MIGRATION_PASS, GuestEventKind.GONE):
                        return None
        return None

    def _catch_up(self) -> None:
        """Read what is left of the events, where QEMU's answer to a question was ahead of them."""
        while not self._events.empty():
            self._take_note(self._events.get_nowait())

    def _take_note(self, event: GuestEvent) -> None:
        if event.kind is GuestEventKind.STOPPED:
            self._journal.note(stopped_at=event.at)

    async def _failure(self, progress: Progress) -> MigrationError:
        """Why the copy failed: this end often knows only that the connection was lost, and the other one why."""
        target = await self._link.status_now()
        there = f"the target says: {target.error}" if target and target.error else ""
        reasons = [reason for reason in (progress.error, there) if reason]
        return self._journal.error(f"the copy failed: {'; '.join(reasons) or progress.status}", "copy-failed")


MAY_RESUME = frozenset({RunState.PAUSED, RunState.SENT})
"""What a guest does that was stopped for a copy."""


async def stop_copy(guest: Guest, cancel_s: float = CANCEL_S) -> None:
    """End a copy, however far it is; what QEMU makes of it shows afterwards. Never raises.

    Args:
        guest: whose memory is copied.
        cancel_s: how long QEMU may take to end it by itself, before the connection is cut.
    """
    with suppress(HostError, TimeoutError):
        async with asyncio.timeout(cancel_s):
            await guest.cancel_migration()
            await _wait_stopped(guest)
    # QEMU may be blocked on the connection: cutting it overtakes everything. One that is not made yet QEMU goes on with
    # although it was cancelled, and takes no other migration as long as it does.
    with suppress(HostError, TimeoutError):
        await guest.cut_migration()
        await _wait_stopped(guest)


async def make_run(guest: Guest) -> None:
    """Have a guest run here that is ours and was stopped for a copy; QEMU may be doing that by itself already.

    Raises:
        HostError: it does not run after many tries.
    """
    for _ in range(RESUME_TRIES):
        if await guest.state() is RunState.RUNNING:
            await guest.clear_migration()
            return
        with suppress(HostError):
            await guest.resume()
        await asyncio.sleep(RESUME_PAUSE_S)
    raise HostError("the guest does not resume on this host", code="no-resume")


async def make_run_later(guest: Guest, may_go_on: Callable[[], bool]) -> None:
    """Have a guest run here, however long its QEMU does not answer, or refuses.

    Returns:
        When it runs, has ended, is stopped for a reason of its own, or `may_go_on` says no.
    """
    while may_go_on() and not guest.is_gone:
        with suppress(HostError):
            state = await guest.state()
            # What was asked of QEMU before it fell silent may not have been carried out.
            await stop_copy(guest)
            if state not in MAY_RESUME:
                await guest.clear_migration()
            elif may_go_on():
                await make_run(guest)
            return
        await asyncio.sleep(LATER_S)


async def _wait_stopped(guest: Guest) -> None:
    async with asyncio.timeout(STOP_S):
        while (await guest.progress()).status not in (MigrationStatus.NONE, *ENDED):
            await asyncio.sleep(0.02)


def _sample(at_s: float, progress: Progress, unsent_bytes: int) -> PassSample:
    waiting_s = unsent_bytes / progress.bandwidth_bytes_s if progress.bandwidth_bytes_s > 0 else 0.0
    return PassSample(
        at_s=at_s,
        left_s=_left_s(progress) + waiting_s,
        waiting_s=waiting_s,
        left_bytes=progress.remaining_bytes,
        dirty_bytes_s=progress.dirty_bytes_s,
        bandwidth_bytes_s=progress.bandwidth_bytes_s,
        throttle_percent=progress.throttle_percent,
    )


def _left_s(progress: Progress) -> float:
    """How long the rest would take to send, were the guest stopped now."""
    if progress.bandwidth_bytes_s <= 0:
        return progress.expected_downtime_s
    return progress.remaining_bytes / progress.bandwidth_bytes_s
