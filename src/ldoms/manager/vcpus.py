"""Virtual CPUs and cores: asked for, given, and taken back."""

from __future__ import annotations

from dataclasses import replace

from ldoms.manager.host import Host
from ldoms.manager.live_cpus import LiveCpus
from ldoms.model.cores import CpuChange, Unit, asked, check_max_cores, lay_out, with_cpus
from ldoms.model.domain import Bindings, Constraints, Domain
from ldoms.model.errors import NoResources
from ldoms.model.identity import CONTROL_DOMAIN
from ldoms.model.named_cores import check_exist


class VcpuVerbs:
    """``add-vcpu``, ``set-vcpu``, ``remove-vcpu``, and the same for cores.

    An inactive domain only remembers the wish; a bound one is given or gives back at once; of an active one the guest
    has its say, see `LiveCpus`; for the control domain it changes at once what the guests' QEMU processes may use.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._live = LiveCpus(host)

    async def start(self) -> None:
        """Compare what is written down with the guests that were found."""
        for domain in self._host.store.domains():
            running = self._host.guests.get(domain.uuid)
            if running is not None and self._host.is_owner(domain.uuid):
                await self._live.compare(domain, running.guest)
        self._live.start()

    async def close(self) -> None:
        """Let go of what goes on by itself."""
        await self._live.close()

    async def add(self, name: str, count: int) -> Domain:
        """Give a domain `count` more virtual CPUs."""
        return await self.change(name, CpuChange("add", Unit.VCPUS, count))

    async def remove(self, name: str, count: int) -> Domain:
        """Take `count` virtual CPUs from a domain."""
        return await self.change(name, CpuChange("remove", Unit.VCPUS, count))

    async def set(self, name: str, count: int) -> Domain:
        """Make it `count` virtual CPUs."""
        return await self.change(name, CpuChange("set", Unit.VCPUS, count))

    async def change(self, name: str, change: CpuChange) -> Domain:
        """Change the number of virtual CPUs or cores of a domain.

        Raises:
            RequestError: see `asked`; nothing is changed.
            NoResources: more is asked for than is free, or than the machine of the guest has sockets for; nothing is
                changed.
            HostError: code ``partial-success``: the guest has not done all of it; what it has done stays.
        """
        with self._host.changing(name, change.command) as domain:
            is_bound = domain.is_bound
            wanted = asked(name, domain.constraints, change, self._host.size.strands_per_cpu, bound=is_bound)
            return await self._become(domain, wanted)

    async def change_control(self, wanted: Constraints) -> Domain:
        """Give the control domain the virtual CPUs and cores that it was to get later.

        Raises:
            RequestError: ``max-cores`` has been lowered meanwhile.
            NoResources: they are not free.
        """
        with self._host.changing(CONTROL_DOMAIN, "set-vcpu") as domain:
            wanted = with_cpus(domain.constraints, wanted)
            check_max_cores(domain.name, wanted, self._host.size.strands_per_cpu)
            return await self._become(domain, wanted)

    # Inside

    async def _become(self, domain: Domain, wanted: Constraints) -> Domain:
        name = domain.name
        if domain.bindings is None:
            self._check_size(name, domain.constraints, wanted)
            return self._host.save(replace(domain, constraints=wanted))
        running = self._host.guests.get(domain.uuid)
        if running is not None:
            return await self._live.change(domain, wanted, running.guest)
        bindings = self._given(name, domain.bindings, wanted)
        changed = self._host.save(replace(domain, constraints=wanted, bindings=bindings))
        await self._host.give_way()
        if changed.is_control:
            await self._host.place_control()
        return changed

    def _check_size(self, name: str, now: Constraints, wanted: Constraints) -> None:
        """An inactive domain may ask for what others have, but not for more than the host has."""
        partition, most = self._host.partition(), len(self._host.size.strands)
        check_exist(partition, name, wanted.core_ids)
        if wanted.vcpus > most:
            partition.pick_strands(wanted.vcpus - now.vcpus, name, already=now.vcpus)  # says what is free
            raise NoResources(f"LDom {name} cannot have more than the {most} strands of this host", code="no-strands")

    def _given(self, name: str, now: Bindings, wanted: Constraints) -> Bindings:
        """What a domain is given that has no guest."""
        layout = lay_out(self._host.partition(), name, wanted, range(wanted.vcpus), now)
        machine = now.machine
        if machine is not None:
            machine = replace(machine, max_vcpus=max(wanted.vcpus, machine.max_vcpus))
        return replace(now, vcpus=layout.vcpus, idle=layout.idle, parked=(), machine=machine)
