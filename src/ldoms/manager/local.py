"""This host as a migration sees it: implements `ldoms.migration.local.LocalHost` with the manager's verbs."""

from __future__ import annotations

import shutil
import time
import uuid as uuids
from collections.abc import Awaitable, Callable, Iterator, Sequence, Set
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import structlog

from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.specs import TrialSpec
from ldoms.hypervisor.states import RunState
from ldoms.manager.configurations import ConfigurationVerbs
from ldoms.manager.consoles import Consoles
from ldoms.manager.disk_paths import DiskPath, is_shared, twins_of
from ldoms.manager.disk_services import DiskServiceVerbs
from ldoms.manager.guests import RunningGuest
from ldoms.manager.host import Host
from ldoms.manager.life import LifeVerbs
from ldoms.manager.taps import Taps
from ldoms.migration.local import ControlUse
from ldoms.model.boost import BoostWish
from ldoms.model.domain import ConsoleConstraint, Domain
from ldoms.model.errors import AlreadyExists, HostError, NoResources, NotFound, RequestError
from ldoms.model.events import EventKind
from ldoms.model.forecast import LinkSpeed
from ldoms.model.host import HostFacts
from ldoms.model.identity import CONTROL_DOMAIN
from ldoms.model.images import BootFileFacts, Destination, ImageFacts
from ldoms.model.migration import Description, DiskCopy, DomainFacts, MigrationReport, Preparation, Role, TargetFacts
from ldoms.model.services import VirtualSwitch, Volume
from ldoms.model.sizes import MIB
from ldoms.store import Store

PAST_MIGRATIONS = 8
"""Of a domain, that a forecast may learn from."""
SPARE = 4
"""A trial of a link takes at most one part in so many of the memory that is available."""
TRIAL = "trial-"
"""What the directories of trials begin with."""
_log = structlog.get_logger(__name__)

BOOT_FILES = ("boot-file", "boot-initrd")
_SOFT_STATES = {
    RunState.CRASHED: "crashed",
    RunState.STALLED: "waiting for a disk",
    RunState.SILENT: "silent",
    RunState.PAUSED: "suspended",
    RunState.SHUT_DOWN: "shut down",
}


