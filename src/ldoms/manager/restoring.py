"""Which domains a configuration brings back, and what each of them is given: pure.

Two rules stand above what the configuration says. A domain that another host owns does not come back, or its guest
could run twice; and a domain that has come here by migration is never dropped, as no other host has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from ldoms.manager.control_domain import factory_default
from ldoms.model.configuration import FACTORY_DEFAULT, Configuration, guests_of
from ldoms.model.domain import Bindings, Domain, MemoryBlock
from ldoms.model.partition import HostSize, Partition
from ldoms.model.services import Services


@dataclass(frozen=True, slots=True)
class Situation:
    """What the host has when it comes up.

    Attributes:
        domains, services: as they were when it went down.
        held: UUIDs of domains whose migration is not settled: they stay as they are.
        arrived: UUIDs of domains that came here by migration.
        away: UUIDs of domains that belong to another host.
    """

    size: HostSize
    domains: Sequence[Domain]
    services: Services
    held: Set[str] = frozenset()
    arrived: Set[str] = frozenset()
    away: Set[str] = frozenset()

    @property
    def control(self) -> Domain:
        """The control domain."""
        return next(domain for domain in self.domains if domain.is_control)


@dataclass(frozen=True, slots=True)
class Restored:
    """What the host is to have.

    Attributes:
        rebind: of domains that were bound, and whose strands, memory or port others have now: they are to get others,
            but the same machine and places of devices.
        left_out: names of domains that do not come back, with the reason.
    """

    domains: tuple[Domain, ...]
    services: Services
    rebind: Mapping[str, Bindings] = field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()


def restore(wanted: Configuration, now: Situation) -> Restored:
    """What becomes of the host when it comes up with a configuration."""
    held = [domain for domain in guests_of(now.domains) if domain.uuid in now.held]
    left_out, candidates = [], []
    known = {domain.uuid for domain in guests_of(wanted.domains)}
    keeps_arrived = wanted.name != FACTORY_DEFAULT
    arrived = [
        domain for domain in guests_of(now.domains) if keeps_arrived and domain.uuid in now.arrived - now.held - known
    ]
    taken_names, taken_macs = _names([*held, *arrived]), _macs([*held, *arrived])
    for domain in guests_of(wanted.domains):
        if domain.uuid in now.held:
            continue
        if domain.uuid in now.away:
            left_out.append((domain.name, "it belongs to another host now"))
        elif domain.name in taken_names or taken_macs & set(domain.macs):
            left_out.append((domain.name, "a domain that has come here by migration has its name or a MAC address"))
        else:
            candidates.append(domain)
    control = _control(wanted, now, held)
    domains, rebind = [control, *held], {}
    for domain in (*candidates, *arrived):
        fitted = replace(domain, started_at=0.0, order=_order(domain, domains))
        if domain.bindings is not None and not _fits(domain.bindings, now.size, domains):
            rebind[domain.uuid] = domain.bindings
            fitted = replace(fitted, bindings=None)
        domains.append(fitted)
    services = _with_needed(wanted.services, now.services, (*held, *arrived))
    return Restored(tuple(domains), services, rebind, tuple(left_out))


def _control(wanted: Configuration, now: Situation, held: Sequence[Domain]) -> Domain:
    """The control domain of the configuration, without what held domains have."""
    mine = now.control
    model = next((domain for domain in wanted.domains if domain.is_control), None) or factory_default(
        now.size, mine.mac
    )
    assert model.bindings is not None
    partition = Partition.of(now.size, held)
    free = set(partition.free_strands)
    strands = [strand for strand in model.bindings.strands if strand in free] or sorted(free)[:1] or [0]
    idle = tuple(strand for strand in model.bindings.idle if strand in free)
    memory = model.bindings.memory
    if not all(_is_free(block, now.size, held) for block in memory):
        memory = partition.pick_memory(min(model.bindings.memory_mib, partition.free_memory_mib), mine.name)
    constraints = replace(
        model.constraints,
        vcpus=len(strands),
        memory_mib=sum(block.size_mib for block in memory),
        core_ids=model.constraints.core_ids if len(strands) == len(model.bindings.vcpus) else (),
    )
    return replace(
        model,
        uuid=mine.uuid,
        mac=mine.mac,
        hostid=mine.hostid,
        order=mine.order,
        constraints=constraints,
        bindings=replace(model.bindings, vcpus=partition.bind_vcpus(strands), memory=memory, idle=idle),
    )


def _fits(bindings: Bindings, size: HostSize, others: Sequence[Domain]) -> bool:
    free = set(Partition.of(size, others).free_strands)
    ports = {other.bindings.console_port for other in guests_of(others) if other.bindings}
    return (
        bindings.held <= free
        and all(_is_free(block, size, others) for block in bindings.memory)
        and bindings.console_port not in ports
    )


def _is_free(block: MemoryBlock, size: HostSize, others: Iterable[Domain]) -> bool:
    start, end = block.physical_address_mib, block.physical_address_mib + block.size_mib
    return any(first <= start and end <= first + length for first, length in Partition.of(size, others).free_memory)


def _order(domain: Domain, others: Sequence[Domain]) -> int:
    taken = {other.order for other in others}
    return domain.order if domain.order not in taken else max(taken) + 1


def _names(domains: Iterable[Domain]) -> set[str]:
    return {domain.name for domain in domains}


def _macs(domains: Iterable[Domain]) -> set[str]:
    return {mac for domain in domains for mac in domain.macs}


def _with_needed(wanted: Services, now: Services, kept: Sequence[Domain]) -> Services:
    """The services of the configuration, and those of now that the domains that stay cannot do without."""
    switches = {network.switch for domain in kept for network in domain.networks}
    concentrators = {domain.bindings.console_service for domain in kept if domain.bindings}
    volumes = {(disk.service, disk.volume) for domain in kept for disk in domain.disks}
    disk_services = {service.name: service for service in wanted.disk_services}
    for service in now.disk_services:
        mine = disk_services.get(service.name, replace(service, volumes=()))
        has = {volume.name for volume in mine.volumes}
        missing = tuple(
            volume for volume in service.volumes if (service.name, volume.name) in volumes and volume.name not in has
        )
        if missing:
            disk_services[service.name] = replace(mine, volumes=(*mine.volumes, *missing))
    return Services(
        disk_services=tuple(disk_services.values()),
        switches=(
            *wanted.switches,
            *(known for known in now.switches if known.name in switches - {one.name for one in wanted.switches}),
        ),
        concentrators=(
            *wanted.concentrators,
            *(
                known
                for known in now.concentrators
                if known.name in concentrators - {one.name for one in wanted.concentrators}
            ),
        ),
    )
