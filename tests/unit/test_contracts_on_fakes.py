"""The contracts of all interfaces, kept by the fakes: otherwise every test that stands on a fake means nothing."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from contracts import engine, network, storage
from ldoms.auth.fake import FakePasswords
from ldoms.hypervisor.engine import GuestSpec, Placement
from ldoms.hypervisor.fake import FakeEngine, FakeWorld
from ldoms.model.domain import CpuModel, Machine
from ldoms.model.services import VirtualSwitch
from ldoms.net.fake import FakeNetwork
from ldoms.net.network import switch_device
from ldoms.storage.fake import FakeDisks, FakeStorage
from unit.clock import run

Check = Callable[[Any], Awaitable[None]]


class FakeEngines:
    """Two fake hosts."""

    def __init__(self, directory: Path) -> None:
        world = FakeWorld()
        self.engine, self.other = FakeEngine(world), FakeEngine(world)
        self._directory = directory
        self._numbers = itertools.count(1)

    def spec(self) -> GuestSpec:
        number = next(self._numbers)
        machine = Machine("pc-q35-10.0", "tcg", CpuModel("qemu64-v1"), "10.0.2")
        placement = Placement((frozenset({0}),))
        return GuestSpec(f"uuid-{number}", f"ldg{number}", self._directory, machine, 1, 64, placement)

    def away(self, spec: GuestSpec) -> GuestSpec:
        return GuestSpec(spec.uuid, spec.name, spec.directory, spec.machine, 1, 64, spec.placement, incoming=True)

    def address(self) -> tuple[str, int]:
        return "192.0.2.1", 8100 + next(self._numbers)

    async def restarted(self) -> FakeEngine:
        return self.engine


class FakeNetworkBench:
    """A fake network."""

    def __init__(self) -> None:
        self.network = FakeNetwork(interfaces={"up0"})

    def taps_of(self, switch: VirtualSwitch) -> set[str]:
        return {name for name, (_, bridge) in self.network.taps.items() if bridge == switch_device(switch)}

    def has_switch(self, switch: VirtualSwitch) -> bool:
        return switch_device(switch) in self.network.bridges


class FakeStorageBench:
    """Two fake hosts that share their disks."""

    def __init__(self) -> None:
        self.qcow2, self.raw, self.missing = "/shared/a.qcow2", "/shared/b.raw", "/shared/missing"
        disks = FakeDisks(images={self.qcow2: "qcow2", self.raw: "raw"})
        self.ours, self.theirs = FakeStorage(disks), FakeStorage(disks)


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


def test_passwords() -> None:
    """The right one, a wrong one, and one of nobody."""
    checker = FakePasswords({"tracy": "secret"})
    assert run(checker.check("tracy", "secret"))
    assert not run(checker.check("tracy", ""))
    assert not run(checker.check("nobody-of-that-name", "secret"))
