"""The contracts of all interfaces, kept by the fakes: otherwise every test that stands on a fake means nothing."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contracts import engine, neighbours, network, passwords, storage
from ldoms.auth.fake import FakePasswords
from ldoms.hypervisor.fake import FakeEngine, FakeGuest, FakeWorld
from ldoms.hypervisor.specs import DeviceSpec, DiskSpec, GuestSpec, NetworkSpec, Placement
from ldoms.model.domain import CpuModel, Machine
from ldoms.model.services import VirtualSwitch
from ldoms.net.fake import FakeNeighbours, FakeNetwork
from ldoms.net.network import switch_device
from ldoms.storage.fake import FakeDisks, FakeStorage
from unit.clock import run

Check = Callable[[Any], Awaitable[None]]


class FakeEngines:
    """Two fake hosts."""

    cpus = (0, 1)

    def __init__(self, directory: Path) -> None:
        world = FakeWorld()
        self.engine, self.other = FakeEngine(world), FakeEngine(world)
        self._directory = directory
        self._numbers = itertools.count(1)

    def spec(self) -> GuestSpec:
        number = next(self._numbers)
        machine = Machine("pc-q35-10.0", "tcg", CpuModel("qemu64-v1"), "10.0.2", engine.MAX_VCPUS)
        placement = Placement((frozenset({0}),))
        return GuestSpec(f"uuid-{number}", f"ldg{number}", self._directory, machine, 1, 64, placement)

    def away(self, spec: GuestSpec) -> GuestSpec:
        return GuestSpec(spec.uuid, spec.name, spec.directory, spec.machine, 1, 64, spec.placement, incoming=True)

    def devices(self) -> tuple[DiskSpec, DeviceSpec]:
        disk = DiskSpec("disk@0", Path("/shared/a.raw"), False, "raw", False, True, 0, 1)
        return disk, NetworkSpec("network@0", "vnet1.0", "00:14:4f:f8:00:01", 1500, 1)

    def copies(self, names: Sequence[str]) -> tuple[tuple[DiskSpec, ...], tuple[DiskSpec, ...]]:
        ours, theirs = (
            tuple(
                DiskSpec(name, Path(f"/{side}/{name}.raw"), False, "raw", False, True, port, port + 1)
                for port, name in enumerate(names)
            )
            for side in ("ours", "theirs")
        )
        return ours, theirs

    async def write(self, guest: FakeGuest, device: str, mark: int) -> None:
        guest.write(device, mark)

    async def read(self, guest: FakeGuest, disk: DiskSpec) -> int:
        return guest.contents.get(disk.device, 0)

    def stand_in(self) -> NetworkSpec:
        return NetworkSpec("network@0", "vnet2.0", "00:14:4f:f8:00:09", 9000, 1)

    def address(self) -> tuple[str, int]:
        return "192.0.2.1", 8100 + next(self._numbers)

    async def restarted(self) -> FakeEngine:
        return self.engine

    async def booted(self, guest: FakeGuest) -> None:
        guest.agent.is_there = False
        guest.wakes_vcpus = True  # as the tiny guest does
        await guest.resume()

    def core(self) -> Path:
        return self._directory / "core"

    def kill(self, guest: FakeGuest) -> None:
        guest.die()

    def hang(self, guest: FakeGuest) -> None:
        guest.hangs = True

    def go_on(self, guest: FakeGuest) -> None:
        guest.hangs = False

    def whereabouts(self, guest: FakeGuest) -> tuple[list[set[int]], set[int]]:
        assert self.engine.control is not None
        return [set(cpus) for cpus in guest.placement.vcpus], set(self.engine.control.cpus)


class FakeNetworkBench:
    """A fake network."""

    def __init__(self) -> None:
        self.network = FakeNetwork(interfaces={"up0"})

    def taps_of(self, switch: VirtualSwitch) -> set[str]:
        return {name for name, (_, bridge) in self.network.taps.items() if bridge == switch_device(switch)}

    def has_switch(self, switch: VirtualSwitch) -> bool:
        return switch_device(switch) in self.network.bridges

    def way(self, mtu: int) -> str:
        self.network.mtu = mtu
        return "192.0.2.1"

    def limits(self, tap: str) -> tuple[int, int]:
        return (self.network.taps[tap][0].limit_bits_s,) * 2

    def guarded(self) -> set[str]:
        return {name for name, (tap, _) in self.network.taps.items() if not tap.guard.is_open}

    def plug(self, *, plugged: bool) -> None:
        self.network.set_carrier("up0", plugged)

    def no_way(self) -> str:
        return self.way(0)


class FakeStorageBench:
    """Two fake hosts that share their disks."""

    def __init__(self) -> None:
        self.qcow2, self.raw, self.missing = "/shared/a.qcow2", "/shared/b.raw", "/shared/missing"
        self.disks = FakeDisks(images={self.qcow2: "qcow2", self.raw: "raw"})
        self.ours, self.theirs = FakeStorage(self.disks), FakeStorage(self.disks)

    def write(self, name: str, content: str) -> str:
        self.disks.files[name] = content
        return name

    @contextmanager
    def used(self, path: str) -> Iterator[None]:
        self.disks.locked.add(path)
        yield
        self.disks.locked.remove(path)


class FakePasswordBench:
    """A dictionary of passwords; a locked account is not in it."""

    def __init__(self) -> None:
        self.checker = FakePasswords({passwords.USER: passwords.PASSWORD})


@pytest.mark.parametrize("check", engine.CHECKS, ids=lambda check: check.__name__)
def test_engine(check: Check, tmp_path: Path) -> None:
    """See the docstring of each check."""
    run(check(FakeEngines(tmp_path)))


@pytest.mark.parametrize("check", network.CHECKS, ids=lambda check: check.__name__)
def test_network(check: Check) -> None:
    """See the docstring of each check."""
    run(check(FakeNetworkBench()))


@pytest.mark.parametrize("check", storage.CHECKS, ids=lambda check: check.__name__)
def test_storage(check: Check) -> None:
    """See the docstring of each check."""
    run(check(FakeStorageBench()))


@pytest.mark.parametrize("check", passwords.CHECKS, ids=lambda check: check.__name__)
def test_passwords(check: Check) -> None:
    """See the docstring of each check."""
    run(check(FakePasswordBench()))


class FakeSubnetBench:
    """A fake subnet."""

    def __init__(self) -> None:
        self.neighbours = FakeNeighbours({neighbours.TAKEN: neighbours.HOLDER})


@pytest.mark.parametrize("check", neighbours.CHECKS, ids=lambda check: check.__name__)
def test_neighbours(check: Check) -> None:
    """See the docstring of each check."""
    run(check(FakeSubnetBench()))
