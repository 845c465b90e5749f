"""The manager of a host: its verbs, put together, and what happens when it starts and stops."""

from __future__ import annotations

import structlog

from ldoms.manager.back_ends import BackEnds
from ldoms.manager.concentrators import ConcentratorVerbs
from ldoms.manager.configurations import ConfigurationVerbs
from ldoms.manager.consoles import Consoles
from ldoms.manager.constraints import ConstraintVerbs
from ldoms.manager.control_domain import factory_default, fit
from ldoms.manager.crypto import CryptoVerbs
from ldoms.manager.disk_errors import DiskErrors
from ldoms.manager.disk_services import DiskServiceVerbs
from ldoms.manager.disks import DiskVerbs
from ldoms.manager.domains import DomainVerbs
from ldoms.manager.failure import FailurePolicies
from ldoms.manager.guests import RunningGuest
from ldoms.manager.history import History
from ldoms.manager.host import Host
from ldoms.manager.hotplug import HotPlug
from ldoms.manager.inside import Inside
from ldoms.manager.life import LifeVerbs
from ldoms.manager.links import GuestLinks
from ldoms.manager.listing import Listing
from ldoms.manager.local import LocalMigrationHost
from ldoms.manager.logs import LogVerbs
from ldoms.manager.memory import MemoryVerbs
from ldoms.manager.migrations import MigrationVerbs
from ldoms.manager.network_devices import NetworkDevices
from ldoms.manager.networks import NetworkVerbs
from ldoms.manager.panics import PanicVerbs
from ldoms.manager.policies import PolicyVerbs
from ldoms.manager.power_on import PowerOn
from ldoms.manager.reconfiguration import Reconfiguration
from ldoms.manager.services import ServiceBook
from ldoms.manager.switches import SwitchVerbs
from ldoms.manager.taps import Taps
from ldoms.manager.vcons import ConsoleVerbs
from ldoms.manager.vcpus import VcpuVerbs
from ldoms.migration.peer import Connector
from ldoms.migration.target import TargetSide
from ldoms.model.events import EventKind

_log = structlog.get_logger(__name__)


class Manager:
    """Everything that `ldm` can ask of a host.

    Attributes:
        domains, disks, networks, vcpus, memory, policies, crypto, disk_services, switches, concentrators, vcons,
            life, migrations, configurations, constraints, reconfiguration: the verbs, by what they act on.
        power_on: what comes back after the host was off.
        listing: what is asked without changing anything.
        logs: what `ldmd` writes into its log.
        history: the commands that have changed something.
        target: what other hosts' managers call.
    """

    def __init__(self, host: Host, connector: Connector, consoles: Consoles) -> None:
        self.host = host
        self.consoles = consoles
        self.domains = DomainVerbs(host)
        self.links = GuestLinks(host)
        self.networks = NetworkVerbs(host, self.links)
        self.vcpus = VcpuVerbs(host)
        self.memory = MemoryVerbs(host)
        self.policies = PolicyVerbs(host, self.vcpus)
        self.crypto = CryptoVerbs(host)
        book = ServiceBook(host)
        self.disk_services = DiskServiceVerbs(host, book)
        back_ends = BackEnds(host, self.disk_services)
        self.disks = DiskVerbs(host, back_ends)
        self.hot_plug = HotPlug(host)
        self.disk_errors = DiskErrors(host, back_ends)
        self.switches = SwitchVerbs(host, book, self.links)
        self.concentrators = ConcentratorVerbs(host, book)
        self.failures = FailurePolicies(host)
        self.vcons = ConsoleVerbs(host, consoles)
        self.life = LifeVerbs(host, back_ends, consoles, self.vcons, self.failures)
        self.panics = PanicVerbs(host)
        self.configurations = ConfigurationVerbs(host)
        self.constraints = ConstraintVerbs(
            host,
            self.domains,
            self.vcpus,
            self.memory,
            self.disk_services,
            self.switches,
            self.concentrators,
            self.life,
            self.configurations,
        )
        self.reconfiguration = Reconfiguration(host, self.vcpus, self.memory)
        self.power_on = PowerOn(
            host, self.configurations, self.reconfiguration, self.life, self.switches, self.consoles
        )
        local = LocalMigrationHost(host, self.life, self.consoles, self.configurations, self.disk_services)
        self.target = TargetSide(local)
        self.migrations = MigrationVerbs(host, local, connector, self.target, self.configurations)
        self.listing = Listing(host, self.migrations, back_ends, self.policies)
        self.inside = Inside(host)
        self.network_devices = NetworkDevices(host)
        self.logs = LogVerbs(host.store, host.logs)
        self.history = History(host.store)
        host.guests.on_answer = self._guest_answers

    async def start(self) -> None:
        """Find everything again that is here from before, and go on with it."""
        self.logs.restore()
        await self._put_control_domain()
        await self.host.place_control()
        await self.switches.restore()
        is_any_alive = await self.life.find_guests()
        await self.vcpus.start()
        await Taps(self.host).restore()
        self.links.start()
        await self.memory.recover()
        await self.power_on.look(is_any_alive=is_any_alive)
        self.panics.recover()
        await self.target.recover()
        await self.migrations.recover()
        await self.hot_plug.look()
        self.disk_errors.look()
        self.failures.resume()
        self.power_on.start_domains()
        self.policies.start()

    async def stop(self) -> None:
        """Let go of everything. Guests go on running, and migrations go on after the next start."""
        await self.policies.close()
        await self.power_on.close()
        await self.life.close()
        await self.host.operations.close()
        await self.vcpus.close()
        await self.memory.close()
        await self.migrations.close()
        await self.target.close()
        await self.failures.close()
        await self.hot_plug.close()
        await self.disk_errors.close()
        await self.consoles.close()
        await self.links.close()
        await self.host.guests.close()
        await self.host.engine.close()

    async def _guest_answers(self, running: RunningGuest) -> None:
        """Do for a guest that was silent at the start what the start has done for the others."""
        domain = self.host.store.domain_by_uuid(running.guest.uuid)
        if domain is None:
            return
        _log.info("guest-answers", domain=domain.name)
        self.host.events.publish(EventKind.DOMAIN_ANSWERS, domain.name)
        await self.consoles.connect(domain.uuid, running.guest)
        await self.hot_plug.look()
        self.host.guests.on_running(domain.uuid)
        self.links.look()

    async def _put_control_domain(self) -> None:
        """At the first start, the control domain owns everything; later it follows changes of the machine."""
        store, size = self.host.store, self.host.size
        known = next((domain for domain in store.domains() if domain.is_control), None)
        if known is None:
            self.host.save(factory_default(size, await self.host.pick_mac("")), EventKind.DOMAIN_ADDED)
            return
        fitted = fit(known, size)
        if fitted != known:
            _log.warning("machine-changed", strands=len(size.strands), memory_mib=size.memory_mib)
            self.host.save(fitted)
