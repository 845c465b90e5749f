"""Two hosts without QEMU, without a network and without waiting, that can be broken at any point."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ldoms.console.telnet import Port
from ldoms.hypervisor.fake import FACTS, FakeEngine, FakeGuest, FakeWorld
from ldoms.hypervisor.states import RunState
from ldoms.manager.config import Config, HostConfig, Places
from ldoms.manager.consoles import Consoles
from ldoms.manager.events import EventHub
from ldoms.manager.guests import GuestBook
from ldoms.manager.host import Host
from ldoms.manager.manager import Manager
from ldoms.manager.operations import Operations
from ldoms.manager.softstate import watch
from ldoms.migration.fake import FakeConnector, FakeLink
from ldoms.migration.peer import Credentials
from ldoms.model.errors import LdomsError
from ldoms.model.host import PROTOCOL_VERSION, HostFacts
from ldoms.model.migration import MigrationOptions
from ldoms.model.operation import Operation
from ldoms.model.partition import HostSize
from ldoms.net.fake import FakeNeighbours, FakeNetwork
from ldoms.storage.fake import FakeDisks, FakeStorage
from ldoms.store import Store
from unit.clock import run

DOMAIN = "ldg1"
SETTLE_S = 3600.0


class NoPort(Port):
    """The port of a console group that nobody can reach."""

    @staticmethod
    def is_free(port: int) -> bool:
        return True

    async def open(self, port: int) -> None:
        pass

    async def close(self) -> None:
        pass


@dataclass
class FakeHost:
    """A host: its disk and its guests outlive its manager."""

    name: str
    link: FakeLink
    world: FakeWorld
    disks: FakeDisks
    directory: Path
    store: Store = field(default_factory=lambda: Store(":memory:"))
    network: FakeNetwork = field(default_factory=FakeNetwork)
    neighbours: FakeNeighbours = field(default_factory=FakeNeighbours)
    incoming_enabled: bool = True
    config: Config = field(default_factory=Config)
    boot_id: str = "boot-1"

    def __post_init__(self) -> None:
        self.engine = FakeEngine(self.world)
        self.manager: Manager | None = None

    async def start(self) -> Manager:
        """Start the manager, on whatever an earlier one has left."""
        host = Host(
            config=replace(self.config, host=HostConfig(name=self.name)),
            places=Places(self.directory / self.name),
            facts=HostFacts(
                name=self.name,
                identity=f"SHA256:{self.name}",
                version="0.1.0",
                protocol=PROTOCOL_VERSION,
                size=HostSize((0, 1), 4, 8192),
                cpu_model="a processor",
                cpu_flags=("aes",),
                hypervisor=FACTS,
                incoming_enabled=self.incoming_enabled,
            ),
            store=self.store,
            engine=self.engine,
            network=self.network,
            storage=FakeStorage(self.disks),
            events=EventHub(self.store),
            operations=Operations(self.store),
            guests=GuestBook(watch),
            neighbours=self.neighbours,
            random=random.Random(self.name),
            boot_id=self.boot_id,
        )
        self.manager = Manager(host, FakeConnector(self.link), Consoles(host.places, self.name, ports=NoPort))
        await self.manager.start()
        self.link.targets[self.name] = self.manager.target
        return self.manager

    async def stop(self) -> None:
        """Stop the manager; guests go on."""
        self.link.targets.pop(self.name, None)
        if self.manager is not None:
            await self.manager.stop()
            self.manager = None

    async def restart(self) -> None:
        """Stop and start the manager."""
        await self.stop()
        await self.start()

    async def lose_power(self) -> None:
        """End the manager and all guests at once, as a power cut does; whatever follows is another boot."""
        await self.stop()
        for guest in list(self.engine.guests.values()):
            guest.die()
        self.boot_id = f"boot-{int(self.boot_id.partition('-')[2]) + 1}"

    async def power_cycle(self) -> Manager:
        """Lose power, and come up again."""
        await self.lose_power()
        return await self.start()

    @property
    def guest(self) -> FakeGuest | None:
        """The guest of the domain here, if its QEMU is there."""
        return next((guest for guest in self.engine.guests.values() if not guest.is_gone), None)

    @property
    def domain_names(self) -> list[str]:
        """Guest domains of the host."""
        return [domain.name for domain in self.store.domains() if not domain.is_control]


class Gates:
    """Stops a migration at a named gate, so that a test can break something just there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.closed = ""
        self.reached = asyncio.Event()
        self.passed: list[str] = []
        self._open = asyncio.Event()
        # Kept, so that whoever waits for it is not thrown away, which would wake it for its last moment.
        self._never = asyncio.Event()
        self._abandoned = False
        for module in ("source", "target"):
            monkeypatch.setattr(f"ldoms.migration.{module}.gate", self._gate)

    async def _gate(self, name: str) -> None:
        self.passed.append(name)
        if name == self.closed and not self.reached.is_set():
            self.reached.set()
            await self._open.wait()
            if self._abandoned:
                await self._never.wait()

    def open(self, *, crashed: str = "") -> None:
        """Let everybody go on; but whoever waits at a gate of a manager that has crashed never comes back."""
        self._abandoned = bool(crashed) and self.closed.startswith(crashed)
        self._open.set()