class LocalMigrationHost:
    """The manager, as far as a migration needs it."""

    def __init__(
        self,
        host: Host,
        life: LifeVerbs,
        consoles: Consoles,
        configurations: ConfigurationVerbs,
        disk_services: DiskServiceVerbs,
    ) -> None:
        self._host = host
        self._disk_services = disk_services
        self._configurations = configurations
        self._life = life
        self._consoles = consoles
        self._ports: dict[tuple[str, str], int] = {}
        """For each domain that comes, by its UUID, and what comes: where it is waited for."""
        self._trials: set[Path] = set()
        self._known_links: dict[tuple[str, bool], tuple[float, LinkSpeed]] = {}

    @property
    def facts(self) -> HostFacts:
        """What is fixed about this host."""
        return self._host.facts

    @property
    def store(self) -> Store:
        """Its durable memory."""
        return self._host.store

    def guest(self, uuid: str) -> Guest | None:
        """The guest of a domain, if it runs here."""
        running = self._host.guests.get(uuid)
        return running.guest if running else None

    def publish(self, kind: EventKind, domain: str, **data: object) -> None:
        """Tell everybody what happened."""
        self._host.events.publish(kind, domain, **data)

    @property
    def max_incoming(self) -> int:
        """How many active domains may come at the same time."""
        return self._host.config.migration.max_incoming

    @property
    def bandwidth_bytes_s(self) -> int:
        """What all that comes may take of the network together; 0 = not limited."""
        return self._host.config.migration.bandwidth_bytes_s

    # Boost

    def free_strands(self) -> int:
        """How many strands can be lent."""
        return len(self._host.lending.free(self._host.partition()))

    async def lend(self, migration: str, wish: BoostWish) -> tuple[int, str]:
        """Lend free strands to the control domain; how many there were to lend, and why so many."""
        host, partition = self._host, self._host.partition()
        held = len(partition.bindings[CONTROL_DOMAIN].held)
        count = wish.strands(held, self.free_strands(), host.size.strands_per_cpu)
        lent = host.lending.lend(migration, count, partition)
        await host.place_control()
        _log.info("strands-lent", migration=migration, strands=lent)
        return lent, wish.reason(lent, held)

    async def give_back(self, migration: str) -> int:
        """End what was lent for a migration, if anything; how many strands a domain had needed meanwhile."""
        loan = self._host.lending.give_back(migration)
        if loan.strands:
            await self._host.place_control()
            _log.info("strands-returned", migration=migration, strands=len(loan.strands), taken=loan.taken)
        return loan.taken

    # As the source

    async def describe_domain(self, domain: Domain, beacon: str, content: str) -> DomainFacts:
        """What the target must know of a domain; leaves a beacon beside each of its images."""
        volumes = self._volumes(domain)
        await self._host.storage.place_beacons(self._paths(volumes), beacon, content)
        running = self._host.guests.get(domain.uuid)
        switches = _switches(domain, self._host.store)
        return DomainFacts(
            domain=domain,
            active=running is not None,
            images=await self._inspect(volumes, beacon),
            boot_files=await self._boot_files(domain),
            mtus={switch.name: switch.mtu for switch in switches},
            volumes=volumes,
            softstate=_soft_state(running) if running else "",
            dependants=tuple(
                other.name for other in self._host.store.domains() if domain.name in other.constraints.masters
            ),
            default_vlans={switch.name: switch.default_vlan_id for switch in switches},
            shared_volumes=self._shared(volumes),
        )

    async def take_beacons_back(self, domain: Domain, beacon: str) -> None:
        """Remove what `describe_domain` has left."""
        await self._host.storage.remove_beacons(self._paths(self._volumes(domain)), beacon)

    async def mtu_towards(self, address: str) -> int:
        """The MTU of the way to another host."""
        return await self._host.network.mtu_towards(address)

    async def remove(self, uuid: str) -> None:
        """End the guest of a domain, give everything back and forget the domain; may be repeated."""
        self._forget_ports(uuid)
        directory = self._host.places.domain(uuid)
        domain = self._host.store.domain_by_uuid(uuid)
        await self._life.end_guest(uuid)
        await self._consoles.close_domain(uuid, self._where_to(uuid))
        if domain is not None:
            await Taps(self._host).remove_all(domain)
            with self._host.store.transaction():
                self._host.store.delete_domain(uuid)
                self._host.events.publish(EventKind.DOMAIN_REMOVED, domain.name)
        shutil.rmtree(directory, ignore_errors=True)

    def past_migrations(self, uuid: str) -> tuple[MigrationReport, ...]:
        """The reports of the last migrations of a domain that this host knows of, the latest last."""
        return tuple(record.report for record in self._host.store.migrations_of(uuid, PAST_MIGRATIONS))

    def control_use(self) -> ControlUse:
        """How busy the control domain's CPUs are."""
        placement = self._host.control_placement()
        cpus = len(placement.cpus) if placement.quota is None else placement.quota
        times = psutil.cpu_times(percpu=True)
        busy = sum(sum(one) - one.idle - one.iowait for number, one in enumerate(times) if number in placement.cpus)
        taken: frozenset[int] = frozenset()
        for domain in self._host.store.domains():
            if domain.bindings is not None and self._host.guests.get(domain.uuid) is not None:
                taken = taken.union(*self._host.placement(domain.bindings).vcpus)
        shared = bool(taken & placement.cpus)
        return ControlUse(cpus, time.monotonic(), busy, len(placement.cpus), shared)

    def remember_link(self, identity: str, encrypted: bool, link: LinkSpeed) -> None:
        """Keep what a trial of the link to a host has found."""
        self._known_links[identity, encrypted] = (time.monotonic(), link)

    def recall_link(self, identity: str, encrypted: bool, within_s: float) -> LinkSpeed | None:
        """What a trial not longer ago than that has found."""
        at, link = self._known_links.get((identity, encrypted), (0.0, None))
        return link if time.monotonic() - at <= within_s else None

    # As either

    async def start_trial(self, size_mib: int, *, incoming: bool) -> Guest:
        """Start one end of a trial of a link."""
        available = psutil.virtual_memory().available // MIB
        if size_mib * SPARE > available:
            raise NoResources(
                f"a trial of the link needs {size_mib} MiB, and {self.facts.name} has {available} MiB available",
                code="no-memory",
            )
        identity = f"{TRIAL}{uuids.uuid4()}"
        directory = self._host.places.domain(identity)
        self._trials.add(directory)
        for left in set(directory.parent.glob(f"{TRIAL}*")) - self._trials:
            shutil.rmtree(left, ignore_errors=True)  # by a manager that has ended in the middle of one
        try:
            return await self._host.engine.start_trial(TrialSpec(identity, directory, size_mib, incoming))
        except BaseException:
            self._forget_trial(directory)
            raise

    async def end_trial(self, guest: Guest) -> None:
        """End it, and give everything back."""
        self._forget_ports(guest.uuid)
        with suppress(HostError):
            await guest.quit()
        self._forget_trial(self._host.places.domain(guest.uuid))

    def _forget_trial(self, directory: Path) -> None:
        self._trials.discard(directory)
        shutil.rmtree(directory, ignore_errors=True)

    # As the target

    async def describe_self(self, description: Description, caller: str) -> TargetFacts:
        """What this host says of its fitness for a domain of another host."""
        host, store = self._host, self._host.store
        domain = description.domain.domain
        partition, domains = host.partition(), store.domains()
        volumes = self._volumes(domain)
        bindings = [known.bindings for known in domains if known.bindings is not None]
        taken = {binding.console_port for binding in bindings}
        concentrators = store.services().concentrators
        free_ports = sum(
            1 for known in concentrators for port in range(known.port_min, known.port_max + 1) if port not in taken
        )
        name = description.new_name or domain.name
        operation = host.operations.on(name)
        return TargetFacts(
            host=host.facts,
            services=store.services(),
            names={known.name: known.uuid for known in domains},
            macs=host.macs(),
            free_strands=len(partition.free_strands),
            free_cores=len(partition.whole_cores()),
            whole_cores=partition.whole_cores(),
            shared_volumes=self._shared(volumes),
            grants_turns=True,
            free_memory_mib=partition.free_memory_mib,
            available_memory_mib=psutil.virtual_memory().available // MIB,
            free_console_ports=free_ports,
            console_groups=tuple(known.console_group for known in domains if known.is_bound),
            images=await self._inspect(volumes, description.beacon),
            boot_files=await self._boot_files(domain),
            free_data_port=len(self._free_data_ports()) >= (2 if description.copy_storage else 1),
            destinations=await self._destinations(description) if description.copy_storage else (),
            data_mtu=await host.network.mtu_towards(caller),
            network_abilities=await host.network.abilities(_switches(domain, store)),
            busy=(f"operation {operation.kind} on LDom {name}",) if operation else (),
        )

    def check_admits(self, preparation: Preparation) -> Domain:
        """The domain as it will be here, with what it is given."""
        store, moved = self._host.store, preparation.domain
        if not self.facts.incoming_enabled:  # the source checks it first, but the switch is this host's
            raise RequestError(
                f"incoming migration is switched off on {self.facts.name}: set incoming = true in section [migration]"
                " of ldmd.toml there, and restart ldmd",
                code="migration-enabled",
            )
        name = preparation.new_name or moved.name
        self._host.check_not_reconfiguring(name)
        self._host.operations.check_free(name)
        known = store.domains()
        if any(domain.name == name for domain in known):
            raise AlreadyExists(f"LDom {name} already exists on {self.facts.name}")
        if any(domain.uuid == moved.uuid for domain in known):
            raise AlreadyExists(f"a domain with the UUID {moved.uuid} already exists on {self.facts.name}")
        taken = self._host.macs()
        for mac in moved.macs:
            if mac in taken:
                raise AlreadyExists(f"MAC address {mac} is in use by {taken[mac]} on {self.facts.name}")
        names = {domain.name for domain in known}
        masters = tuple(master for master in moved.constraints.masters if master in names)
        domain = replace(
            moved,
            name=name,
            order=store.next_position(),
            constraints=replace(moved.constraints, masters=masters),
            console=ConsoleConstraint(log=moved.console.log),
            bindings=None,
        )
        if moved.bindings is None:
            return domain
        if any(other.is_bound and other.console_group == name for other in known):
            raise AlreadyExists(f"console group {name} already exists on {self.facts.name}")
        for network in domain.networks:
            store.services().switch(network.switch)
        if not preparation.active:
            return replace(domain, bindings=self._life.make_bindings(domain))
        # What the guest sees must be the same here: its machine, its CPUs, and the place of each device.
        return replace(domain, bindings=self._life.make_bindings(domain, moved.bindings))

    async def start_incoming(self, domain: Domain) -> Guest:
        """Start the guest of a domain that waits for its memory."""
        await self._life.settle_formats(domain)
        async with AsyncExitStack() as undo:
            guest = await self._life.start_guest(domain, undo, incoming=True)
            undo.pop_all()
        return guest

    async def open_console(self, domain: Domain) -> None:
        """Open the console of a domain that has just been made."""
        await self._consoles.open(domain)

    async def listen(self, guest: Guest, address: str) -> int:
        """Have a guest wait for its memory at a free port of the range, which is returned."""
        return await self._listen((guest.uuid, "memory"), lambda port: guest.listen(address, port))

    async def listen_again(self, guest: Guest, address: str) -> int:
        """Have a guest that runs here wait for the rest of its memory at a free port of the range."""
        return await self._listen((guest.uuid, "memory"), lambda port: guest.listen_again(address, port))

    @contextmanager
    def fetching(self, uuid: str) -> Iterator[None]:
        """A domain whose guest runs here while part of its memory is on another host."""
        self._host.fetching.add(uuid)
        try:
            yield
        finally:
            self._host.fetching.discard(uuid)
            self._forget_ports(uuid)

    async def listen_for_disks(self, guest: Guest, address: str, disks: Sequence[DiskCopy]) -> int:
        """Have a guest take copies of disks at a free port of the range, which is returned."""
        devices = [disk.device for disk in disks]
        return await self._listen((guest.uuid, "disks"), lambda port: guest.offer_disks(devices, address, port))

    async def _listen(self, what: tuple[str, str], listen: Callable[[int], Awaitable[None]]) -> int:
        tried: set[int] = set()
        while ports := self._free_data_ports(tried):
            port = self._ports[what] = ports[0]  # before the first wait, so that no other arrival picks it
            try:
                await listen(port)
                return port
            except HostError as error:
                del self._ports[what]
                if error.code != "port-taken":
                    raise
                tried.add(port)
        raise NoResources(f"no port for migration data is free on {self.facts.name}", code="no-data-port")

    # As the target of disks that the hosts do not share

    def make_volumes(self, disks: Sequence[DiskCopy]) -> None:
        """Offer the volumes that are missing for copies of disks."""
        for disk in disks:
            if disk.makes_volume:
                self._disk_services.add_made_volume(disk.service, disk.volume)

    async def make_images(self, migration: str, disks: Sequence[DiskCopy]) -> None:
        """Make the images that copies of disks need."""
        for disk in disks:
            if disk.makes_image:
                await self._host.storage.make_image(disk.volume, disk.size_bytes, migration)
            self._disk_services.set_volume_format(disk.service, disk.volume.name, disk.volume.format)

    async def keep_images(self, migration: str, disks: Sequence[DiskCopy]) -> bool:
        """The domain is ours: its images are like any other."""
        made = [disk.volume for disk in disks if disk.makes_image]
        return all([await self._host.storage.keep_image(volume, migration) for volume in made])

    async def discard_images(self, migration: str, disks: Sequence[DiskCopy]) -> bool:
        """Remove the images that were made for a migration."""
        made = [disk.volume for disk in disks if disk.makes_image]
        return all([await self._host.storage.discard_image(volume, migration) for volume in made])

    def discard_volumes(self, disks: Sequence[DiskCopy]) -> None:
        """Offer the volumes no more that were made for a migration."""
        for disk in disks:
            if disk.makes_volume:
                self._disk_services.remove_made_volume(disk.service, disk.volume)
            elif disk.finds_format:
                with suppress(NotFound):
                    self._disk_services.set_volume_format(disk.service, disk.volume.name, "")

    def arrived(self, uuid: str) -> None:
        """The domain is ours now: tell everybody."""
        self._forget_ports(uuid)
        domain = self._host.store.domain_by_uuid(uuid)
        if domain is None:
            return
        kind = EventKind.DOMAIN_ADDED
        if domain.is_bound:
            kind = EventKind.DOMAIN_STARTED if domain.started_at else EventKind.DOMAIN_BOUND
        self.publish(kind, domain.name)
        ownership = self._host.store.ownership(uuid)
        record = self._host.store.migration(ownership.migration) if ownership else None
        if record is not None:
            self._configurations.save_after_migration(record.options)

    # Inside

    def _where_to(self, uuid: str) -> str:
        """What the clients of a console are told when its domain leaves this host."""
        for record in self._host.store.migrations(unsettled=True):
            if record.uuid == uuid and record.role is Role.SOURCE:
                return f"LDom {record.name} has moved to {record.peer}: its console is there now."
        return ""

    def _volumes(self, domain: Domain) -> dict[str, Volume]:
        """The volumes behind the disks of a domain, as far as this host has them, by ``volume@service``."""
        volumes = {}
        for disk in domain.disks:
            try:
                volume = self._host.store.services().disk_service(disk.service).volume(disk.volume)
            except NotFound:
                continue
            volumes[f"{disk.volume}@{disk.service}"] = volume
        return volumes

    async def _inspect(self, volumes: dict[str, Volume], beacon: str) -> tuple[ImageFacts, ...]:
        return tuple([await self._inspect_one(name, volume, beacon) for name, volume in volumes.items()])

    async def _inspect_one(self, name: str, volume: Volume, beacon: str) -> ImageFacts:
        """What is seen of a volume by the first path of its group that works; by its own if none does."""
        own = await self._host.storage.inspect(name, volume, beacon)
        for twin in self._twins(name, volume) if own.error else ():
            facts = await self._host.storage.inspect(name, twin.volume, beacon)
            if not facts.error:
                return facts
        return own

    def _twins(self, name: str, volume: Volume) -> tuple[DiskPath, ...]:
        return twins_of(self._host.store.services(), DiskPath(name.rpartition("@")[2], volume))

    def _shared(self, volumes: dict[str, Volume]) -> tuple[str, ...]:
        services = self._host.store.services()
        return tuple(
            name for name, volume in volumes.items() if is_shared(services, DiskPath(name.rpartition("@")[2], volume))
        )

    def _paths(self, volumes: dict[str, Volume]) -> tuple[str, ...]:
        """Where the volumes are, by every path of their groups."""
        twins = [twin.volume for name, volume in volumes.items() for twin in self._twins(name, volume)]
        return tuple(dict.fromkeys(volume.backend for volume in (*volumes.values(), *twins)))

    async def _boot_files(self, domain: Domain) -> tuple[BootFileFacts, ...]:
        return tuple(
            [
                BootFileFacts(variable, path, await self._host.storage.digest(path))
                for variable in BOOT_FILES
                if (path := domain.variable(variable))
            ]
        )

    async def _destinations(self, description: Description) -> tuple[Destination, ...]:
        """Where copies of the disks of a domain would be: by our own volumes, or by those that would be made."""
        volumes = {**description.domain.volumes, **self._volumes(description.domain.domain)}
        names = [f"{disk.volume}@{disk.service}" for disk in description.domain.domain.disks]
        return tuple([await self._host.storage.survey(name, volumes[name]) for name in names if name in volumes])

    def _forget_ports(self, uuid: str) -> None:
        self._ports = {what: port for what, port in self._ports.items() if what[0] != uuid}

    def _free_data_ports(self, tried: Set[int] = frozenset()) -> list[int]:
        first, last = self._host.config.network.data_ports
        taken = {*self._ports.values(), *tried}
        return [port for port in range(first, last + 1) if port not in taken]


def _soft_state(running: RunningGuest) -> str:
    return "crashed" if running.panicked else _SOFT_STATES.get(running.run_state, "")


def _switches(domain: Domain, store: Store) -> tuple[VirtualSwitch, ...]:
    """The switches of this host that a domain, of this host or of another one, is connected to."""
    wanted = {network.switch for network in domain.networks}
    return tuple(switch for switch in store.services().switches if switch.name in wanted)
