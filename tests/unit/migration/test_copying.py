"""The copy as its sending end follows it, where QEMU's answers and its events do not come in step."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from ldoms.hypervisor.states import GuestEvent, GuestEventKind, MigrationStatus
from ldoms.migration.copying import MemoryCopy
from ldoms.model.migration import MigrationPlan, Progress, Ticket
from unit.clock import run

PLAN = MigrationPlan((), 1, "", "none", 0, 0.3, 0.3)


class Quick:
    """A guest whose copy is over before anybody has read of it; and the journal, link and observer of it."""

    is_gone = False
    silence_s = 0.0
    progress_percent = 0

    def __init__(self) -> None:
        self.status = MigrationStatus.NONE
        self.noted: dict[str, Any] = {}
        self.report = SimpleNamespace(passes=(), stopped_at=0.0, started_at=0.0)

    async def progress(self) -> Progress:
        return Progress(self.status, passes=1)

    async def send(self, host: str, port: int) -> None:
        self.status = MigrationStatus.PRE_SWITCHOVER

    async def continue_switchover(self) -> None:
        self.status = MigrationStatus.COMPLETED

    async def is_alive(self) -> bool:
        return True

    @asynccontextmanager
    async def heartbeat(self) -> Any:
        yield

    def unsent_bytes(self) -> int:
        return 0

    def cpu_seconds(self) -> tuple[float, ...]:
        return ()

    cpu_wait_seconds = cpu_seconds

    def limit_unsent(self, size: int) -> None:
        pass

    def note(self, **values: Any) -> None:
        self.noted |= values

    def note_pass(self, progress: Progress) -> None:
        self.report.passes = (*self.report.passes, progress)

    @property
    def record(self) -> Any:
        return SimpleNamespace(plan=PLAN)

    async def set_bandwidth(self, bytes_s: int) -> None:
        pass

    def begin_copy(self, ran_s: float, waited_s: float) -> None:
        pass

    def note_throttle(self, percent: int, at_s: float) -> None:
        pass

    def update(self, **values: Any) -> None:
        pass


class Link(Quick):
    progress = 0  # type: ignore[assignment]
    bandwidth_bytes_s = 0


def copy_of(one: Quick, *events: GuestEvent) -> MemoryCopy:
    queue: asyncio.Queue[GuestEvent] = asyncio.Queue()
    for event in events:
        queue.put_nowait(event)
    return MemoryCopy(one, queue, PLAN, one, Link())  # type: ignore[arg-type]


def told(status: str, at: float) -> GuestEvent:
    return GuestEvent(GuestEventKind.MIGRATION, at, {"status": status})


def test_when_the_guest_stopped_is_known_although_the_copy_was_quick() -> None:
    """QEMU's answer was ahead of its events: the stop is among those that nobody had read yet."""

    async def work() -> None:
        one = Quick()
        copy = copy_of(
            one, told("setup", 1.0), told("active", 1.1), GuestEvent(GuestEventKind.STOPPED, 1.5), told("device", 1.6)
        )
        assert await copy.send(Ticket("192.0.2.2", 8101), one)  # type: ignore[arg-type]
        assert one.noted == {"stopped_at": 1.5}

    run(work())


def test_the_first_pass_is_known_although_the_copy_was_quick() -> None:
    """The guest stands still already when QEMU is first asked how far it is."""

    async def work() -> None:
        one = Quick()
        copy = copy_of(one, told("pre-switchover", 1.2))
        assert await copy.send(Ticket("192.0.2.2", 8101), one)  # type: ignore[arg-type]
        assert len(one.report.passes) == 1

    run(work())


def test_a_stop_that_is_read_of_after_the_end_counts_too() -> None:
    """The last part was over before the first event of it had been read."""

    async def work() -> None:
        one = Quick()
        copy = copy_of(one, GuestEvent(GuestEventKind.MIGRATION_PASS, 1.1), GuestEvent(GuestEventKind.STOPPED, 1.5))
        assert await copy.switch_over(waits=True)
        assert one.noted == {"stopped_at": 1.5}

    run(work())
