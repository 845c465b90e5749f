"""Descriptions as XML: ``add-domain -i``, ``set-domain -i``, ``bind-domain -i``, ``start-domain -i``, ``init-system``
carry one out, ``list-constraints -x`` writes one.

What a description asks for is looked at as if it had been typed: where a command has a rule, its verb is called.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields, replace
from functools import partial

import structlog

from ldoms.constraints import Described, Description, info_properties, read_description, write_description
from ldoms.manager.concentrators import ConcentratorVerbs
from ldoms.manager.configurations import ConfigurationVerbs
from ldoms.manager.disk_services import DiskServiceVerbs
from ldoms.manager.domains import DomainVerbs
from ldoms.manager.host import Host
from ldoms.manager.life import LifeVerbs
from ldoms.manager.memory import MemoryVerbs
from ldoms.manager.network_properties import changed_network, network_properties, switch_properties
from ldoms.manager.policies import check_policy
from ldoms.manager.properties import MAX_DEVICES
from ldoms.manager.switches import SwitchVerbs
from ldoms.manager.vcpus import VcpuVerbs
from ldoms.model.cores import unfitting
from ldoms.model.dependencies import start_order
from ldoms.model.domain import ConsoleConstraint, Domain, VirtualNetwork
from ldoms.model.errors import AlreadyExists, LdomsError, RequestError
from ldoms.model.identity import CONTROL_DOMAIN, check_name
from ldoms.model.services import MAX_MTU, VirtualDiskService, VirtualSwitch

IMAGE_FORMATS = ("", "qcow2", "raw")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a description: the domains that it was about, and what was left out, in sentences."""

    domains: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())


