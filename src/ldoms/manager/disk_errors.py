"""What becomes of a guest whose disk has failed: another path, the same once it is back, or errors after a time.

QEMU stops a guest whole when a request for a disk fails, and keeps the request. What the guest has not seen cannot
harm it, so it stands still until the disk works again, by whatever path of its multipath group. A disk with a timeout
is given up after that time: nothing is behind it any more, the guest goes on, and sees an error for every request,
until the disk works again.

A path can be closed and opened anew, or exchanged for another, only where that loses nothing: a raw image without the
host's page cache. QEMU keeps tables of a qcow2 image, and the kernel pages of what is not opened directly, that are
not written yet: such a disk waits for the path that it has.
"""

from __future__ import annotations

import asyncio

import structlog

from ldoms.hypervisor.states import DiskState, RunState
from ldoms.manager.back_ends import BackEnds
from ldoms.manager.background import Background
from ldoms.manager.disk_paths import DiskPath
from ldoms.manager.guests import RunningGuest
from ldoms.manager.host import Host
from ldoms.model.domain import Domain, VirtualDisk
from ldoms.model.errors import HostError, LdomsError, RequestError
from ldoms.model.events import EventKind

RETRY_S = 2.0
"""Between looks at a back end that does not work."""
SETTLE_S = 0.5
"""A guest that was resumed, and runs so long, is taken to have its disk."""

_log = structlog.get_logger(__name__)


class DiskErrors:
    """Follows the guests that a disk has failed for."""

    def __init__(self, host: Host, back_ends: BackEnds) -> None:
        self._host = host
        self._back_ends = back_ends
        self._background = Background()
        host.guests.on_disk_failed = self._disk_failed

    def look(self) -> None:
        """Take up again what an earlier manager was doing, and learn which path each disk uses."""
        for domain in self._host.store.domains():
            running = self._host.guests.get(domain.uuid)
            if running is not None and domain.disks:
                self._disk_failed(running)

    async def close(self) -> None:
        """Stop following; guests that stand still go on standing."""
        await self._background.close()

    def _disk_failed(self, running: RunningGuest) -> None:
        name = f"disk-errors {running.guest.uuid}"
        if not self._background.is_at(name):
            self._background.start(self._care(running), name)

    async def _care(self, running: RunningGuest) -> None:
        """Look after a guest until all its disks work, or it ends."""
        care = _Care(self._host, self._back_ends, running)
        uuid, clock = running.guest.uuid, asyncio.get_running_loop().time
        begun = clock()
        while self._host.guests.get(uuid) is running:
            domain = self._host.store.domain_by_uuid(uuid)
            if domain is None or not domain.is_bound:
                return
            try:
                with self._host.changing(domain.name, "disk-error") as held:
                    if await care.step(held, clock() - begun):
                        return
            except RequestError:
                pass  # somebody else holds the domain, perhaps a migration
            except HostError as error:
                _log.warning("disk-error-unsolved", domain=domain.name, reason=error.message)
            await asyncio.sleep(RETRY_S)


class _Care:
    """One guest, from the first error until all its disks work."""

    def __init__(self, host: Host, back_ends: BackEnds, running: RunningGuest) -> None:
        self._host = host
        self._back_ends = back_ends
        self._running = running
        self._told: set[str] = set()
        """Disks whose failure was published."""
        self._given_up: set[str] = set()
        """Disks whose errors the guest is told of."""

    async def step(self, domain: Domain, waited_s: float) -> bool:
        """Do what can be done now; whether nothing is left to do."""
        running, guest = self._running, self._running.guest
        running.run_state = await guest.state()
        states = await guest.disks()
        missing = set()
        for disk in domain.disks:
            state = states.get(f"disk@{disk.id}")
            if state is None:
                continue
            self._back_ends.note_path(domain, disk, state)
            if (state.has_failed or state.path is None) and not await self._restore(domain, disk, state):
                missing.add(disk.name)
                await self._wait(domain, disk, waited_s)
        if running.run_state is RunState.STALLED and missing <= self._given_up:
            await guest.resume()
            await asyncio.sleep(SETTLE_S)  # if it fails again, that happens at once
            running.run_state = await guest.state()
        return not missing and running.run_state is not RunState.STALLED

    async def _wait(self, domain: Domain, disk: VirtualDisk, waited_s: float) -> None:
        """Leave a disk that does not work, or, when its time is over, have the guest told of errors."""
        is_over = bool(disk.timeout_s) and waited_s >= disk.timeout_s
        if is_over and disk.name not in self._given_up:
            await self._running.guest.cut_disk(f"disk@{disk.id}", close=False)
            self._given_up.add(disk.name)
            self._publish(EventKind.DISK_FAILED, domain, disk=disk.name, tells_guest=True)
        elif disk.name not in self._told:
            self._publish(EventKind.DISK_FAILED, domain, disk=disk.name, tells_guest=False)
        self._told.add(disk.name)

    async def _restore(self, domain: Domain, disk: VirtualDisk, state: DiskState) -> bool:
        """Give a disk a path that works; whether there is one."""
        for path in self._candidates(domain, disk):
            try:
                await self._host.storage.check(path.volume)
                await self._use(domain, disk, state, path)
            except LdomsError as error:
                _log.info("path-unusable", domain=domain.name, disk=disk.name, path=str(path), reason=error.message)
                continue
            self._given_up.discard(disk.name)
            self._publish(EventKind.DISK_RESTORED, domain, disk=disk.name, volume=str(path))
            return True
        return False

    def _candidates(self, domain: Domain, disk: VirtualDisk) -> tuple[DiskPath, ...]:
        """Every path that may be used, the one that has just failed last."""
        paths = self._back_ends.paths(disk)
        active = self._back_ends.active_path(domain, disk)
        number = next((number for number, path in enumerate(paths) if str(path) == active), 0)
        if not self._back_ends.may_reopen(domain, disk):
            return (paths[number],)
        return (*paths[number + 1 :], *paths[: number + 1])

    async def _use(self, domain: Domain, disk: VirtualDisk, state: DiskState, path: DiskPath) -> None:
        guest = self._running.guest
        spec = await self._back_ends.spec(domain, disk, path)
        if self._back_ends.may_reopen(domain, disk):
            await guest.cut_disk(spec.device)
            await guest.mend_disk(spec)
        elif state.path is None:
            await guest.mend_disk(spec)

    def _publish(self, kind: EventKind, domain: Domain, **data: object) -> None:
        _log.warning(kind.value, domain=domain.name, **data)
        self._host.events.publish(kind, domain.name, **data)
