"""The manager of a host: its verbs, put together, and what happens when it starts and stops."""

from __future__ import annotations

import uuid as uuids
from dataclasses import replace

import structlog

from ldoms.manager.concentrators import ConcentratorVerbs
from ldoms.manager.consoles import Consoles
from ldoms.manager.crypto import CryptoVerbs
from ldoms.manager.disk_services import DiskServiceVerbs
from ldoms.manager.disks import DiskVerbs
from ldoms.manager.domains import DomainVerbs
from ldoms.manager.host import Host
from ldoms.manager.life import LifeVerbs
from ldoms.manager.listing import Listing
from ldoms.manager.local import LocalMigrationHost
from ldoms.manager.memory import MemoryVerbs
from ldoms.manager.migrations import MigrationVerbs
from ldoms.manager.networks import NetworkVerbs
from ldoms.manager.services import ServiceBook
from ldoms.manager.switches import SwitchVerbs
from ldoms.manager.vcpus import VcpuVerbs
from ldoms.migration.peer import Connector
from ldoms.migration.target import TargetSide
from ldoms.model.domain import Bindings, Constraints, Domain
from ldoms.model.events import EventKind
from ldoms.model.identity import CONTROL_DOMAIN, hostid_of
from ldoms.model.partition import HostSize, Partition, shrink_memory

_log = structlog.get_logger(__name__)


class Manager:
    """Everything that `ldm` can ask of a host.

    Attributes:
        domains, disks, networks, vcpus, memory, crypto, disk_services, switches, concentrators, life, migrations: the
            verbs, by what they act on.
        listing: what is asked without changing anything.
        target: what other hosts' managers call.
    """

    def __init__(self, host: Host, connector: Connector, consoles: Consoles) -> None:
        self.host = host
        self.consoles = consoles
        self.domains = DomainVerbs(host)
        self.disks = DiskVerbs(host)
        self.networks = NetworkVerbs(host)
        self.vcpus = VcpuVerbs(host)
        self.memory = MemoryVerbs(host)
        self.crypto = CryptoVerbs(host)
        book = ServiceBook(host)
        self.disk_services = DiskServiceVerbs(host, book)
        self.switches = SwitchVerbs(host, book)
        self.concentrators = ConcentratorVerbs(host, book)
        self.life = LifeVerbs(host, self.disk_services, self.consoles)
        local = LocalMigrationHost(host, self.life, self.consoles)
        self.target = TargetSide(local)
        self.migrations = MigrationVerbs(host, local, connector, self.target)
        self.listing = Listing(host, self.migrations)

    async def start(self) -> None:
        """Find everything again that is here from before, and go on with it."""
        await self._put_control_domain()
        await self.host.engine.place_control(self.host.control_placement())
        await self.switches.restore()
        await self.life.find_guests()
        await self.target.recover()
        await self.migrations.recover()

    async def stop(self) -> None:
        """Let go of everything. Guests go on running, and migrations go on after the next start."""
        await self.host.operations.close()
        await self.migrations.close()
        await self.target.close()
        await self.consoles.close()
        await self.host.guests.close()
        await self.host.engine.close()

    async def _put_control_domain(self) -> None:
        """At the first start, the control domain owns everything; later it follows changes of the machine."""
        store, size = self.host.store, self.host.size
        known = next((domain for domain in store.domains() if domain.is_control), None)
        if known is None:
            self.host.save(_factory_default(size, await self.host.pick_mac("")), EventKind.DOMAIN_ADDED)
            return
        fitted = _fit(known, size)
        if fitted != known:
            _log.warning("machine-changed", strands=len(size.strands), memory_mib=size.memory_mib)
            self.host.save(fitted)


def _factory_default(size: HostSize, mac: str) -> Domain:
    """The control domain of a new host: it owns every strand and all memory."""
    partition = Partition(size, {})
    strands = tuple(size.strands)
    return Domain(
        uuid=str(uuids.uuid4()),
        name=CONTROL_DOMAIN,
        mac=mac,
        hostid=hostid_of(mac),
        order=0,
        constraints=Constraints(vcpus=len(strands), memory_mib=size.memory_mib, shutdown_group=0),
        bindings=Bindings(
            vcpus=partition.bind_vcpus(strands), memory=partition.pick_memory(size.memory_mib, CONTROL_DOMAIN)
        ),
    )


def _fit(control: Domain, size: HostSize) -> Domain:
    """The control domain on a machine that has less than before; what is more than before stays free."""
    assert control.bindings is not None
    partition = Partition(size, {})
    kept = [strand for strand in control.bindings.strands if strand in size.strands] or [0]
    inside = tuple(
        block for block in control.bindings.memory if block.physical_address_mib + block.size_mib <= size.memory_mib
    ) or shrink_memory(control.bindings.memory, size.memory_mib)
    memory_mib = sum(block.size_mib for block in inside)
    return replace(
        control,
        constraints=replace(control.constraints, vcpus=len(kept), memory_mib=memory_mib),
        bindings=replace(control.bindings, vcpus=partition.bind_vcpus(kept), memory=inside),
    )