class ConstraintVerbs:
    """Descriptions of domains and services, written and carried out."""

    def __init__(
        self,
        host: Host,
        domains: DomainVerbs,
        vcpus: VcpuVerbs,
        memory: MemoryVerbs,
        disk_services: DiskServiceVerbs,
        switches: SwitchVerbs,
        concentrators: ConcentratorVerbs,
        life: LifeVerbs,
        configurations: ConfigurationVerbs,
    ) -> None:
        self._host = host
        self._domains = domains
        self._vcpus = vcpus
        self._memory = memory
        self._disk_services = disk_services
        self._switches = switches
        self._concentrators = concentrators
        self._life = life
        self._configurations = configurations

    def describe(self, names: Iterable[str] = ()) -> str:
        """Domains as XML: those named, or all, with the services of the host.

        Raises:
            NotFound: one that is named does not exist.
        """
        store = self._host.store
        wanted = [store.domain(name) for name in names] or store.domains()
        ordered = sorted(wanted, key=lambda domain: (not domain.is_control, domain.order))
        return write_description(ordered, store.services())

    # Domains

    async def add(self, text: str) -> Made:
        """Make the domains of a description, inactive; all of them or none.

        Raises:
            RequestError: the description is none, or asks for what cannot be.
            AlreadyExists: a name, UUID or MAC address is taken.
        """
        return await self._make(text)

    async def bind(self, text: str, *, quick: bool = False) -> Made:
        """Make the domains of a description, and bind them; all of them or none."""
        return await self._make(text, partial(self._bind, quick=quick))

    async def start(self, text: str) -> Made:
        """Make the domains of a description, bind and start them; all of them or none."""
        return await self._make(text, self._bind, self._start)

    async def set(self, text: str) -> Made:
        """Change properties of the domains of a description: those of ``ldom_info``, nothing else.

        Raises:
            NotFound: there is no such domain.
            RequestError: the UUID is another one, or a property is wrong.
        """
        description = read_description(text)
        known = [self._host.store.domain(described.domain.name) for described in description.domains]
        for domain, described in zip(known, description.domains, strict=True):
            if described.domain.uuid not in ("", domain.uuid):
                raise RequestError(
                    f"LDom {domain.name} has the UUID {domain.uuid}, and the description is of another domain",
                    code="bad-xml",
                )
        for domain, described in zip(known, description.domains, strict=True):
            now = info_properties(domain)
            changed = {key: value for key, value in described.properties.items() if now.get(key, "") != value}
            if changed:
                await self._domains.set(domain.name, changed)
        return Made(tuple(domain.name for domain in known), description.warnings)

    # The whole host

    async def init(self, text: str, *, force: bool, services_only: bool) -> Made:
        """Make of this host what a description says: services, the control domain's share, and inactive domains.

        All of it or nothing. What is there already under the same name stays as it is.

        Args:
            text: as ``list-constraints -x`` writes it.
            force: also if the host is not as it was at first.
            services_only: disk services, switches and console concentrators, and no more.

        Raises:
            RequestError: code ``not-factory-default``: something was made of the host before; or the description is
                none, or asks for what cannot be.
        """
        description = read_description(text)
        if not force and not self._configurations.is_factory_default():
            raise RequestError(
                "the host is not in its factory-default configuration: use -f to add to what is there",
                code="not-factory-default",
            )
        warnings = list(description.warnings)
        guests = [described for described in description.domains if not described.domain.is_control]
        made: tuple[str, ...] = ()
        async with AsyncExitStack() as undo:
            await self._init_services(description, warnings, undo)
            if not services_only:
                for described in description.domains:
                    if described.domain.is_control:
                        await self._init_control(described.domain, undo)
                made = await self._add_all(self._missing(guests, warnings), undo)
            undo.pop_all()
        return Made(made, tuple(warnings))

    # Inside: domains

    async def _make(self, text: str, *steps: Callable[[str, AsyncExitStack], Awaitable[None]]) -> Made:
        description = read_description(text)
        async with AsyncExitStack() as undo:
            names = await self._add_all(description.domains, undo)
            for name in names:
                for step in steps:
                    await step(name, undo)
            undo.pop_all()
        return Made(names, description.warnings)

    async def _add_all(self, described: Sequence[Described], undo: AsyncExitStack) -> tuple[str, ...]:
        """Make domains, masters first, so that each finds its own."""
        by_name = {one.domain.name: one for one in described}
        names = tuple(domain.name for domain in start_order(one.domain for one in described))
        for name in names:
            await self._add(by_name[name], undo)
        return names

    async def _add(self, described: Described, undo: AsyncExitStack) -> None:
        wanted, store = described.domain, self._host.store
        if wanted.is_control:
            raise AlreadyExists(f"LDom {CONTROL_DOMAIN} already exists: init-system takes what is said about it")
        if any(domain.name == wanted.name for domain in store.domains()):
            raise AlreadyExists(f"LDom {wanted.name} already exists")
        if wanted.uuid and self._host.has_left(wanted.uuid):
            raise RequestError(
                f"LDom {wanted.name} with the UUID {wanted.uuid} belongs to another host now, and must not run here as"
                " well: migrate it back, or take <uuid> and the MAC addresses out of the description to make a new"
                " domain",
                code="moved-away",
            )
        self._check(wanted)
        networks = tuple([await self._checked_network(network) for network in wanted.networks])
        uuid = {"uuid": wanted.uuid} if wanted.uuid else {}
        made = await self._domains.add(wanted.name, {**described.properties, **uuid})
        undo.push_async_callback(_undo, lambda: self._domains.remove(made.name))
        self._check_macs(made, networks)
        more = {known.name: getattr(wanted, known.name) for known in fields(Domain) if known.name not in _SETTLED}
        constraints = replace(
            wanted.constraints,
            **{name: getattr(made.constraints, name) for name in ("cpu_arch", "failure_policy", "masters", "platform")},
            shutdown_group=made.constraints.shutdown_group,
        )
        self._host.save(replace(made, constraints=constraints, networks=networks, **more))

    async def _bind(self, name: str, undo: AsyncExitStack, *, quick: bool = False) -> None:
        await self._life.bind(name, quick=quick)
        undo.push_async_callback(_undo_later, lambda: self._life.unbind(name))

    async def _start(self, name: str, undo: AsyncExitStack) -> None:
        await self._life.start(name)
        undo.push_async_callback(_undo_later, lambda: self._life.stop(name, force=True))

    async def _checked_network(self, wanted: VirtualNetwork) -> VirtualNetwork:
        """An interface as ``add-vnet`` would have made it; without a MAC address it gets one."""
        switches = {switch.name: switch for switch in self._host.store.services().switches}
        # A switch that is not there yet is needed when the domain is bound.
        switch = switches.get(wanted.switch, VirtualSwitch(wanted.switch, 0, "", mtu=MAX_MTU))
        bare = VirtualNetwork(wanted.name, wanted.switch, wanted.id, "")
        checked = changed_network(bare, network_properties(wanted), switch)
        mac = await self._host.pick_mac(wanted.mac)
        alternatives = tuple([await self._host.pick_mac(mac) for mac in wanted.alt_macs if mac])
        return replace(checked, mac=mac, alt_macs=alternatives)

    @staticmethod
    def _check_macs(made: Domain, networks: tuple[VirtualNetwork, ...]) -> None:
        macs = [made.mac, *(mac for network in networks for mac in network.macs)]
        for mac in macs:
            if macs.count(mac) > 1:
                raise AlreadyExists(f"MAC address {mac} is given twice in LDom {made.name}", code="mac-in-use")

    def _check(self, wanted: Domain) -> None:
        """What the commands that would have made it look at."""
        check_name(wanted.name, "domain")
        services = self._host.store.services()
        if why := unfitting(wanted.constraints, self._host.size.strands_per_cpu):
            raise _bad(wanted, why)
        for policy in wanted.policies:
            check_policy(policy)
            if [known.name for known in wanted.policies].count(policy.name) > 1:
                raise AlreadyExists(f"policy {policy.name} is given twice in LDom {wanted.name}")
        for kind, devices in (("disk", wanted.disks), ("virtual network", wanted.networks)):
            names, numbers = [device.name for device in devices], [device.id for device in devices]
            for name in names:
                check_name(name, kind)
                if names.count(name) > 1:
                    raise AlreadyExists(f"{kind} {name} is there twice in LDom {wanted.name}")
            if len(set(numbers)) < len(numbers) or any(number >= MAX_DEVICES for number in numbers):
                raise _bad(wanted, f"the id of a {kind} is taken twice or higher than {MAX_DEVICES - 1}")
        for name, _ in wanted.variables:
            if any(character in "=|" or character.isspace() for character in name):
                raise RequestError(f"'{name}' cannot name a variable", code="bad-name")
        used = {
            (disk.service, disk.volume): domain.name for domain in self._host.store.domains() for disk in domain.disks
        }
        for disk in wanted.disks:
            holder = used.get((disk.service, disk.volume))
            if holder:
                raise RequestError(
                    f"volume {disk.volume}@{disk.service} is in use by LDom {holder}", code="volume-in-use"
                )
        self._check_console(wanted, wanted.console, [known.name for known in services.concentrators])

    @staticmethod
    def _check_console(wanted: Domain, console: ConsoleConstraint, concentrators: Sequence[str]) -> None:
        if console.group:
            check_name(console.group, "console group")
        if console.service and console.service not in concentrators:
            raise _bad(wanted, f"there is no virtual console concentrator {console.service} for its console")
        if console.port and not 1024 <= console.port <= 65535:
            raise _bad(wanted, f"port={console.port} is no port for a console")

    def _missing(self, guests: Sequence[Described], warnings: list[str]) -> Sequence[Described]:
        known = {domain.name for domain in self._host.store.domains()}
        names = [described.domain.name for described in guests]
        warnings.extend(f"LDom {name} already exists, and stays as it is" for name in names if name in known)
        return [described for described in guests if described.domain.name not in known]

    # Inside: the host

    async def _init_control(self, wanted: Domain, undo: AsyncExitStack) -> None:
        """Give the control domain what the description says; what it had is given back if something fails later."""
        before = self._host.store.domain(CONTROL_DOMAIN).constraints
        asked = wanted.constraints
        if asked.vcpus and asked.vcpus != before.vcpus:
            await self._vcpus.set(CONTROL_DOMAIN, asked.vcpus)
            undo.push_async_callback(_undo_later, lambda: self._vcpus.set(CONTROL_DOMAIN, before.vcpus))
        if asked.memory_mib and asked.memory_mib != before.memory_mib:
            await self._memory.set(CONTROL_DOMAIN, asked.memory_mib)
            undo.push_async_callback(_undo_later, lambda: self._memory.set(CONTROL_DOMAIN, before.memory_mib))

    async def _init_services(self, description: Description, warnings: list[str], undo: AsyncExitStack) -> None:
        known, wanted = self._host.store.services(), description.services
        there = {("vcc", one.name) for one in known.concentrators} | {("vsw", one.name) for one in known.switches}
        for concentrator in wanted.concentrators:
            if _is_there(("vcc", concentrator.name), there, warnings):
                continue
            ports = f"{concentrator.port_min}-{concentrator.port_max}"
            self._concentrators.add(concentrator.name, CONTROL_DOMAIN, ports)
            undo.push_async_callback(_undo, _remover(self._concentrators.remove, concentrator.name))
        for switch in wanted.switches:
            if _is_there(("vsw", switch.name), there, warnings):
                continue
            await self._switches.add(switch.name, CONTROL_DOMAIN, _switch_properties(switch))
            undo.push_async_callback(self._remove_switch, switch.name)
        for service in wanted.disk_services:
            await self._init_disk_service(service, warnings, undo)

    async def _init_disk_service(self, wanted: VirtualDiskService, warnings: list[str], undo: AsyncExitStack) -> None:
        mine = {service.name: service for service in self._host.store.services().disk_services}.get(wanted.name)
        if mine is None:
            self._disk_services.add(wanted.name, CONTROL_DOMAIN)
            undo.push_async_callback(_undo, _remover(self._disk_services.remove, wanted.name))
        there = {("volume", volume.name) for volume in mine.volumes} if mine else set()
        for volume in wanted.volumes:
            if _is_there(("volume", volume.name), there, warnings):
                continue
            if volume.format not in IMAGE_FORMATS:
                raise RequestError(f"volume {volume.name}: format={volume.format} has no meaning", code="bad-xml")
            # A format that was found once is never looked for again: a guest may have written anything since.
            await self._disk_services.add_volume(
                wanted.name,
                volume.name,
                volume.backend,
                volume.options,
                volume.mpgroup,
                force=False,
                quick=bool(volume.format),
            )
            undo.push_async_callback(
                _undo,
                _remover(partial(self._disk_services.remove_volume, wanted.name), volume.name),
            )
            if volume.format:
                self._disk_services.set_volume_format(wanted.name, volume.name, volume.format)

    async def _remove_switch(self, name: str) -> None:
        await _undo_later(lambda: self._switches.remove(name, force=True))


