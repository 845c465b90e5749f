"""The virtual services of the host: disk servers with their volumes, switches, console concentrators."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import structlog

from ldoms.manager.domains import choice_property, int_property, refuse_unknown
from ldoms.manager.host import Host
from ldoms.model.domain import Domain
from ldoms.model.errors import AlreadyExists, HostError, RequestError
from ldoms.model.events import EventKind
from ldoms.model.identity import CONTROL_DOMAIN, check_name
from ldoms.model.services import (
    DEFAULT_MTU,
    MAX_MTU,
    MIN_MTU,
    ConsoleConcentrator,
    Services,
    VirtualDiskService,
    VirtualSwitch,
    Volume,
)

VOLUME_OPTIONS = ("excl", "ro", "slice")

_log = structlog.get_logger(__name__)


class ServiceVerbs:
    """``add-vds``, ``add-vdsdev``, ``add-vsw``, ``add-vcc`` and what takes them away again."""

    def __init__(self, host: Host) -> None:
        self._host = host

    # Disk services and volumes

    def add_disk_service(self, name: str, domain: str) -> None:
        """Make a virtual disk service."""
        services = self._new(name, domain, "virtual disk service", self._services().disk_services)
        self._save(replace(services, disk_services=(*services.disk_services, VirtualDiskService(name))))

    def remove_disk_service(self, name: str, *, force: bool) -> None:
        """Remove a virtual disk service; with `force` also if it still has volumes, but never if one is in use."""
        services = self._services()
        service = services.disk_service(name)
        for volume in service.volumes:
            self._check_unused_volume(volume.name, name, force=force)
        if service.volumes and not force:
            raise RequestError(
                f"virtual disk service {name} has volumes: remove them first, or use -f", code="service-in-use"
            )
        left = tuple(known for known in services.disk_services if known.name != name)
        self._save(replace(services, disk_services=left))

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
        services = self._services()
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
        self._save(_with_disk_service(services, changed))

    def remove_volume(self, service: str, name: str, *, force: bool) -> None:
        """Offer a back end no more; with `force` also if an inactive domain has a disk on it."""
        services = self._services()
        owner = services.disk_service(service)
        owner.volume(name)
        self._check_unused_volume(name, service, force=force)
        changed = replace(owner, volumes=tuple(volume for volume in owner.volumes if volume.name != name))
        self._save(_with_disk_service(services, changed))

    def set_volume_format(self, service: str, name: str, image_format: str) -> Volume:
        """Note what a back end was found to be, for a volume that was added without a look at it."""
        services = self._services()
        owner = services.disk_service(service)
        volume = replace(owner.volume(name), format=image_format)
        volumes = tuple(volume if known.name == name else known for known in owner.volumes)
        self._save(_with_disk_service(services, replace(owner, volumes=volumes)))
        return volume

    # Switches

    async def add_switch(self, name: str, domain: str, properties: Mapping[str, str]) -> None:
        """Make a virtual switch, a bridge of this host.

        Args:
            name: of the switch.
            domain: ``primary``.
            properties: ``net-dev``, ``mtu``, ``mac-addr``, ``id``, ``linkprop``, ``mode``, ``inter-vnet-link``,
                ``default-vlan-id``, ``pvid``.
        """
        given = dict(properties)
        net_dev = given.pop("net-dev", "")
        if net_dev:
            await self._host.network.check_uplink(net_dev)
        mac = await self._host.pick_mac(given.pop("mac-addr", ""))
        services = self._new(name, domain, "virtual switch", self._services().switches)
        taken = [switch.id for switch in services.switches]
        wished = given.pop("id", "")
        number = int_property("id", wished) if wished else next(n for n in range(len(taken) + 1) if n not in taken)
        if number in taken:
            raise AlreadyExists(f"id {number} is taken by another virtual switch", code="id-in-use")
        mtu = int_property("mtu", given.pop("mtu", "") or str(DEFAULT_MTU))
        if not MIN_MTU <= mtu <= MAX_MTU:
            raise RequestError(f"mtu={mtu} is out of range: use {MIN_MTU} to {MAX_MTU}", code="bad-property")
        switch = VirtualSwitch(
            name=name,
            id=number,
            mac=mac,
            net_dev=net_dev,
            mtu=mtu,
            linkprop=choice_property("linkprop", given.pop("linkprop", ""), ("", "phys-state")),
            mode=choice_property("mode", given.pop("mode", ""), ("", "sc")),
            inter_vnet_link=choice_property(
                "inter-vnet-link", given.pop("inter-vnet-link", "") or "on", ("on", "off", "auto")
            ),
        )
        refuse_unknown(given)
        self._save(replace(services, switches=(*services.switches, switch)))
        try:
            await self._host.network.put_switch(switch)
        except HostError:
            with suppress(HostError):
                await self._host.network.remove_switch(switch)
            self._forget_switch(name)
            raise

    async def remove_switch(self, name: str, *, force: bool) -> None:
        """Remove a virtual switch; with `force` also if an inactive domain is to be connected to it."""
        services = self._services()
        switch = services.switch(name)
        for domain in self._host.store.domains():
            if any(network.switch == name for network in domain.networks):
                self._check_may_go(domain, f"virtual switch {name}", force=force)
        await self._host.network.remove_switch(switch)
        self._forget_switch(name)

    async def restore_switches(self) -> None:
        """Make the bridges of all switches again, as a restart of the machine takes them away.

        What cannot be made is logged: guests that run, and migrations, need a manager all the same.
        """
        for switch in self._services().switches:
            try:
                await self._host.network.put_switch(switch)
            except HostError as error:
                _log.warning("switch-not-restored", switch=switch.name, reason=error.message)

    # Console concentrators

    def add_concentrator(self, name: str, domain: str, port_range: str) -> None:
        """Make a console concentrator for the ports ``FIRST-LAST``."""
        services = self._new(name, domain, "virtual console concentrator", self._services().concentrators)
        low, high = _port_range(port_range)
        for other in services.concentrators:
            if low <= other.port_max and other.port_min <= high:
                raise RequestError(
                    f"ports {port_range} overlap with those of virtual console concentrator {other.name}",
                    code="bad-property",
                )
        added = ConsoleConcentrator(name, low, high)
        self._save(replace(services, concentrators=(*services.concentrators, added)))

    def remove_concentrator(self, name: str, *, force: bool) -> None:
        """Remove a console concentrator; with `force` also if an inactive domain asks for it."""
        services = self._services()
        services.concentrator(name)
        for domain in self._host.store.domains():
            bound_to = domain.bindings.console_service if domain.bindings else ""
            if name in (domain.console.service, bound_to):
                self._check_may_go(domain, f"virtual console concentrator {name}", force=force)
        left = tuple(known for known in services.concentrators if known.name != name)
        self._save(replace(services, concentrators=left))

    # Inside

    def _services(self) -> Services:
        return self._host.store.services()

    def _save(self, services: Services) -> None:
        with self._host.store.transaction():
            self._host.store.put_services(services)
            self._host.events.publish(EventKind.SERVICES_CHANGED)

    def _forget_switch(self, name: str) -> None:
        services = self._services()
        left = tuple(known for known in services.switches if known.name != name)
        self._save(replace(services, switches=left))

    def _new(
        self,
        name: str,
        domain: str,
        kind: str,
        known: tuple[VirtualDiskService | VirtualSwitch | ConsoleConcentrator, ...],
    ) -> Services:
        check_name(name, kind)
        if domain != CONTROL_DOMAIN:
            self._host.store.domain(domain)
            raise RequestError(
                f"LDom {domain} cannot be a service domain: on this platform services belong to {CONTROL_DOMAIN}",
                code="no-service-domain",
            )
        if any(service.name == name for service in known):
            raise AlreadyExists(f"{kind} {name} already exists")
        return self._services()

    def _check_unused_volume(self, volume: str, service: str, *, force: bool) -> None:
        for domain in self._host.store.domains():
            for disk in domain.disks:
                if (disk.volume, disk.service) == (volume, service):
                    self._check_may_go(domain, f"volume {volume}@{service}", force=force)

    @staticmethod
    def _check_may_go(domain: Domain, what: str, *, force: bool) -> None:
        if domain.is_bound:
            raise RequestError(
                f"{what} is attached to LDom {domain.name}, which is bound: unbind it first", code="service-in-use"
            )
        if not force:
            raise RequestError(
                f"{what} is attached to LDom {domain.name}: remove it there first, or use -f", code="service-in-use"
            )


def parse_volume(text: str) -> tuple[str, str]:
    """Read ``volume@service``.

    Raises:
        RequestError: it is not of that form.
    """
    volume, separator, service = text.rpartition("@")
    if not (volume and separator and service):
        raise RequestError(f"'{text}' does not name a volume: write VOLUME@SERVICE", code="bad-name")
    return volume, service


def _all_volumes(services: Services) -> tuple[Volume, ...]:
    return tuple(volume for service in services.disk_services for volume in service.volumes)


def _with_disk_service(services: Services, changed: VirtualDiskService) -> Services:
    known = tuple(changed if service.name == changed.name else service for service in services.disk_services)
    return replace(services, disk_services=known)


def _port_range(text: str) -> tuple[int, int]:
    low, separator, high = text.partition("-")
    if not (separator and low.isdigit() and high.isdigit() and 1024 <= int(low) <= int(high) <= 65535):
        raise RequestError(
            f"port-range={text} has no meaning: give the first and the last port, such as 5000-5100",
            code="bad-property",
        )
    return int(low), int(high)
