"""What listings show: domains with their state, flags and use of CPU; free and taken parts of the host."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import psutil

from ldoms.hypervisor.states import RunState
from ldoms.manager.back_ends import BackEnds
from ldoms.manager.health import memory_health, online_cpus
from ldoms.manager.host import Host
from ldoms.manager.memory_change import KIND as MEMORY_CHANGE
from ldoms.manager.migrations import MigrationVerbs
from ldoms.manager.policies import PolicyVerbs
from ldoms.manager.softstate import describe
from ldoms.manager.speed import Speedometer
from ldoms.model.domain import Domain, DomainState, DomainStatus, DomainView, MigrationStatus
from ldoms.model.host import FAULT, OK, HostView, MemoryView, StrandView

_BUSY_STATES = {
    "start-domain": DomainState.STARTING,
    "stop-domain": DomainState.STOPPING,
}
MIN_WINDOW_S = 1.0


class HostMeter:
    """The share of the control domain's CPU time that is used, by everything but virtual CPUs."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._last = (time.monotonic(), self._busy_seconds(), host.guests.cpu_seconds())
        self._share = 0.0

    def read(self, strands: int) -> float:
        """Percent of the capacity of `strands`, since the last reading that is at least a second old."""
        now, busy, guests = time.monotonic(), self._busy_seconds(), self._host.guests.cpu_seconds()
        then, busy_then, guests_then = self._last
        if now - then >= MIN_WINDOW_S:
            by_guests = sum(seconds - guests_then.get(uuid, seconds) for uuid, seconds in guests.items())
            capacity = (now - then) * strands / self._host.size.strands_per_cpu
            self._share = min(100.0, max(0.0, 100 * (busy - busy_then - by_guests) / capacity))
            self._last = (now, busy, guests)
        return self._share

    def _busy_seconds(self) -> float:
        times = psutil.cpu_times(percpu=True)
        return sum(
            sum(times[cpu]) - times[cpu].idle - times[cpu].iowait for cpu in self._host.size.cpus if cpu < len(times)
        )