_SETTLED = ("uuid", "name", "mac", "hostid", "order", "constraints", "networks", "bindings", "started_at")
"""Fields of a domain that are not taken from its description as they are."""


def _is_there(what: tuple[str, str], there: set[tuple[str, str]], warnings: list[str]) -> bool:
    if what in there:
        warnings.append(f"{what[0]} {what[1]} already exists, and stays as it is")
    return what in there


def _switch_properties(switch: VirtualSwitch) -> Mapping[str, str]:
    """A switch as ``add-vsw`` takes it."""
    mac = {"mac-addr": switch.mac} if switch.mac else {}
    return {"id": str(switch.id), **mac, **switch_properties(switch)}


def _bad(wanted: Domain, reason: str) -> RequestError:
    return RequestError(f"LDom {wanted.name} cannot be made: {reason}", code="bad-property")


def _remover(remove: Callable[..., None], name: str) -> Callable[[], None]:
    return lambda: remove(name, force=True)


async def _undo(work: Callable[[], object]) -> None:
    """Take something back; a failure of that is logged, as the error that led here is told."""
    try:
        work()
    except LdomsError as error:
        _log.error("not-taken-back", reason=error.message)


async def _undo_later(work: Callable[[], Awaitable[object]]) -> None:
    try:
        await work()
    except LdomsError as error:
        _log.error("not-taken-back", reason=error.message)
