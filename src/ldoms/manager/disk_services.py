"""Virtual disk services and their volumes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ldoms.manager.disk_paths import DiskPath, paths_of, twins_of
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
            force: allow a back end that another volume has already, unless one of them wants it for itself (``excl``).
            quick: do not look at the back end now; it is looked at when a domain is bound.
        """
        check_name(name, "volume")
        check_options(options)
        if not Path(backend).is_absolute() or "|" in backend or not backend.isprintable():
            raise RequestError(
                f"the back end must be given with its full path, not as {backend!r}; a path with '|' or a control"
                " character cannot be listed",
                code="bad-path",
            )
        image_format = "" if quick else await self._host.storage.detect_format(backend)
        volume = Volume(name, backend, tuple(sorted(set(options))), mpgroup, image_format)
        if not quick:
            await self._check_group(service, volume, force=force)
        services = self._book.known
        owner = services.disk_service(service)
        if any(volume.name == name for volume in owner.volumes):
            raise AlreadyExists(f"volume {name}@{service} already exists")
        _check_back_end(services, volume, DiskPath(service, volume), force=force)
        changed = replace(owner, volumes=(*owner.volumes, volume))
        self._book.save(_with_disk_service(services, changed))

    async def set_volume(
        self, service: str, name: str, options: tuple[str, ...] | None, mpgroup: str | None, *, force: bool
    ) -> None:
        """Change a volume that no bound domain uses; None leaves what is there, empty clears it.

        Raises:
            RequestError: a bound domain uses it; with `force`, too, because its guest has the disk as it was.
        """
        if options is not None:
            check_options(options)
        volume = self._book.known.disk_service(service).volume(name)
        changed = replace(
            volume,
            options=volume.options if options is None else tuple(sorted(set(options))),
            mpgroup=volume.mpgroup if mpgroup is None else mpgroup,
        )
        await self._check_group(service, changed, force=force)
        services = self._book.known
        owner = services.disk_service(service)
        self._check_unused_volume(name, service, force=True)
        _check_back_end(services, changed, DiskPath(service, volume), force=True)
        volumes = tuple(changed if known.name == name else known for known in owner.volumes)
        self._book.save(_with_disk_service(services, replace(owner, volumes=volumes)))

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

    def add_made_volume(self, service: str, volume: Volume) -> None:
        """Offer a back end that is about to be made for a domain that comes with its disks.

        Raises:
            NotFound: the service is not there.
            AlreadyExists: there is a volume of that name.
            RequestError: the back end is offered already.
        """
        services = self._book.known
        owner = services.disk_service(service)
        if any(known.name == volume.name for known in owner.volumes):
            raise AlreadyExists(f"volume {volume.name}@{service} already exists")
        _check_back_end(services, volume, DiskPath(service, volume), force=False)
        self._book.save(_with_disk_service(services, replace(owner, volumes=(*owner.volumes, volume))))

    def remove_made_volume(self, service: str, volume: Volume) -> None:
        """Offer it no more; nothing happens if it is gone."""
        services = self._book.known
        for owner in services.disk_services:
            if owner.name == service and volume in owner.volumes:
                left = tuple(known for known in owner.volumes if known != volume)
                self._book.save(_with_disk_service(services, replace(owner, volumes=left)))

    # Inside

    def _check_unused_volume(self, volume: str, service: str, *, force: bool) -> None:
        services, name = self._book.known, f"{volume}@{service}"
        for domain in self._host.store.domains():
            for disk in domain.disks:
                # A guest may use any path of its disk's group.
                own = (disk.volume, disk.service) == (volume, service)
                if own or (domain.is_bound and name in map(str, paths_of(services, disk))):
                    self._book.check_may_go(domain, f"volume {name}", force=force)

    async def _check_group(self, service: str, volume: Volume, *, force: bool) -> None:
        """Make sure that the volumes of a multipath group look like paths to the same data."""
        path = DiskPath(service, volume)
        ours = await self._host.storage.inspect(str(path), volume, "")
        for twin in twins_of(self._book.known, path):
            theirs = await self._host.storage.inspect(str(twin), twin.volume, "")
            differing = [
                what
                for what, mine, other in (
                    ("options", volume.options, twin.volume.options),
                    ("format", ours.format, theirs.format),
                    ("size", ours.virtual_size, theirs.virtual_size),
                )
                if mine != other and (what == "options" or not (ours.error or theirs.error))
            ]
            if differing and not force:
                raise RequestError(
                    f"volumes {path} and {twin} of multipath group {volume.mpgroup} must be paths to the same data, and"
                    f" differ in {', '.join(differing)}; use -f if they are all the same",
                    code="bad-mpgroup",
                )


def check_options(options: tuple[str, ...]) -> None:
    """Make sure that they are options of a volume.

    Raises:
        RequestError: one is not.
    """
    for option in options:
        choice_property("options", option, VOLUME_OPTIONS)


def _check_back_end(services: Services, volume: Volume, path: DiskPath, *, force: bool) -> None:
    """Make sure that a back end is offered once, or that more than once is meant."""
    for twin in _all_volumes(services):
        if os.path.realpath(twin.volume.backend) != os.path.realpath(volume.backend) or str(twin) == str(path):
            continue
        exclusive = next((known for known in (volume, twin.volume) if known.is_exclusive), None)
        if exclusive is not None:
            raise RequestError(
                f"back end {volume.backend} is offered as volume {twin} already, and option excl of volume"
                f" {exclusive.name} forbids that, also with -f",
                code="backend-in-use",
            )
        if not force and not (volume.mpgroup and twin.volume.mpgroup == volume.mpgroup):
            raise RequestError(
                f"back end {volume.backend} is offered as volume {twin.volume.name} already: two guests that write to"
                " it would destroy it; use -f if that is meant",
                code="backend-in-use",
            )


def _all_volumes(services: Services) -> tuple[DiskPath, ...]:
    return tuple(DiskPath(service.name, volume) for service in services.disk_services for volume in service.volumes)


def _with_disk_service(services: Services, changed: VirtualDiskService) -> Services:
    known = tuple(changed if service.name == changed.name else service for service in services.disk_services)
    return replace(services, disk_services=known)
