"""Disks that the hosts do not share: copied on the source before the memory, kept the same until the guest moves.

QEMU copies them (`ldoms.hypervisor.engine.Guest.mirror_disks`); here is when what is done, and when it is given up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.states import MirrorState
from ldoms.migration.convergence import LOST_S
from ldoms.migration.journal import Journal
from ldoms.migration.link import TargetLink
from ldoms.migration.local import Observer
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import HostError, MigrationError
from ldoms.model.migration import CopiedDisk, DiskProgress, MigrationPlan, OnStall, Progress, Ticket
from ldoms.model.sizes import MIB

T = TypeVar("T")

POLL_S = 0.25
STALL_S = 60.0
"""No byte of a disk in so long: nothing will come of it."""
TIED_SILENT_S = 5.0
"""While each write of the guest waits for the target, it is given up when it has been silent for so long."""
TIE_S = 10.0
"""The writes that are on their way when the others begin to wait get so long to arrive."""
MIN_END_S = 0.05


class DiskCopies:
    """The copies of one guest's disks, as their sending end sees them."""

    def __init__(self, guest: Guest, journal: Journal, link: TargetLink) -> None:
        """Copy the disks of the journal's plan, whose limits may change on the way."""
        self._guest = guest
        self._journal = journal
        self._link = link
        self._names = {disk.device: disk.disk for disk in self._plan.disks}
        self._speed = 0
        self._began = 0.0

    async def send(self, ticket: Ticket, observer: Observer, memory_mib: int) -> None:
        """Copy until both sides are the same, and have each later write of the guest wait for both.

        Args:
            ticket: where to.
            observer: hears how far it is.
            memory_mib: of memory that is still to be sent when the disks are.

        Raises:
            MigrationError: it failed, or nothing arrives any more.
        """
        self._journal.note(
            storage=tuple(CopiedDisk(disk.disk, disk.volume.backend, disk.size_bytes) for disk in self._plan.disks)
        )
        self._speed = self._share(len(self._names))
        self._began = asyncio.get_running_loop().time()
        try:
            await self._guest.mirror_disks(tuple(self._names), ticket.host, ticket.disk_port, self._speed)
            async with self._link.heartbeat():
                await self._follow(observer, memory_mib * MIB)
                await self._tie()
        except HostError as error:
            raise await self._failure(error.message) from error

    async def beside(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` for as long as the disks are kept the same.

        Raises:
            MigrationError: they are not any more, or the guest's writes would have to wait for a silent target.
        """
        working = asyncio.ensure_future(work)
        watching = asyncio.create_task(self._watch(), name="watch-mirrors")
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            return await working
        finally:
            for task in (working, watching):
                task.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    # Inside

    @property
    def _plan(self) -> MigrationPlan:
        plan = self._journal.record.plan
        assert plan is not None, "only where a guest runs"
        return plan

    def _share(self, disks: int) -> int:
        """Of the bandwidth that the migration may have, for each of so many disks; 0 = no limit."""
        allowed = self._plan.max_bandwidth_bytes_s
        return max(1, allowed // disks) if allowed else 0

    async def _follow(self, observer: Observer, memory_bytes: int) -> None:
        clock = asyncio.get_running_loop().time
        sent, moved_at = -1, clock()
        while True:
            states = await self._states()
            self._note(states, clock() - self._began)
            progress = Progress(
                "disks", clock() - self._began, remaining_bytes=memory_bytes, disks=_progress(self._names, states)
            )
            observer.update(progress=progress.percent, figures=to_wire(progress))
            self._link.progress = progress.percent
            if all(state.is_ready for state in states.values()):
                return
            if (now_sent := sum(state.sent_bytes for state in states.values())) != sent:
                sent, moved_at = now_sent, clock()
            if self._link.silence_s > LOST_S:
                silence = f"the manager of the target has not been heard for {self._link.silence_s:.0f} s"
                raise self._journal.error(silence, "peer-silent")
            if clock() - moved_at > STALL_S:
                raise self._journal.error(f"nothing of the disks has arrived for {STALL_S:g} s", "copy-failed")
            if (allowed_s := self._plan.max_time_s) and time.time() - self._journal.report.started_at > allowed_s:
                raise self._journal.error(
                    f"{progress.percent} % of the disks and the memory have been copied within the {allowed_s:g} s that"
                    " were allowed for all of it; what would do: more time, or a faster link",
                    "promise",
                )
            await self._divide(states)
            await asyncio.sleep(POLL_S)

    async def _divide(self, states: Mapping[str, MirrorState]) -> None:
        """Give those that are not ready what the others do not need any more."""
        waiting = [device for device, state in states.items() if not state.is_ready]
        speed = self._share(len(waiting))
        if speed != self._speed:
            self._speed = speed
            for device in waiting:
                await self._guest.limit_mirror(device, speed)

    async def _tie(self) -> None:
        await self._guest.tie_mirrors()
        try:
            async with asyncio.timeout(TIE_S):
                while not all(state.is_tied for state in (await self._states()).values()):
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise self._journal.error(
                f"the last writes to the disks have not arrived within {TIE_S:g} s", "copy-failed"
            ) from error

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            with suppress(HostError):  # whoever copies the memory finds out why
                self._note(await self._states(), 0.0)
            if self._link.silence_s > TIED_SILENT_S:
                raise self._journal.error(
                    f"the manager of the target has not been heard for {self._link.silence_s:.0f} s, and each write of"
                    " the guest waits for the target",
                    "peer-silent",
                )

    async def _states(self) -> Mapping[str, MirrorState]:
        try:
            states = await self._guest.mirrors()
        except HostError as error:
            if self._guest.is_gone:
                raise self._journal.error(
                    "QEMU on this host has ended in the middle of the copy", "qemu-died"
                ) from error
            raise
        for device, state in states.items():
            if state.error:
                raise await self._failure(f"{self._names.get(device, device)}: {state.error}")
        return states

    def _note(self, states: Mapping[str, MirrorState], passed_s: float) -> None:
        by_name = {self._names[device]: state for device, state in states.items() if device in self._names}
        self._journal.note(
            storage=tuple(
                replace(
                    disk,
                    copied_bytes=max(disk.copied_bytes, by_name[disk.disk].sent_bytes),
                    seconds=disk.seconds or (passed_s if by_name[disk.disk].is_ready else 0.0),
                )
                if disk.disk in by_name
                else disk
                for disk in self._journal.report.storage
            )
        )

    async def _failure(self, reason: str) -> MigrationError:
        """Why it failed: this end often knows only that the connection was lost, and the other one why."""
        target = await self._link.status_now()
        there = f"; the target says: {target.error}" if target and target.error else ""
        return self._journal.error(f"the disks cannot be copied: {reason}{there}", "copy-failed")


class WithDisks:
    """An observer that is told of the memory, and tells of the disks that were copied before as well."""

    def __init__(self, observer: Observer, copied: tuple[CopiedDisk, ...]) -> None:
        self._observer = observer
        self._disks = tuple(DiskProgress(disk.disk, disk.copied_bytes, disk.copied_bytes) for disk in copied)
        self.cancelled = observer.cancelled

    def update(
        self,
        *,
        phase: str | None = None,
        progress: int | None = None,
        may_cancel: bool | None = None,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        """How far it is."""
        if figures is not None:
            whole = replace(from_wire(Progress, figures), disks=self._disks)
            progress, figures = whole.percent, to_wire(whole)
        self._observer.update(phase=phase, progress=progress, may_cancel=may_cancel, figures=figures)


async def end_copies(guest: Guest, plan: MigrationPlan, journal: Journal) -> None:
    """While the guest stands still for the last part: the disks are the same on both sides, or it is off.

    Raises:
        HostError: they are not within half of the suspension that was promised; the rest is for the memory.
    """
    if plan.disks:
        # One that was suspended before the last part, as it had to be or was allowed to, has its time for itself.
        stopped_at = 0.0 if plan.stands_still or plan.on_stall is OnStall.SUSPEND else journal.report.stopped_at
        passed_s = max(0.0, time.time() - stopped_at) if stopped_at else 0.0
        await guest.end_mirrors(max(MIN_END_S, plan.max_suspend_s / 2 - passed_s))


def _progress(names: Mapping[str, str], states: Mapping[str, MirrorState]) -> tuple[DiskProgress, ...]:
    return tuple(
        DiskProgress(name, states[device].sent_bytes, states[device].total_bytes)
        for device, name in names.items()
        if device in states
    )
