"""What every verb needs: the host's parts, and a few questions that all of them ask."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from ldoms.hypervisor.engine import Engine
from ldoms.hypervisor.specs import ControlPlacement, Placement
from ldoms.manager.config import Config, Places
from ldoms.manager.events import EventHub
from ldoms.manager.guests import GuestBook
from ldoms.manager.lending import Lending
from ldoms.manager.logs import LogControl
from ldoms.manager.operations import Operations
from ldoms.model.domain import Bindings, Domain
from ldoms.model.errors import AlreadyExists, HostError, RequestError
from ldoms.model.events import EventKind
from ldoms.model.host import HostFacts
from ldoms.model.identity import CONTROL_DOMAIN, check_mac, pick_mac
from ldoms.model.migration import Outcome, Role
from ldoms.model.ownership import OwnerState
from ldoms.model.partition import HostSize, Partition
from ldoms.net.neighbours import Neighbours
from ldoms.net.network import Network
from ldoms.storage.storage import Storage
from ldoms.store import Store

RECONFIGURATION = "reconfiguration"
"""Under which the store remembers a delayed reconfiguration of the control domain."""
PICKS = 8
"""MAC addresses are picked so often before it is given up."""

_log = structlog.get_logger(__name__)


@dataclass
class Host:
    """The parts of a host that the manager puts together."""

    config: Config
    places: Places
    facts: HostFacts
    store: Store
    engine: Engine
    network: Network
    storage: Storage
    events: EventHub
    operations: Operations
    guests: GuestBook
    neighbours: Neighbours
    logs: LogControl = field(default_factory=LogControl)
    lending: Lending = field(default_factory=Lending)
    boot_id: str = ""
    """Another one after the host was off; empty = it is not known."""
    random: random.Random = field(default_factory=random.SystemRandom)
    fetching: set[str] = field(default_factory=set)
    """Domains, by UUID, whose guests run here while part of their memory is on another host."""
    _picked_macs: set[str] = field(default_factory=set)

    @property
    def size(self) -> HostSize:
        """What there is to partition."""
        return self.facts.size

    @property
    def is_reconfiguring(self) -> bool:
        """Whether changes of the control domain wait for the next power-on, and other domains are not changed."""
        return bool(self.store.recall(RECONFIGURATION))

    def partition(self) -> Partition:
        """Who has what right now."""
        return Partition.of(self.size, self.store.domains())

    def placement(self, bindings: Bindings) -> Placement:
        """Where the virtual CPUs of a bound domain run."""
        everywhere = frozenset(self.size.cpus)
        confine = self.config.host.confine
        cpus = {vcpu.vid: frozenset({self.size.cpu_of(vcpu.strand)}) for vcpu in bindings.vcpus}
        # A parked one that is woken all the same takes nothing from other domains.
        shared = self.size.cpus_of(bindings.held)
        vcpus = tuple(cpus.get(vid, shared) if confine else everywhere for vid in bindings.plugged)
        return Placement(vcpus, self._quota(bindings.held), self._share(bindings.held))

    def control_placement(self) -> ControlPlacement:
        """Where everything else of QEMU runs: on what the control domain holds, and on what it is lent."""
        bindings = self.store.domain(CONTROL_DOMAIN).bindings
        assert bindings is not None, "the control domain is always bound"
        strands = bindings.held | self.lending.strands
        cpus = self.size.cpus_of(strands) if self.config.host.confine else frozenset(self.size.cpus)
        return ControlPlacement(cpus, self._quota(strands), self._share(strands))

    async def place_control(self) -> None:
        """Put everything of QEMU that is no virtual CPU where it may run now."""
        await self.engine.place_control(self.control_placement())

    async def give_way(self) -> None:
        """Take back what was lent of strands that a domain has been given; called before it makes use of them."""
        if self.lending.strands:
            partition = self.partition()
            held = frozenset().union(*(bindings.held for bindings in partition.bindings.values()))
            if self.lending.give_way(held):
                await self.place_control()

    def save(self, domain: Domain, kind: EventKind = EventKind.DOMAIN_CHANGED) -> Domain:
        """Write a domain, and tell everybody."""
        with self.store.transaction():
            self.store.put_domain(domain)
            self.events.publish(kind, domain.name)
        return domain

    def macs(self) -> dict[str, str]:
        """Every MAC address in use on this host, with who has it."""
        taken = {switch.mac: f"virtual switch {switch.name}" for switch in self.store.services().switches}
        for domain in self.store.domains():
            taken |= dict.fromkeys(domain.macs, f"LDom {domain.name}")
        return taken

    def _macs_in_use(self) -> set[str]:
        return {switch.mac for switch in self.store.services().switches}.union(
            *(domain.macs for domain in self.store.domains())
        )

    async def pick_mac(self, wished: str) -> str:
        """The MAC address `wished`, or one of the automatic range that is free on this subnet if that is empty.

        What was picked once is not picked again before a restart: a switch or a guest may still remember it.

        Raises:
            RequestError: it is not a MAC address.
            AlreadyExists: it is in use on this host.
            HostError: whatever is picked, another manager says that it has it.
        """
        if wished:
            mac, taken = check_mac(wished), self.macs()
            if mac in taken:
                raise AlreadyExists(f"MAC address {mac} is in use by {taken[mac]}", code="mac-in-use")
            return mac
        for _ in range(PICKS):
            mac = pick_mac(self._macs_in_use() | self._picked_macs, self.random)
            self._picked_macs.add(mac)
            holder = await self.neighbours.holder_of(mac)
            if not holder:
                return mac
            _log.warning("mac-collision", mac=mac, host=holder)
        raise HostError(
            f"host {holder} says that it has every MAC address that was picked: give one with mac-addr=", code="no-mac"
        )

    @contextmanager
    def changing(self, name: str, verb: str, *, lacks_memory: bool = False) -> Iterator[Domain]:
        """A domain, to be changed by nobody else meanwhile; `lacks_memory`: also one of which not all has come yet.

        Raises:
            NotFound: there is no such domain.
            Busy: an operation holds it.
            RequestError: code ``domain-unsettled``: a migration of it waits to be settled; ``in-postcopy``: not all of
                its memory has come; or a delayed reconfiguration of the control domain is pending.
        """
        domain = self.store.domain(name)
        if not domain.is_control:
            self.check_not_reconfiguring(name)
        with self.operations.holding(name, verb):
            self._check_settled(domain)
            if not lacks_memory:
                self._check_whole(domain)
            yield domain

    def check_not_reconfiguring(self, name: str) -> None:
        """Make sure that guest domains may be changed.

        Raises:
            RequestError: they may not before the next power-on.
        """
        if self.is_reconfiguring:
            raise RequestError(
                f"Delayed reconfiguration of LDom {name} is not permitted: LDom {CONTROL_DOMAIN} is in the process of"
                f" one, and other domains cannot be changed until the host was rebooted; 'ldm cancel-reconf"
                f" {CONTROL_DOMAIN}' ends it",
                code="reconfiguration-pending",
            )

    def check_not_active(self, domain: Domain, what: str) -> None:
        """Make sure that a domain has no guest here.

        Raises:
            RequestError: it has; `what` of it cannot be changed.
        """
        if self.guests.get(domain.uuid) is not None:
            raise RequestError(
                f"LDom {domain.name} is active, and the {what} of a running guest cannot be changed in this release:"
                f" stop it first ('ldm stop-domain {domain.name}')",
                code="domain-active",
            )

    def has_left(self, uuid: str) -> bool:
        """Whether a domain belongs to another host now: it has moved away, or was refused when it was to come."""
        ownership = self.store.ownership(uuid)
        if ownership is not None:
            return ownership.state is not OwnerState.OWNER
        if self.store.domain_by_uuid(uuid) is not None:
            return False
        # The record of what this host was to it goes when an administrator reuses the UUID; the journal stays.
        done = [
            known for known in self.store.migrations() if known.uuid == uuid and known.report.outcome is Outcome.DONE
        ]
        return bool(done) and done[-1].role is Role.SOURCE

    def is_owner(self, uuid: str) -> bool:
        """Whether a domain that is on this host is ours, and not about to come or go."""
        ownership = self.store.ownership(uuid)
        return ownership is None or ownership.state is OwnerState.OWNER

    def _check_settled(self, domain: Domain) -> None:
        if not self.is_owner(domain.uuid):
            raise RequestError(
                f"LDom {domain.name} is busy: operation migrate-domain is under way;"
                f" 'ldm list -o status {domain.name}' shows how it stands",
                code="domain-unsettled",
            )

    def _check_whole(self, domain: Domain) -> None:
        if domain.uuid in self.fetching:
            raise RequestError(
                f"LDom {domain.name} is busy: it runs here, and part of its memory has still to come from where it was;"
                f" 'ldm list -o status {domain.name}' shows how it stands",
                code="in-postcopy",
            )

    def _quota(self, strands: Collection[int]) -> float | None:
        if self.size.strands_per_cpu == 1 or not self.config.host.confine:
            return None  # where the threads may run says it all
        return self._share(strands)

    def _share(self, strands: Collection[int]) -> float:
        return len(strands) / self.size.strands_per_cpu
