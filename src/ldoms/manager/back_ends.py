"""What is behind the disks of a domain: volumes, and the path of several that works."""

from __future__ import annotations

import structlog

from ldoms.hypervisor.engine import DiskSpec
from ldoms.manager.disk_paths import DiskPath, paths_of
from ldoms.manager.disk_services import DiskServiceVerbs
from ldoms.manager.host import Host
from ldoms.manager.ports import port_of
from ldoms.model.boot import boot_index
from ldoms.model.domain import Domain, VirtualDisk
from ldoms.model.errors import LdomsError

_log = structlog.get_logger(__name__)


class BackEnds:
    """Opens what is behind the disks of domains."""

    def __init__(self, host: Host, disk_services: DiskServiceVerbs) -> None:
        self._host = host
        self._disk_services = disk_services

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
        for path in self.paths(disk):
            try:
                found = await self._with_format(path)
                await self._host.storage.open(found.volume)
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
        return DiskSpec(
            device=device,
            path=back_end.path,
            is_device=back_end.is_device,
            format=back_end.format,
            read_only=volume.is_read_only,
            direct=back_end.direct,
            port=port_of(domain, device),
            boot_index=boot_index(domain, disk),
        )

    # Inside

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
        port=port_of(domain, device),
        boot_index=int(device.partition("@")[2]) + 1,
    )