class Pair:
    """Two hosts with a domain on the first."""

    def __init__(self, directory: Path) -> None:
        self.link = FakeLink(passwords={"tracy": "secret"})
        self.world = FakeWorld()
        self.disks = FakeDisks(images={"/shared/ldg1.qcow2": "qcow2"})
        self.source, self.target = (
            FakeHost(name, self.link, self.world, self.disks, directory) for name in ("t4-1", "t4-2")
        )

        self._later: set[asyncio.Task[None]] = set()
        self.step_clock: Callable[[float], None] = lambda seconds: None

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something while a migration goes on, which is not taken for settled before that."""
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def set_up(self, state: str = "active") -> None:
        """Start both managers, and make a domain on the source that is inactive, bound or active."""
        for host in (self.source, self.target):
            manager = await host.start()
            await manager.vcpus.set("primary", 4)
            await manager.memory.set("primary", 4096)
            manager.disk_services.add("primary-vds0", "primary")
            await manager.disk_services.add_volume(
                "primary-vds0", "root", "/shared/ldg1.qcow2", (), "", force=False, quick=False
            )
            await manager.switches.add("primary-vsw0", "primary", {})
            manager.concentrators.add("primary-vcc0", "primary", "5000-5100")
        manager = self.manager
        await manager.domains.add(DOMAIN, {})
        await manager.vcpus.set(DOMAIN, 2)
        await manager.memory.set(DOMAIN, 1024)
        await manager.disks.add(DOMAIN, "vdisk0", "root", "primary-vds0", 0, None)
        await manager.networks.add(DOMAIN, "vnet0", "primary-vsw0", {})
        if state != "inactive":
            await manager.life.bind(DOMAIN)
        if state == "active":
            await manager.life.start(DOMAIN)
            guest = self.source.guest
            assert guest is not None
            guest.memory = 42

    @property
    def manager(self) -> Manager:
        """The source's manager."""
        assert self.source.manager is not None
        return self.source.manager

    def migrate(self, password: str = "secret", **options: Any) -> Operation:
        """Begin to move the domain."""
        return self.manager.migrations.migrate(
            DOMAIN, MigrationOptions("t4-2", user="tracy", **options), Credentials("tracy", password), "root"
        )

    async def wait(self, operation: Operation) -> Operation:
        """The operation when it is over."""
        return await self.manager.host.operations.wait(operation.id)

    async def settle(self) -> None:
        """Wait until nothing is under way on either host."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLE_S
        while loop.time() < deadline:
            await asyncio.sleep(1.0)
            hosts = (self.source, self.target)
            if not self._later and not any(host.store.migrations(unsettled=True) for host in hosts):
                await asyncio.sleep(5.0)
                return
        raise AssertionError(f"it does not settle: {self.describe()}")

    async def tear_down(self) -> None:
        """Stop what runs."""
        for host in (self.source, self.target):
            with suppress(LdomsError):
                await host.stop()

    # What must hold

    def runs_on(self) -> list[str]:
        """The hosts on which the guest runs."""
        hosts = (self.source, self.target)
        return [host.name for host in hosts if host.guest and host.guest.run_state is RunState.RUNNING]

    def check_sound(self) -> None:
        """One owner, never two; every domain that is anywhere is whole; nothing is left of the other."""
        assert not self.world.doubles, f"the guest ran twice: {self.describe()}"
        places = {host.name: host.domain_names for host in (self.source, self.target)}
        assert sorted(len(names) for names in places.values()) == [0, 1], f"the domain is in {places}"
        for host in (self.source, self.target):
            if not host.domain_names:
                self.check_nothing_left(host)
        assert not [path for path in self.disks.files if ".ldoms-" in path], "a beacon was left"

    def check_nothing_left(self, host: FakeHost) -> None:
        """A host without the domain has its strands, memory, taps and QEMU back."""
        assert host.manager is not None
        partition = host.manager.host.partition()
        assert len(partition.free_strands) == 4, f"{host.name} has not got its strands back"
        assert partition.free_memory_mib == 4096, f"{host.name} has not got its memory back"
        assert not host.network.taps, f"{host.name} has taps left: {host.network.taps}"
        assert host.guest is None, f"{host.name} has a QEMU left"

    def describe(self) -> str:
        """Everything that explains a failure."""
        lines = []
        for host in (self.source, self.target):
            guest = host.guest
            records = [
                (
                    record.phase.value,
                    record.settled,
                    record.called_off,
                    record.report.outcome.value,
                    record.report.cause,
                )
                for record in host.store.migrations()
            ]
            owners = [host.store.ownership(domain.uuid) for domain in host.store.domains()]
            lines.append(f"{host.name}: {host.domain_names} {guest and guest.run_state} {records} {owners}")
        return "\n".join(lines)


def migrating(directory: Path, work: Any, state: str = "active") -> None:
    """Run `work` on a pair of hosts, and check that all is sound in the end."""

    async def main() -> None:
        pair = Pair(directory)
        await pair.set_up(state)
        try:
            await work(pair)
            await pair.settle()
            pair.check_sound()
        finally:
            await pair.tear_down()

    run(main())
