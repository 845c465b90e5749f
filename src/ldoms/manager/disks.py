"""Disks of domains."""

from __future__ import annotations

from dataclasses import replace

from ldoms.manager.host import Host
from ldoms.manager.properties import check_unbound, free_number, without
from ldoms.model.domain import Domain, VirtualDisk
from ldoms.model.errors import AlreadyExists, RequestError
from ldoms.model.identity import check_name


class DiskVerbs:
    """``add-vdisk``, ``remove-vdisk``."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def add(self, name: str, disk: str, volume: str, service: str, timeout_s: int, number: int | None) -> Domain:
        """Give a domain a disk on a volume.

        Raises:
            RequestError: the domain is bound, or the volume is in use by another one.
        """
        with self._host.changing(name, "add-vdisk") as domain:
            check_unbound(domain, "a disk can be added")
            check_name(disk, "disk")
            if any(known.name == disk for known in domain.disks):
                raise AlreadyExists(f"disk {disk} already exists in LDom {name}")
            self._host.store.services().disk_service(service).volume(volume)
            holder = self._disk_on(volume, service)
            if holder is not None:
                raise RequestError(
                    f"volume {volume}@{service} is in use by disk {holder[1].name} of LDom {holder[0].name}",
                    code="volume-in-use",
                )
            number = free_number(number, [known.id for known in domain.disks], f"disk of LDom {name}")
            added = VirtualDisk(disk, volume, service, number, timeout_s)
            return self._host.save(replace(domain, disks=(*domain.disks, added)))

    def remove(self, name: str, disk: str) -> Domain:
        """Take a disk away from a domain."""
        with self._host.changing(name, "remove-vdisk") as domain:
            check_unbound(domain, "a disk can be removed")
            domain.disk(disk)
            return self._host.save(replace(domain, disks=without(domain.disks, disk, lambda known: known.name)))

    def _disk_on(self, volume: str, service: str) -> tuple[Domain, VirtualDisk] | None:
        for domain in self._host.store.domains():
            for disk in domain.disks:
                if (disk.volume, disk.service) == (volume, service):
                    return domain, disk
        return None
