"""A migration's own memory on the source: the record on disk, and the report as it grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from ldoms.migration.convergence import PassSample
from ldoms.migration.forecast import slowdown_percent
from ldoms.migration.phases import PHASES
from ldoms.migration.plan import changed_plan
from ldoms.model.codec import to_wire
from ldoms.model.errors import MigrationError
from ldoms.model.migration import (
    ClockReading,
    LimitChange,
    LimitChanges,
    MigrationRecord,
    MigrationReport,
    Outcome,
    PassRecord,
    PhaseRecord,
    Progress,
    Stall,
    TargetStatus,
)
from ldoms.model.phases import Phase
from ldoms.store import Store, StoreFailed

DISK_RETRY_S = 1.0

T = TypeVar("T")
_log = structlog.get_logger(__name__)


async def durably(change: Callable[[], Awaitable[T]]) -> T:
    """Do what changes the state on disk, again and again while the disk does not take it: nothing goes on before that.

    For what cannot be given up: what is done meanwhile would rest on a record that is not there.
    """
    is_told = False
    while True:
        try:
            return await change()
        except StoreFailed as error:
            if not is_told:
                _log.error("state-not-written", reason=error.message, consequence="it waits, and tries again")
            is_told = True
        await asyncio.sleep(DISK_RETRY_S)


class Journal:
    """Keeps the record of one migration, and writes it down when the table of phases says so."""

    def __init__(self, store: Store, record: MigrationRecord) -> None:
        """Go on with `record`, which may be new or come from before a restart."""
        self._store = store
        self.record = record
        self._pass_began = (time.time(), 0)
        self._throttle = (0.0, 0)
        self._copy_began: tuple[float, float, float] | None = None

    @property
    def report(self) -> MigrationReport:
        """The report as it stands."""
        return self.record.report

    def note(self, **changes: object) -> None:
        """Change fields of the report; written with the next phase."""
        self.record = replace(self.record, report=replace(self.report, **changes))  # type: ignore[arg-type]

    def amend(self, **changes: object) -> None:
        """Change fields of the record; written with the next phase."""
        self.record = replace(self.record, **changes)  # type: ignore[arg-type]

    def enter(self, phase: Phase, at: float = 0.0) -> None:
        """A phase begins, now or at the time given: on disk before anything of it is done, if the table says so."""
        at = at or time.time()
        if phase is not self.record.phase:
            self._end_phase(at)
        self.record = replace(self.record, phase=phase, phase_at=at)
        if PHASES[phase].journalled:
            self.write()

    def write(self) -> None:
        """Put the record on disk. A dry run leaves nothing there."""
        if not self.record.options.dry_run:
            self._store.put_migration(self.record)

    async def write_durably(self) -> None:
        """The same, as soon as the disk takes it."""

        async def write() -> None:
            self.write()

        await durably(write)

    def note_pass(self, progress: Progress) -> PassRecord:
        """A pass over memory has ended."""
        now, sent = time.time(), progress.transferred_bytes
        began, sent_before = self._pass_began
        entry = PassRecord(
            number=len(self.report.passes) + 1,
            seconds=now - began,
            sent_bytes=sent - sent_before,
            dirty_bytes=progress.remaining_bytes,
        )
        self._pass_began = (now, sent)
        self.note(passes=(*self.report.passes, entry))
        return entry

    def note_throttle(self, percent: int, at_s: float) -> None:
        """The guest is held back by so much of its CPU time from now on; the report has the most of it and its cost.

        Args:
            at_s: now, by a clock that does not jump.
        """
        since_s, before = self._throttle
        self._throttle = (at_s, percent)
        if before:
            self.note(
                throttled_s=self.report.throttled_s + at_s - since_s,
                held_back_s=self.report.held_back_s + (at_s - since_s) * before / 100,
            )
        if percent > self.report.throttle_percent:
            self.note(throttle_percent=percent)

    def note_measure(self, measure: str, samples: Sequence[PassSample], after_s: float) -> None:
        """Something is done about a copy that does not come to an end."""
        last = samples[-1]
        stall = self.report.stall or Stall(
            after_s=after_s,
            passes=len(samples),
            left_s=min(sample.left_s for sample in samples),
            dirty_bytes_s=last.dirty_bytes_s,
            bandwidth_bytes_s=last.bandwidth_bytes_s,
        )
        self.note(stall=replace(stall, measures=(*stall.measures, measure)))

    def change_limits(self, changes: LimitChanges, user: str) -> None:
        """Somebody has changed limits: on disk before anything is done about it, so that a restart keeps them."""
        options, now = self.record.options, time.time()
        wanted = {name: value for name, value in to_wire(changes).items() if value is not None}
        noted = tuple(
            LimitChange(now, user, name, getattr(options, name), value)
            for name, value in wanted.items()
            if getattr(options, name) != value
        )
        plan = self.record.plan and changed_plan(self.record.plan, changes, options.tuning)
        self.amend(options=replace(options, **wanted), plan=plan)
        self.note(plan=plan, changes=(*self.report.changes, *noted))
        self.write()

    def error(self, reason: str, code: str, **details: object) -> MigrationError:
        """An error that ends the migration in the phase that it is in."""
        return MigrationError(reason, phase=self.record.phase, code=code, **details)

    def begin_copy(self, ran_s: float, waited_s: float) -> None:
        """Memory starts to flow: the first pass begins. The guest's virtual CPUs have run and waited for so long."""
        self._pass_began = (time.time(), 0)
        self._copy_began = (time.time(), ran_s, waited_s)

    def note_slowdown(self, ran_s: float, waited_s: float) -> None:
        """What it has cost the guest, whose virtual CPUs have run and waited for so long; not known after a restart."""
        report = self.report
        if self._copy_began is None or not report.stopped_at or report.stop_resume_s is None:
            return
        began, ran_before_s, waited_before_s = self._copy_began
        copy_s = max(0.0, report.stopped_at - began)
        held_share = min(1.0, report.held_back_s / copy_s) if copy_s else 0.0
        lost = slowdown_percent(
            ran_s - ran_before_s, waited_s - waited_before_s, held_share, copy_s, report.stop_resume_s
        )
        self.note(slowdown_percent=lost)

    def note_copied(self, progress: Progress) -> None:
        """QEMU has handed everything over."""
        self.note(
            downtime_s=progress.downtime_s,
            transferred_bytes=progress.transferred_bytes,
            bandwidth_bytes_s=progress.bandwidth_bytes_s,
        )

    def note_resumed(self, status: TargetStatus) -> None:
        """The guest runs on the target: the suspension by the clocks of the hosts is known."""
        clock = self.report.clock or ClockReading(0.0, 0.0)
        resumed_at = status.resumed_at - clock.offset_s
        self.note(resumed_at=resumed_at)
        if self.report.stopped_at and status.resumed_at:
            self.note(stop_resume_s=max(0.0, resumed_at - self.report.stopped_at))

    def end(self, outcome: Outcome, cause: str = "", *, settled: bool = True) -> MigrationReport:
        """The migration is over, or as good as: the report is complete, and wants to be written."""
        now = time.time()
        self._end_phase(now)
        self.note(outcome=outcome, cause=cause, ended_at=now)
        self.amend(settled=settled)
        return self.report

    def _end_phase(self, at: float) -> None:
        entry = PhaseRecord(self.record.phase, self.record.phase_at, max(0.0, at - self.record.phase_at))
        self.note(phases=(*self.report.phases, entry))