class Listing:
    """Answers every question that begins with ``list``."""

    def __init__(self, host: Host, migrations: MigrationVerbs, back_ends: BackEnds, policies: PolicyVerbs) -> None:
        self._host = host
        self._back_ends = back_ends
        self._migrations = migrations
        self._policies = policies
        self._meter = HostMeter(host)
        self._speed = Speedometer()

    def domains(self, names: Iterable[str] = ()) -> tuple[DomainView, ...]:
        """Domains as listings show them: those named, or all, the control domain first.

        Raises:
            NotFound: one that is named does not exist.
        """
        wanted = [self._host.store.domain(name) for name in names]
        domains = wanted or sorted(self._host.store.domains(), key=lambda domain: (not domain.is_control, domain.order))
        serving = self._service_domains()
        return tuple(DomainView(domain, self._status(domain, serves=domain.name in serving)) for domain in domains)

    def host(self) -> HostView:
        """The host, and who holds which part of it."""
        partition = self._host.partition()
        online, health = online_cpus(), memory_health()
        holders = {strand: name for name, bindings in partition.bindings.items() for strand in bindings.held}
        strands = tuple(
            StrandView(
                strand,
                strand // partition.size.strands_per_cpu,
                holders.get(strand, ""),
                OK if partition.size.cpu_of(strand) in online else FAULT,
            )
            for strand in partition.size.strands
        )
        held = [
            MemoryView(block.physical_address_mib, block.size_mib, name, health)
            for name, bindings in partition.bindings.items()
            for block in bindings.memory
        ]
        free = [MemoryView(start, size, "", health) for start, size in partition.free_memory]
        memory = tuple(sorted((*held, *free), key=lambda block: block.address_mib))
        return HostView(self._host.facts, strands, memory)

    def _status(self, domain: Domain, *, serves: bool) -> DomainStatus:
        migration = self._migrations.status(domain)
        state = self._state(domain, migration)
        change = self._host.operations.on(domain.name, MEMORY_CHANGE)
        third = "d" if domain.is_control and self._host.is_reconfiguring else "r" if change else "-"
        running = self._host.guests.get(domain.uuid)
        booting = running is not None and (running.booting or running.run_state is RunState.SILENT)
        flags = _flags(domain, state, migration, serves=serves, reconfiguration=third, booting=booting)
        if domain.is_control:
            return self._control_status(domain, state, flags)
        if running is None or not self._host.is_owner(domain.uuid):
            return DomainStatus(state, flags, migration=migration, policies=self._policies.statuses(domain))
        # A strand may be less than a CPU: what counts is the share of what the guest was given.
        scale = self._host.size.strands_per_cpu
        read = dict(enumerate(running.meter.read()))
        vcpus = domain.bindings.vcpus if domain.bindings else ()
        shares = tuple(min(100.0, read.get(vcpu.vid, 0.0) * scale) for vcpu in vcpus)
        norms = self._at_full_speed(domain, shares)
        return DomainStatus(
            state=state,
            flags=flags,
            utilisation=_mean(shares),
            vcpu_utilisation=shares,
            norm_utilisation=_mean(norms),
            norm_vcpu_utilisation=norms,
            uptime_s=max(0.0, time.time() - domain.started_at) if domain.started_at else 0.0,
            softstate=describe(running),
            migration=migration,
            memory_progress=change.progress if change else None,
            disk_paths=self._back_ends.paths_in_use(domain),
            policies=self._policies.statuses(domain),
        )

    def _control_status(self, domain: Domain, state: DomainState, flags: str) -> DomainStatus:
        assert domain.bindings is not None
        share = self._meter.read(len(domain.bindings.vcpus))
        shares = (share,) * len(domain.bindings.vcpus)
        norms = self._at_full_speed(domain, shares)
        return DomainStatus(
            state=state,
            flags=flags,
            utilisation=share,
            vcpu_utilisation=shares,
            norm_utilisation=_mean(norms),
            norm_vcpu_utilisation=norms,
            uptime_s=time.time() - psutil.boot_time(),
            lent_strands=len(self._host.lending.strands),
        )

    def _at_full_speed(self, domain: Domain, shares: Sequence[float]) -> tuple[float, ...]:
        """The use of each virtual CPU in percent of what its host CPU does at full speed."""
        strands = domain.bindings.strands if domain.bindings else ()
        cpus = [self._host.size.cpu_of(strand) for strand in strands]
        return tuple(share * self._speed.share(cpu) for share, cpu in zip(shares, cpus, strict=False))

    def _state(self, domain: Domain, migration: MigrationStatus | None) -> DomainState:
        if domain.bindings is None:
            return DomainState.INACTIVE
        if domain.is_control:
            return DomainState.ACTIVE
        verb = self._host.operations.holder(domain.name)
        if verb in _BUSY_STATES:
            return _BUSY_STATES[verb]
        running = self._host.guests.get(domain.uuid)
        arrives = _is_arriving(migration) and domain.uuid not in self._host.fetching
        if running is None or running.run_state is RunState.INCOMING or arrives:
            return DomainState.BOUND
        runs = running.run_state is RunState.RUNNING
        if running.run_state is RunState.SILENT:  # it may run, unless it was stopped for a migration that is unsettled
            runs = migration is None or not migration.error
        return DomainState.ACTIVE if runs else DomainState.SUSPENDED

    def _service_domains(self) -> set[str]:
        services = self._host.store.services()
        owners = {service.domain for service in services.disk_services}
        owners |= {switch.domain for switch in services.switches}
        return owners | {concentrator.domain for concentrator in services.concentrators}


def _mean(shares: Sequence[float]) -> float:
    return sum(shares) / len(shares) if shares else 0.0


def _is_arriving(migration: MigrationStatus | None) -> bool:
    return migration is not None and migration.role == "target"


def _flags(
    domain: Domain,
    state: DomainState,
    migration: MigrationStatus | None,
    *,
    serves: bool,
    reconfiguration: str,
    booting: bool,
) -> str:
    """The six letters of the FLAGS column."""
    migrating = "-"
    if migration is not None:
        migrating = "e" if migration.error else migration.role[0]
    running = "t" if booting else "n"
    return "".join(
        (
            "s" if state in (DomainState.STARTING, DomainState.STOPPING) else "-",
            running if state in (DomainState.ACTIVE, DomainState.SUSPENDED) else "-",
            reconfiguration,
            "c" if domain.is_control else "-",
            "v" if serves else "-",
            migrating,
        )
    )
