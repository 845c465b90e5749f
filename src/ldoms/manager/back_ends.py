"""What is behind the disks of a domain: volumes, and the path of several that works."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import structlog

from ldoms.hypervisor.specs import DiskSpec
from ldoms.hypervisor.states import DiskState
from ldoms.manager.disk_paths import DiskPath, is_shared, paths_of
from ldoms.manager.disk_services import DiskServiceVerbs
from ldoms.manager.host import Host
from ldoms.manager.ports import port_of
from ldoms.model.boot import boot_index
from ldoms.model.domain import Domain, VirtualDisk
from ldoms.model.errors import LdomsError

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Active:
    path: str
    may_reopen: bool


class BackEnds:
    """Opens what is behind the disks of domains."""

    def __init__(self, host: Host, disk_services: DiskServiceVerbs) -> None:
        self._host = host
        self._disk_services = disk_services
        self._active: dict[tuple[str, str], _Active] = {}

    def paths(self, disk: VirtualDisk) -> tuple[DiskPath, ...]:
        """Every way to the data of a disk, as things are now."""
        return paths_of(self._host.store.services(), disk)

    async def settle(self, disk: VirtualDisk) -> None:
        """Make sure that a disk has its volume, and that the format of one path at least is known.

        Raises:
            NotFound: the volume, or its service, is not there.
            LdomsError: no path can be used; why the first cannot.
        """
        await self.choose(disk)

    async def choose(self, disk: VirtualDisk) -> DiskPath:
        """The first path that can be used.

        Raises:
            LdomsError: there is none; why the first cannot.
        """
        first: LdomsError | None = None
        paths = self.paths(disk)
        look = self._host.storage.open if len(paths) == 1 else self._host.storage.check
        for path in paths:
            try:
                found = await self._with_format(path)
                await look(found.volume)
            except LdomsError as error:
                first = first or error
                _log.warning("path-unusable", disk=disk.name, path=str(path), reason=error.message)
            else:
                return found
        assert first is not None
        raise first

    async def spec(self, domain: Domain, disk: VirtualDisk, path: DiskPath | None = None) -> DiskSpec:
        """How the guest of a bound domain opens a disk: by the given path, or the first that can be used.

        Raises:
            LdomsError: it cannot be opened.
        """
        chosen = await self._with_format(path) if path is not None else await self.choose(disk)
        volume = chosen.volume
        back_end = await self._host.storage.open(volume)
        device = f"disk@{disk.id}"
        self._note(domain, disk, chosen, is_direct=back_end.direct)
        return DiskSpec(
            device=device,
            path=back_end.path,
            is_device=back_end.is_device,
            format=back_end.format,
            read_only=volume.is_read_only,
            direct=back_end.direct,
            port=port_of(domain, device).number,
            boot_index=boot_index(domain, device),
            queues=_queues(domain),
            shared=is_shared(self._host.store.services(), chosen),
        )

    def active_path(self, domain: Domain, disk: VirtualDisk) -> str:
        """``volume@service`` that a running guest uses for a disk; empty if that is not known."""
        active = self._active.get((domain.uuid, disk.name))
        return active.path if active is not None else ""

    def paths_in_use(self, domain: Domain) -> tuple[tuple[str, str], ...]:
        """For each disk that has several paths, its name and the path that the guest uses."""
        services = self._host.store.services()
        return tuple(
            (disk.name, path)
            for disk in domain.disks
            if (path := self.active_path(domain, disk)) and len(paths_of(services, disk)) > 1
        )

    def may_reopen(self, domain: Domain, disk: VirtualDisk) -> bool:
        """Whether what is behind a disk can be closed and opened anew, or exchanged, without a loss."""
        active = self._active.get((domain.uuid, disk.name))
        return active is not None and active.may_reopen

    def note_path(self, domain: Domain, disk: VirtualDisk, state: DiskState) -> None:
        """Learn from what a guest has open which path it uses, after a restart of the manager."""
        if state.path is None or (domain.uuid, disk.name) in self._active:
            return
        for path in self.paths(disk):
            if Path(os.path.realpath(path.volume.backend)) == state.path:
                self._note(domain, disk, path, is_direct=state.is_direct)

    # Inside

    def _note(self, domain: Domain, disk: VirtualDisk, path: DiskPath, *, is_direct: bool) -> None:
        may_reopen = path.volume.format == "raw" and (is_direct or path.volume.is_read_only)
        self._active[domain.uuid, disk.name] = _Active(str(path), may_reopen)

    async def _with_format(self, path: DiskPath) -> DiskPath:
        if path.volume.format:
            return path
        found = await self._host.storage.detect_format(path.volume.backend)
        return DiskPath(path.service, self._disk_services.set_volume_format(path.service, path.volume.name, found))


def lost_disk(domain: Domain, device: str) -> DiskSpec:
    """A disk that a guest still has although nothing is behind it."""
    return DiskSpec(
        device=device,
        path=None,
        is_device=False,
        format="raw",
        read_only=False,
        direct=False,
        port=port_of(domain, device).number,
        boot_index=int(device.partition("@")[2]) + 1,
        queues=_queues(domain),
    )


def _queues(domain: Domain) -> int:
    assert domain.bindings is not None
    return domain.bindings.machine.disk_queues if domain.bindings.machine else 0
