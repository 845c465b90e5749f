"""The life of a domain: bound, started, stopped, unbound; and what happens when its guest ends by itself."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.specs import GuestSpec, NetworkSpec
from ldoms.manager.back_ends import BackEnds, lost_disk
from ldoms.manager.background import Background
from ldoms.manager.consoles import Consoles
from ldoms.manager.failure import FailurePolicies
from ldoms.manager.guests import RunningGuest
from ldoms.manager.host import Host
from ldoms.manager.operations import Handle, Unobserved
from ldoms.manager.ports import dead_disks, dead_networks, pick_ports, root_ports, without_dead_devices
from ldoms.manager.stopping import KIND as STOP_DOMAIN
from ldoms.manager.stopping import Stopping
from ldoms.manager.taps import Taps, tap_of
from ldoms.manager.vcons import ConsoleVerbs
from ldoms.model.boot import boot_positions, with_boot_roms
from ldoms.model.cores import fresh, lay_out
from ldoms.model.domain import Bindings, Constraints, CpuModel, Domain, Machine
from ldoms.model.errors import LdomsError, RequestError
from ldoms.model.events import EventKind
from ldoms.model.memory import as_before, at_start, memory_maximum_mib
from ldoms.model.operation import Operation
from ldoms.model.sizes import BOUND_ALIGNMENT_MIB, align_up
from ldoms.model.stopping import StopMode, StopOptions

MAX_VCPUS = 240
"""QEMU's PC has an interrupt number of eight bits for each, unless it also has an IOMMU."""
MAX_DISK_QUEUES = 4
MOST_BOOT_FAULTS = 3
"""So often in a row a guest is started again that has ended by a fault of QEMU's while it booted."""
SOCKET_MIB = 8
"""Memory of a guest for each socket: a kernel spends a quarter of a MiB on a CPU that may come."""

_log = structlog.get_logger(__name__)


