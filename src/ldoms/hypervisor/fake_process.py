"""What all parts of a fake guest stand on: it answers or does not, it reports events, it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from ldoms.hypervisor.specs import GuestSpec
from ldoms.hypervisor.states import GuestEvent, GuestEventKind, RunState
from ldoms.model.errors import HostError


class FakeProcess:
    """A process that is only an object.

    Attributes:
        hangs: it answers nothing.
    """

    def __init__(self, spec: GuestSpec) -> None:
        self.uuid = spec.uuid
        self.spec = spec
        self.run_state = RunState.INCOMING if spec.incoming else RunState.PAUSED
        self.hangs = False
        self._is_dead = self._boot_fault = False
        self._gone = asyncio.Event()
        self._queues: set[asyncio.Queue[GuestEvent]] = set()

    @property
    def is_gone(self) -> bool:
        """Whether it has ended."""
        return self._gone.is_set()

    @contextmanager
    def events(self) -> Iterator[asyncio.Queue[GuestEvent]]:
        """Subscribe to what it reports from now on."""
        queue: asyncio.Queue[GuestEvent] = asyncio.Queue()
        self._queues.add(queue)
        if self.is_gone:
            queue.put_nowait(GuestEvent(GuestEventKind.GONE, self._now()))
        try:
            yield queue
        finally:
            self._queues.discard(queue)

    def die(self, noticed_after_s: float = 0.0, *, boot_fault: bool = False) -> None:
        """End as a killed process does: it answers no more at once, and is known to be gone somewhat later."""
        self._boot_fault = boot_fault
        self.run_state = RunState.CRASHED
        self._is_dead = True
        if noticed_after_s:
            asyncio.get_running_loop().call_later(noticed_after_s, self._be_gone)
        else:
            self._be_gone()

    def _be_gone(self) -> None:
        if self.is_gone:
            return
        self._gone.set()
        self._cut()
        self._emit(GuestEventKind.GONE, boot_fault=self._boot_fault)

    def _emit(self, kind: GuestEventKind, **data: object) -> None:
        for queue in self._queues:
            queue.put_nowait(GuestEvent(kind, self._now(), data))

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self._is_dead:
            raise HostError(f"the connection to the QEMU of LDom {self.spec.name} was lost", code="qemu-gone")
        if self.hangs:
            await asyncio.sleep(5)
            raise HostError(f"LDom {self.spec.name}: QEMU did not answer in time", code="qemu-silent")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _cut(self) -> None:
        """Whatever goes on with others ends."""
