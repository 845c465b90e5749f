"""The ways to the data of a disk: its own volume, and the others of the same multipath group."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ldoms.model.domain import VirtualDisk
from ldoms.model.services import Services, Volume


@dataclass(frozen=True, slots=True)
class DiskPath:
    """One way to the data of a disk."""

    service: str
    volume: Volume

    def __str__(self) -> str:
        return f"{self.volume.name}@{self.service}"


def paths_of(services: Services, disk: VirtualDisk) -> tuple[DiskPath, ...]:
    """Every way to the data of a disk: its own volume, then the others of the same multipath group.

    Raises:
        NotFound: its own volume, or the service, is not there.
    """
    own = DiskPath(disk.service, services.disk_service(disk.service).volume(disk.volume))
    return (own, *twins_of(services, own))


def is_shared(services: Services, path: DiskPath) -> bool:
    """Whether guests may have a back end at the same time: it is raw, and offered more than once (``-f``).

    Paths of one multipath group are ways to the same disk, not two disks.
    """
    volume, real = path.volume, os.path.realpath(path.volume.backend)
    return volume.format == "raw" and any(
        os.path.realpath(other.backend) == real and not (volume.mpgroup and other.mpgroup == volume.mpgroup)
        for service in services.disk_services
        for other in service.volumes
        if str(DiskPath(service.name, other)) != str(path)
    )


def twins_of(services: Services, path: DiskPath) -> tuple[DiskPath, ...]:
    """The other volumes of a volume's multipath group, in the order in which they were made."""
    if not path.volume.mpgroup:
        return ()
    return tuple(
        other
        for service in services.disk_services
        for volume in service.volumes
        if volume.mpgroup == path.volume.mpgroup and str(other := DiskPath(service.name, volume)) != str(path)
    )
