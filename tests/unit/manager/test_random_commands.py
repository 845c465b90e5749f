"""Random commands, against a model of a host that is small enough to be seen to be right."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ldoms.hypervisor.fake import FakeWorld
from ldoms.manager.manager import Manager
from ldoms.migration.fake import FakeLink
from ldoms.model.domain import Domain, DomainView
from ldoms.model.errors import LdomsError
from ldoms.net.network import tap_name
from ldoms.storage.fake import FakeDisks
from unit.clock import JumpingLoop
from unit.migration.harness import FakeHost

STRANDS, MEMORY_MIB, CONSOLES = 8, 8192, 2
NAMES = st.sampled_from(["ldg1", "ldg2", "ldg3"])
VOLUMES = st.sampled_from(["a", "b", "c"])
DEVICES = st.sampled_from(["one", "two"])
VCPUS = st.integers(0, STRANDS + 1)
SIZES_MIB = st.sampled_from([0, 3, 4, 256, 510, 1024, 3000, 4096, 8192, 9000])

Verb = Callable[[Manager], Awaitable[Any]]


@dataclass
class Expected:
    """What a domain must be like."""

    state: str = "inactive"
    vcpus: int = 0
    memory_mib: int = 0
    disks: dict[str, str] = field(default_factory=dict)
    networks: set[str] = field(default_factory=set)

    @property
    def held_mib(self) -> int:
        """What it holds when it is bound: whole multiples of 4 MiB."""
        return -(-self.memory_mib // 4) * 4


class RandomCommands(RuleBasedStateMachine):
    """Commands of an administrator who knows nothing, and restarts of the manager in between."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = JumpingLoop()
        asyncio.set_event_loop(self.loop)
        self.directory = tempfile.TemporaryDirectory(prefix="ldoms-random-")
        disks = FakeDisks(images={f"/images/{name}.raw": "raw" for name in "abc"})
        self.host = FakeHost("t4-1", FakeLink(), FakeWorld(), disks, Path(self.directory.name))
        self.primary = Expected("active", 2, MEMORY_MIB // 4)
        self.domains = {name: Expected("inactive", 1, 1024) for name in ("ldg1", "ldg2")}
        self.do(self.furnish())

    async def furnish(self) -> None:
        manager = await self.host.start()
        manager.disk_services.add("vds", "primary")
        for name in "abc":
            await manager.disk_services.add_volume("vds", name, f"/images/{name}.raw", (), "", force=False, quick=False)
        await manager.switches.add("vsw", "primary", {})
        manager.concentrators.add("vcc", "primary", f"5000-{5000 + CONSOLES - 1}")
        await manager.vcpus.set("primary", self.primary.vcpus)
        await manager.memory.set("primary", self.primary.memory_mib)
        for name, known in self.domains.items():
            await manager.domains.add(name, {})
            await manager.vcpus.set(name, known.vcpus)
            await manager.memory.set(name, known.memory_mib)

    def do(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.do(self.host.stop())
        self.loop.close()
        self.directory.cleanup()

    @property
    def manager(self) -> Manager:
        assert self.host.manager is not None
        return self.host.manager

    def attempt(self, verb: Verb, *, works: bool | None) -> bool:
        """Carry a verb out; it must work, or be refused in a sentence; `works` None = either.

        Whatever else it raises, ends the test.
        """

        async def carry_out() -> None:
            await verb(self.manager)
            operations = self.manager.host.operations
            while any(operations.on(name) for name in self.domains):  # what takes longer goes on by itself
                await asyncio.sleep(1)

        refusal: LdomsError | None = None
        try:
            self.do(carry_out())
        except LdomsError as error:
            refusal = error
        assert refusal is None or works is not True, f"this was refused: {refusal.message}"
        assert refusal is not None or works is not False, "this was not refused"
        return refusal is None

    # What is free, by the model

    def free_vcpus(self) -> int:
        bound = [domain for domain in self.domains.values() if domain.state != "inactive"]
        return STRANDS - self.primary.vcpus - sum(domain.vcpus for domain in bound)

    def free_mib(self) -> int:
        bound = [domain for domain in self.domains.values() if domain.state != "inactive"]
        return MEMORY_MIB - self.primary.memory_mib - sum(domain.held_mib for domain in bound)

    def volume_is_free(self, volume: str) -> bool:
        return not any(volume in domain.disks.values() for domain in self.domains.values())

    # Commands

    @rule(name=NAMES)
    def add_domain(self, name: str) -> None:
        if self.attempt(lambda m: m.domains.add(name, {}), works=name not in self.domains):
            self.domains[name] = Expected()

    @rule(name=NAMES)
    def remove_domain(self, name: str) -> None:
        known = self.domains.get(name)

        async def remove(manager: Manager) -> None:
            manager.domains.remove(name)

        if self.attempt(remove, works=known is not None and known.state == "inactive"):
            del self.domains[name]

    @rule(name=NAMES, count=VCPUS)
    def set_vcpu(self, name: str, count: int) -> None:
        known = self.domains.get(name)
        works: bool | None = known is not None and 1 <= count <= STRANDS
        if known and works and known.state == "bound":
            works = count - known.vcpus <= self.free_vcpus()
        if known and known.state == "active":
            works = None  # the guest has a say in it
        self.attempt(lambda m: m.vcpus.set(name, count), works=works)
        if known and works is None:
            known.vcpus = self.actual(name).constraints.vcpus
        elif known and works:
            known.vcpus = count

    @rule(name=NAMES, size_mib=SIZES_MIB)
    def set_memory(self, name: str, size_mib: int) -> None:
        known = self.domains.get(name)
        works: bool | None = known is not None and 4 <= size_mib <= MEMORY_MIB
        if known and works and known.state == "bound":
            works = -(-size_mib // 4) * 4 - known.held_mib <= self.free_mib()
        if known and known.state == "active":
            works = None
        self.attempt(lambda m: m.memory.set(name, size_mib), works=works)
        if known and works is None:
            known.memory_mib = self.actual(name).constraints.memory_mib
        elif known and works:
            known.memory_mib = size_mib

    @rule(count=VCPUS)
    def set_vcpu_of_primary(self, count: int) -> None:
        works = count >= 1 and count - self.primary.vcpus <= self.free_vcpus()
        if self.attempt(lambda m: m.vcpus.set("primary", count), works=works):
            self.primary.vcpus = count

    @rule(size_mib=st.sampled_from([0, 100, 256, 1024, 4096, 4100, 8192, 9216]))
    def set_memory_of_primary(self, size_mib: int) -> None:
        difference = size_mib - self.primary.memory_mib
        works = size_mib >= 256 and difference % 256 == 0 and difference <= self.free_mib()
        if self.attempt(lambda m: m.memory.set("primary", size_mib), works=works):
            self.primary.memory_mib = size_mib

    @rule(name=NAMES)
    def bind_domain(self, name: str) -> None:
        known = self.domains.get(name)
        bound = sum(1 for domain in self.domains.values() if domain.state != "inactive")
        works = (
            known is not None
            and known.state == "inactive"
            and 0 < known.vcpus <= self.free_vcpus()
            and 0 < known.held_mib <= self.free_mib()
            and bound < CONSOLES
        )
        if self.attempt(lambda m: m.life.bind(name), works=works):
            self.domains[name].state = "bound"

    @rule(name=NAMES)
    def unbind_domain(self, name: str) -> None:
        known = self.domains.get(name)
        if self.attempt(lambda m: m.life.unbind(name), works=known is not None and known.state == "bound"):
            self.domains[name].state = "inactive"

    @rule(name=NAMES)
    def start_domain(self, name: str) -> None:
        known = self.domains.get(name)
        if self.attempt(lambda m: m.life.start(name), works=known is not None and known.state == "bound"):
            self.domains[name].state = "active"

    @rule(name=NAMES)
    def bind_and_start_domain(self, name: str) -> None:
        """As one usually does; else few guests would ever run."""
        self.bind_domain(name)
        self.start_domain(name)

    @rule(name=NAMES)
    def stop_domain(self, name: str) -> None:
        known = self.domains.get(name)
        if self.attempt(lambda m: m.life.stop(name, force=True), works=known is not None and known.state == "active"):
            self.domains[name].state = "bound"

    @rule(name=NAMES, disk=DEVICES, volume=VOLUMES)
    def add_vdisk(self, name: str, disk: str, volume: str) -> None:
        known = self.domains.get(name)
        works = known is not None and disk not in known.disks and self.volume_is_free(volume)
        if self.attempt(lambda m: m.disks.add(name, disk, volume, "vds", 0, None), works=works):
            self.domains[name].disks[disk] = volume

    @rule(name=NAMES, disk=DEVICES)
    def remove_vdisk(self, name: str, disk: str) -> None:
        known = self.domains.get(name)
        works = known is not None and disk in known.disks
        if self.attempt(lambda m: m.disks.remove(name, disk, force=False), works=works):
            del self.domains[name].disks[disk]

    @rule(name=NAMES, network=DEVICES)
    def add_vnet(self, name: str, network: str) -> None:
        known = self.domains.get(name)
        works = known is not None and network not in known.networks
        if self.attempt(lambda m: m.networks.add(name, network, "vsw", {}), works=works):
            self.domains[name].networks.add(network)

    @rule(name=NAMES, network=DEVICES)
    def remove_vnet(self, name: str, network: str) -> None:
        known = self.domains.get(name)
        works = known is not None and network in known.networks
        if self.attempt(lambda m: m.networks.remove(name, network), works=works):
            self.domains[name].networks.discard(network)

    # What happens by itself

    @rule()
    def restart_the_manager(self) -> None:
        self.do(self.host.restart())

    @rule(name=NAMES)
    def lose_a_guest(self, name: str) -> None:
        known = self.domains.get(name)
        if known and known.state == "active":
            self.do(self.kill(name))
            known.state = "bound"

    @rule(name=NAMES)
    def lose_a_guest_while_the_manager_is_away(self, name: str) -> None:
        known = self.domains.get(name)
        if known and known.state == "active":
            self.do(self.kill(name, while_away=True))
            known.state = "bound"

    async def kill(self, name: str, *, while_away: bool = False) -> None:
        guest = self.host.engine.guests[self.actual(name).uuid]
        if while_away:
            await self.host.stop()
        guest.die()
        if while_away:
            await self.host.start()
        await asyncio.sleep(1)

    # What must hold

    def actual(self, name: str) -> Domain:
        return self.manager.host.store.domain(name)

    @invariant()
    def every_domain_is_as_it_must_be(self) -> None:
        async def look() -> dict[str, DomainView]:
            return {view.domain.name: view for view in self.manager.listing.domains()}

        views = self.do(look())
        assert set(views) == {"primary", *self.domains}
        for name, known in (("primary", self.primary), *self.domains.items()):
            domain = views[name].domain
            found = Expected(
                views[name].status.state.value,
                domain.constraints.vcpus,
                domain.constraints.memory_mib,
                {disk.name: disk.volume for disk in domain.disks},
                {network.name for network in domain.networks},
            )
            assert found == known, f"{name} is {found}, not {known}"

    @invariant()
    def nothing_is_given_twice_or_lost(self) -> None:
        partition = self.manager.host.partition()
        held = [strand for bindings in partition.bindings.values() for strand in bindings.strands]
        assert len(held) == len(set(held)), f"a strand has two holders: {held}"
        assert len(partition.free_strands) == self.free_vcpus()
        blocks = sorted(
            (block.physical_address_mib, block.size_mib)
            for bindings in partition.bindings.values()
            for block in bindings.memory
        )
        for (start, size), (following, _) in itertools.pairwise(blocks):
            assert start + size <= following, f"memory has two holders: {blocks}"
        assert partition.free_memory_mib == self.free_mib()

    @invariant()
    def nothing_is_left_behind(self) -> None:
        active = {name for name, domain in self.domains.items() if domain.state == "active"}
        guests = {guest.spec.name for guest in self.host.engine.guests.values() if not guest.is_gone}
        assert guests == active
        taps = {
            tap_name(self.actual(name).order, network.id) for name in active for network in self.actual(name).networks
        }
        assert set(self.host.network.taps) == taps
        ports = [
            domain.bindings.console_port
            for domain in self.manager.host.store.domains()
            if domain.bindings and not domain.is_control
        ]
        assert len(ports) == len(set(ports))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_random_commands() -> None:
    """Never over-allocated, nothing leaks, each command does what the model says, and a restart changes nothing."""
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(RandomCommands, settings=settings(max_examples=50, stateful_step_count=50, deadline=None))
