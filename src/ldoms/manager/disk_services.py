"""Virtual disk services and their volumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ldoms.manager.host import Host
from ldoms.manager.properties import choice_property
from ldoms.manager.services import ServiceBook
from ldoms.model.errors import AlreadyExists, RequestError
from ldoms.model.identity import check_name
from ldoms.model.services import Services, VirtualDiskService, Volume

VOLUME_OPTIONS = ("excl", "ro", "slice")


class DiskServiceVerbs:
    """``add-vds``, ``add-vdsdev`` and what takes them away again."""

    def __init__(self, host: Host, book: ServiceBook) -> None:
        self._host = host
        self._book = book

    def add(self, name: str, domain: str) -> None:
        """Make a virtual disk service."""
        services = self._book.new(name, domain, "virtual disk service", self._book.known.disk_services)
        self._book.save(replace(services, disk_services=(*services.disk_services, VirtualDiskService(name))))

    def remove(self, name: str, *, force: bool) -> None:
        """Remove a virtual disk service; with `force` also if it still has volumes, but never if one is in use."""
        services = self._book.known
        service = services.disk_service(name)
        for volume in service.volumes:
            self._check_unused_volume(volume.name, name, force=force)
        if service.volumes and not force:
            raise RequestError(
                f"virtual disk service {name} has volumes: remove them first, or use -f", code="service-in-use"
            )
        left = tuple(known for known in services.disk_services if known.name != name)
        self._book.save(replace(services, disk_services=left))

    async def add_volume(
        self,
        service: str,
        name: str,
        backend: str,
        options: tuple[str, ...],
        mpgroup: str,
        *,
        force: bool,
        quick: bool,
    ) -> None:
        """Offer a back end under a name.

        Args:
            service: that offers it.
            name: of the volume.
            backend: absolute path of an image or a block device.
            options: of ``ro``, ``slice``, ``excl``.
            mpgroup: name of its multipath group, or empty.
            force: allow a back end that another volume has already.
            quick: do not look at the back end now; it is looked at when a domain is bound.
        """
        check_name(name, "volume")
        for option in options:
            choice_property("options", option, VOLUME_OPTIONS)
        if not Path(backend).is_absolute() or "|" in backend or not backend.isprintable():
            raise RequestError(
                f"the back end must be given with its full path, not as {backend!r}; a path with '|' or a control"
                " character cannot be listed",
                code="bad-path",
            )
        image_format = "" if quick else await self._host.storage.detect_format(backend)
        services = self._book.known
        owner = services.disk_service(service)
        if any(volume.name == name for volume in owner.volumes):
            raise AlreadyExists(f"volume {name}@{service} already exists")
        twin = next((volume for volume in _all_volumes(services) if volume.backend == backend), None)
        if twin is not None and not force and not (mpgroup and twin.mpgroup == mpgroup):
            raise RequestError(
                f"back end {backend} is offered as volume {twin.name} already: two guests that write to it would"
                " destroy it; use -f if that is meant",
                code="backend-in-use",
            )
        volume = Volume(name, backend, tuple(sorted(set(options))), mpgroup, image_format)
        changed = replace(owner, volumes=(*owner.volumes, volume))
        self._book.save(_with_disk_service(services, changed))

    def remove_volume(self, service: str, name: str, *, force: bool) -> None:
        """Offer a back end no more; with `force` also if an inactive domain has a disk on it."""
        services = self._book.known
        owner = services.disk_service(service)
        owner.volume(name)
        self._check_unused_volume(name, service, force=force)
        changed = replace(owner, volumes=tuple(volume for volume in owner.volumes if volume.name != name))
        self._book.save(_with_disk_service(services, changed))

    def set_volume_format(self, service: str, name: str, image_format: str) -> Volume:
        """Note what a back end was found to be, for a volume that was added without a look at it."""
        services = self._book.known
        owner = services.disk_service(service)
        volume = replace(owner.volume(name), format=image_format)
        volumes = tuple(volume if known.name == name else known for known in owner.volumes)
        self._book.save(_with_disk_service(services, replace(owner, volumes=volumes)))
        return volume

    # Inside

    def _check_unused_volume(self, volume: str, service: str, *, force: bool) -> None:
        for domain in self._host.store.domains():
            for disk in domain.disks:
                if (disk.volume, disk.service) == (volume, service):
                    self._book.check_may_go(domain, f"volume {volume}@{service}", force=force)


def _all_volumes(services: Services) -> tuple[Volume, ...]:
    return tuple(volume for service in services.disk_services for volume in service.volumes)


def _with_disk_service(services: Services, changed: VirtualDiskService) -> Services:
    known = tuple(changed if service.name == changed.name else service for service in services.disk_services)
    return replace(services, disk_services=known)