class LifeVerbs:
    """``bind-domain``, ``unbind-domain``, ``start-domain``, ``stop-domain``."""

    def __init__(
        self,
        host: Host,
        back_ends: BackEnds,
        consoles: Consoles,
        vcons: ConsoleVerbs,
        failures: FailurePolicies,
    ) -> None:
        self._host = host
        self._back_ends = back_ends
        self._vcons = vcons
        self._consoles = consoles
        self._stopping = Stopping(host, self.start_now)
        self._failures = failures
        self._taps = Taps(host)
        self._background = Background()
        self._boot_faults = Counter[str]()
        host.guests.on_end = self._guest_ended
        host.guests.on_reset = self._guest_reset
        host.guests.on_panic = self._guest_panicked
        host.guests.on_silence = self._guest_silent

    # Verbs

    async def bind(self, name: str, *, quick: bool = False) -> Domain:
        """Reserve what the domain asks for; with `quick` its back ends are looked at only when it is started.

        Raises:
            RequestError: it is bound already, asks for nothing, or names what is not there.
            NoResources: there is not enough of something; the message has the figures.
        """
        with self._host.changing(name, "bind-domain") as domain:
            if domain.is_bound:
                raise RequestError(f"LDom {name} is bound already", code="domain-bound")
            for network in domain.networks:
                self._host.store.services().switch(network.switch)
            if quick:
                for disk in domain.disks:
                    self._back_ends.paths(disk)  # the volume, at least, must be there
            else:
                await self.settle_formats(domain)
            bound = replace(domain, bindings=self.make_bindings(domain))
            self._host.store.put_domain(bound)  # before the first wait: nobody else gets the same
            try:
                await self._host.give_way()
                await self._consoles.open(bound)
            except BaseException:
                self._host.store.put_domain(domain)
                raise
            return self._host.save(bound, EventKind.DOMAIN_BOUND)

    async def unbind(self, name: str) -> Domain:
        """Give back what was reserved."""
        with self._host.changing(name, "unbind-domain") as domain:
            if domain.is_control:
                raise RequestError("LDom primary is the control domain and is always bound", code="control-domain")
            if not domain.is_bound:
                raise RequestError(f"LDom {name} is not bound", code="domain-inactive")
            self._check_stopped(domain)
            await self._consoles.close_domain(domain.uuid, f"LDom {name} has been unbound: its console is closed.")
            return self._host.save(replace(domain, bindings=None), EventKind.DOMAIN_UNBOUND)

    async def start(self, name: str) -> Domain:
        """Start the guest of a bound domain.

        Raises:
            RequestError: the domain is not bound, or runs already.
            HostError: QEMU or the kernel refuse; nothing is left behind.
        """
        with self._host.changing(name, "start-domain") as domain:
            if domain.is_control:
                raise RequestError("LDom primary is the host itself and runs already", code="control-domain")
            if domain.bindings is None:
                raise RequestError(
                    f"LDom {name} is inactive: bind it first ('ldm bind-domain {name}')", code="domain-inactive"
                )
            if self._host.guests.get(domain.uuid) is not None:
                raise RequestError(f"LDom {name} is active already", code="domain-active")
            del self._boot_faults[domain.uuid]
            return await self.start_now(domain)

    async def stop(self, name: str, *, force: bool, limit_s: float | None = None) -> Domain:
        """Stop the guest of a domain, and return when it is: ask it to shut down, or with `force` end it at once.

        Raises:
            RequestError: it does not run.
            HostError: code ``stop-timeout``: it did not shut down in time, and goes on running.
        """
        options = StopOptions(StopMode.FORCE if force else StopMode.HALT, limit_s)
        with self._host.changing(name, STOP_DOMAIN, lacks_memory=True) as domain:
            await self._stopping.stop(domain, options, Unobserved())
            return self._host.store.domain(name)

    def begin_stop(self, name: str, options: StopOptions, user: str) -> Operation:
        """Begin to stop a domain, or to restart its guest, as `options` say; the operation goes on by itself.

        Raises:
            RequestError: it does not run.
            Busy: another operation holds it.
        """
        with self._host.changing(name, STOP_DOMAIN, lacks_memory=True) as domain:
            self._stopping.require(domain)

        async def work(handle: Handle) -> Mapping[str, Any]:
            return {"notes": await self._stopping.stop(domain, options, handle)}

        return self._host.operations.start(STOP_DOMAIN, name, user, work, may_cancel=True)

    async def close(self) -> None:
        """Let go of what goes on by itself."""
        await self._background.close()

    # For others who start and end guests

    def make_bindings(self, domain: Domain, moved: Bindings | None = None) -> Bindings:
        """What a domain is given when it is bound; with `moved` its guest sees what it has seen on another host.

        Raises:
            RequestError: the domain asks for no CPU or no memory.
            NoResources: there is not enough of something.
        """
        name, constraints = domain.name, domain.constraints
        if constraints.vcpus == 0:
            raise RequestError(
                f"LDom {name} has no virtual CPUs: give it some ('ldm set-vcpu 2 {name}')", code="no-vcpus"
            )
        if constraints.memory_mib == 0:
            raise RequestError(
                f"LDom {name} has no memory: give it some ('ldm set-memory 1G {name}')", code="no-memory-asked"
            )
        partition = self._host.partition()
        vids = [vcpu.vid for vcpu in moved.vcpus] if moved else range(constraints.vcpus)
        layout = lay_out(partition, name, constraints, vids)
        concentrator, port = self._vcons.pick(domain)
        memory_mib = moved.memory_mib if moved else align_up(constraints.memory_mib, BOUND_ALIGNMENT_MIB)
        bindings = Bindings(
            vcpus=layout.vcpus,
            memory=partition.pick_memory(memory_mib, name),
            console_service=concentrator,
            console_port=port,
            idle=layout.idle,
        )
        if moved is None:
            return replace(bindings, machine=self._resolve_machine(domain), ports=pick_ports(domain))
        return as_before(replace(bindings, machine=moved.machine, ports=moved.ports, parked=moved.parked), moved)

    async def start_now(self, domain: Domain) -> Domain:
        """Start the guest of a bound domain that is held already.

        Raises:
            HostError: QEMU or the kernel refuse; nothing is left behind.
        """
        domain = without_dead_devices(domain)
        assert domain.bindings is not None
        domain = replace(domain, bindings=with_boot_roms(domain, fresh(at_start(domain.bindings))))
        async with AsyncExitStack() as undo:
            guest = await self.start_guest(domain, undo, incoming=False)
            self._host.guests.require(domain.uuid, domain.name).note_start()
            await guest.resume()
            undo.pop_all()
        return self._host.save(replace(domain, started_at=time.time()), EventKind.DOMAIN_STARTED)

    async def start_guest(self, domain: Domain, undo: AsyncExitStack, *, incoming: bool) -> Guest:
        """Start the guest of a bound domain, stopped, and follow it.

        Args:
            domain: to start.
            undo: is given what takes everything back.
            incoming: wait for another host's memory.
        """
        assert domain.bindings is not None
        networks = [await self._make_tap(domain, network.name, undo) for network in domain.networks]
        networks += [await self._park_tap(domain, device, undo) for device in dead_networks(domain)]
        disks = [await self._back_ends.spec(domain, disk) for disk in domain.disks]
        disks += [lost_disk(domain, device) for device in dead_disks(domain)]
        if unknown := boot_positions(domain)[1]:
            _log.warning("boot-device-unknown", domain=domain.name, names=unknown, consequence="they are passed over")
        spec = GuestSpec(
            uuid=domain.uuid,
            name=domain.name,
            directory=self._host.places.domain(domain.uuid),
            machine=_machine(domain),
            vcpus=len(domain.bindings.plugged),
            memory_mib=domain.bindings.first_memory_mib,
            added_memory_mib=domain.bindings.added_memory_mib,
            placement=self._host.placement(domain.bindings),
            disks=tuple(disks),
            networks=tuple(networks),
            kernel=_path(domain.variable("boot-file")),
            initrd=_path(domain.variable("boot-initrd")),
            boot_args=domain.variable("boot-args"),
            hostid=domain.hostid,
            incoming=incoming,
        )
        await self._host.give_way()
        guest = await self._host.engine.start(spec)
        undo.push_async_callback(guest.quit)
        running = await self._host.guests.enter(guest)
        undo.push_async_callback(self._end, running)
        await self._consoles.connect(domain.uuid, guest, afresh=not incoming)
        return guest

    async def find_guests(self) -> bool:
        """Find the guests again that an earlier manager has started, and those that ended meanwhile.

        Returns:
            Whether any guest is there, be it one that does not answer.
        """
        domains = [domain for domain in self._host.store.domains() if domain.is_bound and not domain.is_control]
        for domain in domains:
            await self._consoles.reopen(domain)
        # All at once: one whose QEMU hangs takes as long as a start may take.
        return any(await asyncio.gather(*(self._find(domain) for domain in domains)))

    async def end_guest(self, uuid: str) -> None:
        """End a guest, if there is one, without asking it."""
        running = self._host.guests.get(uuid)
        if running is not None:
            await self._end(running)

    async def settle_formats(self, domain: Domain) -> None:
        """Make sure that each disk has its volume, and each volume a known format."""
        for disk in domain.disks:
            await self._back_ends.settle(disk)

    # Inside

    async def _find(self, domain: Domain) -> bool:
        """Find the guest of a domain again; whether it is there."""
        guest = await self._host.engine.attach(domain.uuid, domain.name, self._host.places.domain(domain.uuid))
        if guest is not None:
            await self._host.guests.enter(guest)
            await self._consoles.connect(domain.uuid, guest)
            _log.info("guest-found", domain=domain.name)
            return True
        if domain.started_at:
            # It may have been shut down in good order while nobody looked: no failure policy acts on that.
            await self._note_end(domain, well=False)
        return False

    async def _end(self, running: RunningGuest) -> None:
        running.ending = True
        await running.guest.quit()
        await running.ended.wait()

    async def _guest_ended(self, running: RunningGuest) -> None:
        domain = self._host.store.domain_by_uuid(running.guest.uuid)
        if domain is None:
            return
        crashed = await self._note_end(domain, well=running.ended_well)
        if crashed and running.boot_fault and self._boot_faults[domain.uuid] < MOST_BOOT_FAULTS:
            self._boot_faults[domain.uuid] += 1
            _log.warning("boot-fault", domain=domain.name, reason="a known fault of QEMU", consequence="started again")
            self._background.start(self._start_again(running, domain.name), f"start {domain.name} again")
        elif crashed and not running.failed:
            self._failures.failed(domain, "its QEMU has ended")

    async def _start_again(self, running: RunningGuest, name: str) -> None:
        await running.ended.wait()
        try:
            with self._host.changing(name, "start-domain") as domain:
                if domain.is_bound and self._host.guests.get(domain.uuid) is None:
                    await self.start_now(domain)
        except LdomsError as error:  # somebody was faster, or it cannot be started any more
            _log.warning("not-started-again", domain=name, reason=error.message)

    async def _note_end(self, domain: Domain, *, well: bool) -> bool:
        """Clear away what belonged to a guest, and tell everybody; whether it is a crash of a guest of this host."""
        await self._taps.remove_all(domain)
        if not domain.started_at or not self._host.is_owner(domain.uuid):
            return False
        kind = EventKind.DOMAIN_STOPPED if well else EventKind.DOMAIN_CRASHED
        self._host.save(replace(domain, started_at=0.0), kind)
        return not well

    def _guest_reset(self, running: RunningGuest) -> None:
        domain = self._host.store.domain_by_uuid(running.guest.uuid)
        if domain is not None and domain.started_at and self._host.is_owner(domain.uuid):
            self._host.save(replace(domain, started_at=time.time()), EventKind.DOMAIN_RESET)

    def _guest_silent(self, running: RunningGuest) -> None:
        """It may run: it stays in the book, so that nobody takes its domain for one without a guest."""
        domain = self._host.store.domain_by_uuid(running.guest.uuid)
        if domain is not None:
            _log.error("guest-silent", domain=domain.name, consequence=f"'ldm stop-domain -f {domain.name}' ends it")
            self._host.events.publish(EventKind.DOMAIN_SILENT, domain.name)

    def _guest_panicked(self, running: RunningGuest) -> None:
        domain = self._host.store.domain_by_uuid(running.guest.uuid)
        if domain is None or not self._host.is_owner(domain.uuid):
            return
        self._host.events.publish(EventKind.DOMAIN_PANICKED, domain.name)
        if not running.failed:
            running.failed = True
            self._failures.failed(domain, "its guest has panicked")

    def _check_stopped(self, domain: Domain) -> None:
        if self._host.guests.get(domain.uuid) is not None:
            raise RequestError(
                f"LDom {domain.name} is active: stop it first ('ldm stop-domain {domain.name}')", code="domain-active"
            )

    def _resolve_machine(self, domain: Domain) -> Machine:
        facts = self._host.engine.facts
        model, features = self._host.engine.resolve_cpu(domain.constraints.cpu_arch.value)
        most = most_vcpus(domain.constraints, len(self._host.size.strands))
        return Machine(
            type=facts.default_machine_type,
            accelerator=facts.accelerator,
            cpu=CpuModel(model, features),
            qemu_version=facts.version,
            max_vcpus=most,
            disk_queues=min(most, MAX_DISK_QUEUES),
            memory_max_mib=memory_maximum_mib(domain.constraints.memory_mib, self._host.size.memory_mib),
            root_ports=root_ports(domain),
            panic_device=True,
        )

    async def _make_tap(self, domain: Domain, name: str, undo: AsyncExitStack) -> NetworkSpec:
        network = domain.network(name)
        undo.push_async_callback(self._taps.remove, domain, network)
        return await self._taps.connect(domain, network)

    async def _park_tap(self, domain: Domain, device: str, undo: AsyncExitStack) -> NetworkSpec:
        undo.push_async_callback(self._host.network.remove_tap, tap_of(domain, device))
        return await self._taps.park(domain, device)


def most_vcpus(constraints: Constraints, strands: int) -> int:
    """For how many virtual CPUs a machine gets sockets: what this host could ever give, within reason."""
    affordable = constraints.memory_mib // SOCKET_MIB
    return max(constraints.vcpus, min(strands, affordable, MAX_VCPUS))


def _machine(domain: Domain) -> Machine:
    assert domain.bindings is not None
    assert domain.bindings.machine is not None, "only the control domain has none"
    return domain.bindings.machine


def _path(text: str) -> Path | None:
    return Path(text) if text else None
