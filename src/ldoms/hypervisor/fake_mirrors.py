"""Disks of fake guests that are copied from one to another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ldoms.hypervisor.fake_devices import FakeDevices
from ldoms.hypervisor.specs import GuestSpec
from ldoms.hypervisor.states import MirrorState
from ldoms.model.errors import HostError

SIZE_BYTES = 1 << 30
STEPS = 10


@dataclass
class FakeShelf:
    """What the fakes of one test know of disks that are copied.

    Attributes:
        offers: who listens where.
        step_s: how long the tenth part of a disk takes.
        is_stuck: nothing arrives any more, and nobody is told.
    """

    offers: dict[tuple[str, int], FakeMirrors] = field(default_factory=dict)
    step_s: float = 0.05
    is_stuck: bool = False


class FakeMirrors(FakeDevices):
    """A process whose disks have a content, which can be copied.

    Attributes:
        contents: what was written last to each disk.
        limits: of the speed of each copy.
    """

    def __init__(self, spec: GuestSpec, shelf: FakeShelf) -> None:
        super().__init__(spec)
        self.contents: dict[str, int] = {}
        self.limits: dict[str, int] = {}
        self.offered: tuple[str, ...] = ()
        self._shelf = shelf
        self._place: tuple[str, int] | None = None
        self._states: dict[str, MirrorState] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._receivers: dict[str, FakeMirrors] = {}

    @property
    def secret(self) -> str:
        """The key of the migration."""
        raise NotImplementedError

    def write(self, device: str, mark: int) -> None:
        """Have the guest write something."""
        self.contents[device] = mark
        state = self._states.get(device)
        if state is not None and state.is_ready and not state.error and not self._shelf.is_stuck:
            self._receivers[device].contents[device] = mark

    async def offer_disks(self, devices: Sequence[str], host: str, port: int) -> None:
        """Listen."""
        await self._answer()
        if (host, port) in self._shelf.offers:
            raise HostError(f"port {port} is taken by another process", code="port-taken")
        for device in devices:
            if device not in self.plugged:
                raise HostError(f"block-export-add: QEMU says: no {device}", code="qemu-refused")
        self._place, self.offered = (host, port), tuple(devices)
        self._shelf.offers[self._place] = self

    async def withdraw_disks(self) -> None:
        """Listen no more."""
        await self._answer()
        self._withdraw()

    async def mirror_disks(self, devices: Sequence[str], host: str, port: int, limit_bytes_s: int) -> None:
        """Begin to copy."""
        await self._answer()
        receiver = self._shelf.offers.get((host, port))
        for device in devices:
            if receiver is None or receiver.is_gone or receiver.secret != self.secret:
                raise HostError("blockdev-add: QEMU says: no connection", code="qemu-refused")
            if device not in receiver.offered:
                raise HostError(f"blockdev-add: QEMU says: no export {device}", code="qemu-refused")
            self.limits[device] = limit_bytes_s
            self._receivers[device] = receiver
            self._states[device] = MirrorState(0, SIZE_BYTES, is_ready=False, is_tied=False)
            self._tasks[device] = asyncio.create_task(self._copy_disk(device, receiver))

    async def mirrors(self) -> Mapping[str, MirrorState]:
        """How far each is."""
        await self._answer()
        return dict(self._states)

    async def limit_mirror(self, device: str, bytes_s: int) -> None:
        """Note it."""
        await self._answer()
        self.limits[device] = bytes_s

    async def tie_mirrors(self) -> None:
        """Note it, if they are ready."""
        await self._answer()
        for device, state in self._states.items():
            if not state.is_ready or state.error:
                raise HostError(f"the copy of {device} is not complete yet", code="not-mirrored")
            self._states[device] = replace(state, is_tied=True)

    async def end_mirrors(self, limit_s: float) -> None:
        """End them, if they are ready."""
        await self._answer()
        for device, state in self._states.items():
            if not state.is_ready or state.error:
                raise HostError(f"the copy of {device} is not complete: {state.error}", code="not-mirrored")
        if self._states and self._shelf.is_stuck:
            await asyncio.sleep(limit_s)
            raise HostError("the last writes have not reached the target", code="not-mirrored")
        self._forget()

    async def drop_mirrors(self) -> None:
        """End them."""
        self._forget()

    # Inside

    def _cut(self) -> None:
        self._forget()
        self._withdraw()

    def _withdraw(self) -> None:
        if self._place is not None:
            self._shelf.offers.pop(self._place, None)
        self._place, self.offered = None, ()

    def _forget(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._states.clear()
        self._receivers.clear()

    async def _copy_disk(self, device: str, receiver: FakeMirrors) -> None:
        for step in range(1, STEPS + 1):
            await asyncio.sleep(self._shelf.step_s)
            while self._shelf.is_stuck:
                await asyncio.sleep(self._shelf.step_s)
            if receiver.is_gone:
                break
            self._states[device] = replace(self._states[device], sent_bytes=SIZE_BYTES * step // STEPS)
        else:
            receiver.contents[device] = self.contents.get(device, 0)
            self._states[device] = replace(self._states[device], is_ready=True)
            await receiver._gone.wait()
        self._states[device] = replace(self._states[device], error="Input/output error")
