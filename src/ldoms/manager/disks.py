"""Disks of domains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import replace

import structlog

from ldoms.hypervisor.engine import Guest
from ldoms.manager.back_ends import BackEnds
from ldoms.manager.disk_paths import DiskPath, paths_of
from ldoms.manager.host import Host
from ldoms.manager.hotplug import LET_GO_S
from ldoms.manager.ports import taken_ids, with_port, without_device
from ldoms.manager.properties import check_guest_domain, free_number, without
from ldoms.model.domain import Domain, VirtualDisk
from ldoms.model.errors import AlreadyExists, HostError, LdomsError, NotFound, RequestError
from ldoms.model.identity import check_name
from ldoms.model.services import Services

_log = structlog.get_logger(__name__)


class DiskVerbs:
    """``add-vdisk``, ``set-vdisk``, ``remove-vdisk``; at once also for a guest that runs."""

    def __init__(self, host: Host, back_ends: BackEnds) -> None:
        self._host = host
        self._back_ends = back_ends
        self._promised: list[tuple[str, VirtualDisk]] = []
        """Disks that are about to be written down, each with the name of its domain."""

    async def add(self, name: str, disk: str, volume: str, service: str, timeout_s: int, number: int | None) -> Domain:
        """Give a domain a disk on a volume; a guest that runs sees it at once.

        Raises:
            RequestError: it has a disk of that name, or the volume is in use.
            NoResources: the running guest has no root port left.
            HostError: the back end cannot be opened, or QEMU refuses; the domain is as before.
        """
        with self._host.changing(name, "add-vdisk") as domain:
            check_guest_domain(domain)
            check_name(disk, "disk")
            if any(known.name == disk for known in domain.disks):
                raise AlreadyExists(f"disk {disk} already exists in LDom {name}")
            number = free_number(number, taken_ids(domain, "disk"), f"disk of LDom {name}")
            added = VirtualDisk(disk, volume, service, number, timeout_s)
            changed = replace(domain, disks=(*domain.disks, added))
            if domain.is_bound:
                changed = with_port(changed, f"disk@{number}")
            guest = self._guest(domain)
            with self._promising(domain, added):
                async with AsyncExitStack() as undo:
                    if domain.is_bound:
                        await self._back_ends.settle(added)
                    if guest is not None:
                        await guest.plug(await self._back_ends.spec(changed, added))
                        undo.push_async_callback(guest.unplug, f"disk@{number}", LET_GO_S)
                    self._host.save(changed)
                    undo.pop_all()
            return changed

    async def remove(self, name: str, disk: str, *, force: bool) -> Domain:
        """Take a disk away from a domain; a guest that runs is asked to let it go.

        With `force` also if the guest does not: then nothing is behind the disk any more, the guest sees an error for
        every request, and keeps the empty disk until it lets it go, or stops.

        Raises:
            HostError: code ``device-held``: the guest has not let it go, and has it as before.
        """
        with self._host.changing(name, "remove-vdisk") as domain:
            found = domain.disk(disk)
            device = f"disk@{found.id}"
            left = without_device(domain, device)
            guest = self._guest(domain)
            if guest is not None and device in await guest.devices():
                try:
                    await self._let_go(domain, found, guest)
                except HostError as error:
                    if error.code != "device-held" or not force:
                        raise
                    _log.warning("disk-cut", domain=name, disk=disk)
                    await guest.cut_disk(device)
                    # The guest still has the device behind its port, and so must the target of a migration.
                    left = replace(domain, disks=without(domain.disks, disk, lambda known: known.name))
            return self._host.save(left)

    async def set(self, name: str, disk: str, volume: tuple[str, str] | None, timeout_s: int | None) -> Domain:
        """Put a disk on another volume, or change how long it waits for its back end.

        The guest that runs lets the disk go, and gets it again with the other medium in the same place.

        Raises:
            HostError: the guest has not let it go, or the other one cannot be opened: it has the disk as before.
        """
        with self._host.changing(name, "set-vdisk") as domain:
            found = domain.disk(disk)
            changed = found if timeout_s is None else replace(found, timeout_s=timeout_s)
            if volume is not None:
                changed = replace(changed, volume=volume[0], service=volume[1])
            disks = tuple(changed if known.name == disk else known for known in domain.disks)
            if (changed.volume, changed.service) == (found.volume, found.service):
                return self._host.save(replace(domain, disks=disks))
            with self._promising(domain, changed):
                if domain.is_bound:
                    await self._back_ends.settle(changed)
                    await self._change_medium(domain, found, changed)
                return self._host.save(replace(domain, disks=disks))

    # Inside

    def _guest(self, domain: Domain) -> Guest | None:
        running = self._host.guests.get(domain.uuid)
        return running.guest if running else None

    async def _let_go(self, domain: Domain, disk: VirtualDisk, guest: Guest) -> None:
        try:
            await guest.unplug(f"disk@{disk.id}", LET_GO_S)
        except HostError as error:
            if error.code != "device-held":
                raise
            raise HostError(
                f"disk {disk.name} is in use: the guest of LDom {domain.name} has not let it go within {LET_GO_S:g} s,"
                " and has it as before; unmount it there and try again. If the guest lets it go later, it is removed"
                " then",
                code="device-held",
            ) from error

    async def _change_medium(self, domain: Domain, old: VirtualDisk, new: VirtualDisk) -> None:
        guest = self._guest(domain)
        if guest is None:
            return
        after = await self._back_ends.spec(domain, new)
        await self._let_go(domain, old, guest)
        try:
            await guest.plug(after)
        except LdomsError:
            await guest.plug(await self._back_ends.spec(domain, old))
            raise

    @contextmanager
    def _promising(self, domain: Domain, disk: VirtualDisk) -> Iterator[None]:
        """Keep the volume of a disk for it until it is written down, which may have to wait for a guest.

        Raises:
            NotFound: there is no such volume.
            RequestError: it is in use: it carries one disk, or any number of those that only read.
        """
        services = self._host.store.services()
        path = paths_of(services, disk)[0]
        written = [(known.name, one) for known in self._host.store.domains() for one in known.disks]
        for holder, other in (*written, *self._promised):
            if (holder, other.name) != (domain.name, disk.name) and _has_path(services, other, path):
                raise RequestError(
                    f"volume {path} is in use by disk {other.name} of LDom {holder}", code="volume-in-use"
                )
        promised = (domain.name, disk)
        self._promised.append(promised)
        try:
            yield
        finally:
            self._promised.remove(promised)


def _has_path(services: Services, disk: VirtualDisk, path: DiskPath) -> bool:
    """Whether a disk keeps others from a volume."""
    if path.volume.is_read_only and not path.volume.is_exclusive:
        return False
    with suppress(NotFound):
        return str(path) in map(str, paths_of(services, disk))
    return False
