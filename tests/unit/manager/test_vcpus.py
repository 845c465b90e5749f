"""Virtual CPUs of domains in every state: given, woken, put to sleep, parked, moved along."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ldoms.hypervisor.fake import FakeGuest
from ldoms.manager.live_cpus import why_parked
from ldoms.manager.manager import Manager
from ldoms.model.cores import CpuChange, Unit
from ldoms.model.domain import Bindings
from ldoms.model.errors import HostError, LdomsError, NoResources, RequestError
from unit.manager.desk import at_desk
from unit.migration.harness import FakeHost


def bindings(manager: Manager, name: str = "ldg1") -> Bindings:
    """What a domain has been given, as it is written down."""
    found = manager.host.store.domain(name).bindings
    assert found is not None
    return found


def vids(manager: Manager) -> list[int]:
    """Numbers of the virtual CPUs that ldg1 uses."""
    domain = manager.host.store.domain("ldg1")
    found = [vcpu.vid for vcpu in bindings(manager).vcpus]
    assert domain.constraints.vcpus == len(found)
    return found


def guest_of(host: FakeHost) -> FakeGuest:
    """The guest, whose threads are where the bindings say."""
    assert host.guest is not None
    return host.guest


def with_guest(work: Callable[[FakeHost, Manager, FakeGuest], Awaitable[None]], vcpus: int = 2) -> object:
    """Work at a host where ldg1 runs."""

    async def wrapped(host: FakeHost, manager: Manager) -> None:
        await manager.vcpus.set("ldg1", vcpus)
        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        await work(host, manager, guest_of(host))
        check_places(manager, guest_of(host))

    return wrapped


def check_places(manager: Manager, guest: FakeGuest) -> None:
    """Every thread has the CPU of its strand; a parked one shares those of its domain."""
    given = bindings(manager)
    assert guest.vcpus == len(given.plugged)
    assert guest.placement == manager.host.placement(given)
    own = manager.host.size.cpus_of(given.held)
    for vid in given.parked:
        assert guest.placement.vcpus[vid] == own
    assert guest.placement.vcpu_quota == len(given.held) / 4


def test_cpus_come_and_go_while_the_guest_runs(tmp_path: Path) -> None:
    """Plugged and woken; put to sleep and parked; woken again before another one is plugged."""

    async def work(host: FakeHost, manager: Manager, guest: FakeGuest) -> None:
        free = len(manager.host.partition().free_strands)
        await manager.vcpus.add("ldg1", 2)
        assert (vids(manager), guest.vcpus, guest.offline) == ([0, 1, 2, 3], 4, set())
        check_places(manager, guest)
        await manager.vcpus.remove("ldg1", 3)
        assert (vids(manager), bindings(manager).parked, guest.vcpus) == ([0], (1, 2, 3), 4)
        assert guest.offline == {1, 2, 3}
        assert len(manager.host.partition().free_strands) == free + 1, "their strands are free for others"
        check_places(manager, guest)
        await manager.vcpus.set("ldg1", 5)
        assert (vids(manager), bindings(manager).parked) == ([0, 1, 2, 3, 4], ())
        assert (guest.vcpus, guest.offline) == (5, set())

    at_desk(tmp_path, with_guest(work))  # type: ignore[arg-type]


def test_a_guest_that_does_it_by_itself_needs_no_agent(tmp_path: Path) -> None:
    """It is seen to have started them; but without an agent nothing can be taken back."""

    async def work(host: FakeHost, manager: Manager, guest: FakeGuest) -> None:
        guest.agent.is_there, guest.wakes_vcpus = False, True
        await manager.vcpus.add("ldg1", 1)
        assert (vids(manager), guest.started) == ([0, 1, 2], {0, 1, 2})
        with pytest.raises(HostError) as caught:
            await manager.vcpus.remove("ldg1", 1)
        assert caught.value.code == "no-agent"
        assert "run qemu-guest-agent in the guest, or stop the domain first" in caught.value.message
        assert (vids(manager), bindings(manager).parked) == ([0, 1, 2], ())

    at_desk(tmp_path, with_guest(work))  # type: ignore[arg-type]


def test_a_guest_that_does_not_wake_them_is_told_of(tmp_path: Path) -> None:
    """The domain has them all the same."""

    async def work(host: FakeHost, manager: Manager, guest: FakeGuest) -> None:
        guest.agent.is_there = False
        with pytest.raises(HostError) as caught:
            await manager.vcpus.add("ldg1", 2)
        assert caught.value.code == "partial-success"
        assert "was given 2 virtual CPUs, and its guest has brought 0 online" in caught.value.message
        assert "(cpu2, cpu3)" in caught.value.message
        assert caught.value.details == {"asked": 2, "done": 0}
        assert vids(manager) == [0, 1, 2, 3]

    at_desk(tmp_path, with_guest(work))  # type: ignore[arg-type]


def test_what_can_be_taken_is_taken(tmp_path: Path) -> None:
    """A CPU that is busy, or the first one, stays; the command says how many went."""

    async def work(host: FakeHost, manager: Manager, guest: FakeGuest) -> None:
        guest.agent.busy = {3}
        await manager.vcpus.remove("ldg1", 1)
        assert (vids(manager), bindings(manager).parked) == ([0, 1, 3], (2,)), "another one was asked"
        with pytest.raises(HostError) as caught:
            await manager.vcpus.set("ldg1", 1)
        assert (caught.value.code, caught.value.details) == ("partial-success", {"asked": 2, "done": 1})
        assert "was to give back 2 virtual CPUs, and its guest has let go of 1" in caught.value.message
        assert (vids(manager), bindings(manager).parked) == ([0, 3], (1, 2))
        check_places(manager, guest)
        with pytest.raises(HostError, match="let go of none"):
            await manager.vcpus.set("ldg1", 1)
        assert vids(manager) == [0, 3]

    at_desk(tmp_path, with_guest(work, 4))  # type: ignore[arg-type]


def test_on_kvm_they_are_really_unplugged(tmp_path: Path) -> None:
    """The last one first, until the guest keeps one."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.vcpus.set("ldg1", 4)
        bound = await manager.life.bind("ldg1")
        machine = bindings(manager).machine
        assert machine is not None
        kvm = replace(machine, accelerator="kvm")
        assert why_parked(machine)
        assert not why_parked(kvm)
        manager.host.save(replace(bound, bindings=replace(bindings(manager), machine=kvm)))
        await manager.life.start("ldg1")
        guest = guest_of(host)
        guest.agent.is_there = False  # nobody is asked: the guest hears of it through ACPI
        await manager.vcpus.remove("ldg1", 2)
        assert (vids(manager), bindings(manager).parked, guest.vcpus) == ([0, 1], (), 2)
        check_places(manager, guest)
        guest.keeps_vcpus = True
        with pytest.raises(HostError, match="let go of none"):
            await manager.vcpus.remove("ldg1", 1)
        assert (vids(manager), guest.vcpus) == ([0, 1], 2)
        guest.wakes_vcpus, guest.keeps_vcpus = True, False
        await manager.vcpus.add("ldg1", 3)
        assert (vids(manager), guest.vcpus) == ([0, 1, 2, 3, 4], 5)
        check_places(manager, guest)

    at_desk(tmp_path, work)


def test_a_guest_that_boots_again_does_not_keep_what_was_parked(tmp_path: Path) -> None:
    """It wakes all that its machine has; as soon as its agent answers they are put to sleep again."""

    async def work(host: FakeHost, manager: Manager, guest: FakeGuest) -> None:
        await manager.vcpus.remove("ldg1", 2)
        guest.agent.is_there = False
        await guest.reset()
        await asyncio.sleep(30)
        assert guest.offline == set()
        check_places(manager, guest)
        guest.agent.is_there = True
        await asyncio.sleep(5)
        assert guest.offline == {2, 3}
        assert vids(manager) == [0, 1]

    at_desk(tmp_path, with_guest(work, 4))  # type: ignore[arg-type]


def test_a_restart_of_the_manager_changes_nothing(tmp_path: Path) -> None:
    """And one in the middle of a change finds out how far it came."""

    async def work(host: FakeHost, manager: Manager, guest: FakeGuest) -> None:
        await manager.vcpus.remove("ldg1", 1)
        before = manager.host.store.domain("ldg1")
        await host.restart()
        assert host.manager is not None
        assert host.manager.host.store.domain("ldg1") == before
        await host.manager.vcpus.add("ldg1", 2)
        assert guest.offline == set()
        await guest.plug_vcpu()  # written down by nobody
        await host.restart()
        known = host.manager.host.store.domain("ldg1").bindings
        assert known is not None
        assert (len(known.vcpus), known.parked) == (5, (5,))

    at_desk(tmp_path, with_guest(work, 4))  # type: ignore[arg-type]


def test_a_stopped_guest_starts_without_what_was_parked(tmp_path: Path) -> None:
    """Its machine is made anew; meanwhile the bound domain can be changed freely."""

    async def work(host: FakeHost, manager: Manager, guest: FakeGuest) -> None:
        guest.agent.busy = {3}
        await manager.vcpus.remove("ldg1", 2)
        assert (vids(manager), bindings(manager).parked) == ([0, 3], (1, 2))
        await manager.life.stop("ldg1", force=True)
        await manager.life.start("ldg1")
        assert (vids(manager), bindings(manager).parked, guest_of(host).vcpus) == ([0, 1], (), 2)

    at_desk(tmp_path, with_guest(work, 4))  # type: ignore[arg-type]


def test_more_than_the_machine_was_made_for(tmp_path: Path) -> None:
    """A bound domain gets a larger machine; one that runs on a machine from before cannot be changed."""

    async def work(host: FakeHost, manager: Manager) -> None:
        bound = await manager.life.bind("ldg1")
        machine = bindings(manager).machine
        assert machine is not None
        small = replace(machine, max_vcpus=2)
        manager.host.save(replace(bound, bindings=replace(bindings(manager), machine=small)))
        changed = await manager.vcpus.set("ldg1", 3)
        assert changed.bindings is not None
        assert changed.bindings.machine == replace(machine, max_vcpus=3)
        old = replace(machine, max_vcpus=0)
        manager.host.save(replace(changed, bindings=replace(changed.bindings, machine=old)))
        await manager.life.start("ldg1")
        with pytest.raises(RequestError, match="was bound by an earlier release"):
            await manager.vcpus.set("ldg1", 4)
        assert vids(manager) == [0, 1, 2]

    at_desk(tmp_path, work)


def test_whole_cores_while_the_guest_runs(tmp_path: Path) -> None:
    """Its virtual CPUs move together; those that are missing come, and the other core is nobody else's."""

    async def work(host: FakeHost, manager: Manager, guest: FakeGuest) -> None:
        def cores() -> set[int]:
            return {vcpu.core for vcpu in bindings(manager).vcpus}

        await manager.vcpus.change("ldg1", CpuChange("set", Unit.CORES, 1))
        assert (vids(manager), cores(), guest.offline) == ([0, 1, 2, 3], {1}, set())
        check_places(manager, guest)
        with pytest.raises(LdomsError) as caught:
            await manager.vcpus.add("ldg1", 1)
        assert caught.value.code == "whole-core"
        with pytest.raises(LdomsError) as caught:
            await manager.vcpus.change("ldg1", CpuChange("add", Unit.CORES, 1))
        assert caught.value.code == "no-cores"

    at_desk(tmp_path, with_guest(work))  # type: ignore[arg-type]


def test_named_cores_while_the_guest_runs(tmp_path: Path) -> None:
    """Its virtual CPUs move to just these; nobody else is given them, nor what it still runs on."""

    async def work(host: FakeHost, manager: Manager, guest: FakeGuest) -> None:
        async def name(action: str, *core_ids: int) -> None:
            await manager.vcpus.change("ldg1", CpuChange(action, Unit.CORES, core_ids=core_ids))

        def has() -> tuple[set[int], tuple[int, ...]]:
            cores = {vcpu.core for vcpu in bindings(manager).vcpus}
            assert bindings(manager).held == {strand for core in cores for strand in range(core * 4, core * 4 + 4)}
            return cores, manager.host.store.domain("ldg1").constraints.core_ids

        with pytest.raises(NoResources, match="cannot get core 0: LDom primary has strands of it"):
            await name("set", 0)
        await name("set", 1)
        assert (vids(manager), has()) == ([0, 1, 2, 3], ({1}, (1,)))
        check_places(manager, guest)
        await manager.vcpus.set("primary", 1)
        with pytest.raises(NoResources):
            await name("add", 0)
        await manager.life.stop("ldg1", force=True)
        await manager.life.unbind("ldg1")
        await manager.vcpus.change("primary", CpuChange("set", Unit.CORES, core_ids=(1,)))
        with pytest.raises(NoResources, match="cannot get core 1: LDom primary"):
            await manager.life.bind("ldg1")
        await name("set", 0)
        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        assert has() == ({0}, (0,))

    at_desk(tmp_path, with_guest(work))  # type: ignore[arg-type]


def with_four_cores(work: Callable[[Manager, FakeGuest], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Work at a host of four cores, where ldg1 runs on cores 1 and 2, which were named."""

    async def wrapped(host: FakeHost, manager: Manager) -> None:
        manager.host.facts = replace(manager.host.facts, size=replace(manager.host.size, cpus=(0, 1, 2, 3)))
        await manager.vcpus.change("ldg1", CpuChange("set", Unit.CORES, core_ids=(1, 2)))
        await manager.life.bind("ldg1")
        await manager.life.start("ldg1")
        await work(manager, guest_of(host))
        check_places(manager, guest_of(host))

    return wrapped


MOVED = CpuChange("set", Unit.CORES, core_ids=(3,))


def test_another_core_in_place_of_two(tmp_path: Path) -> None:
    """The guest moves when it has let go of enough."""

    async def work(manager: Manager, guest: FakeGuest) -> None:
        await manager.vcpus.change("ldg1", MOVED)
        assert (bindings(manager).held, vids(manager)) == ({12, 13, 14, 15}, [0, 1, 2, 3])

    at_desk(tmp_path, with_four_cores(work))


def test_a_guest_that_keeps_more_keeps_a_core_for_it(tmp_path: Path) -> None:
    """Beside the one that was named; and one that lets go of none stays where it is."""

    async def work(manager: Manager, guest: FakeGuest) -> None:
        before = manager.host.store.domain("ldg1")
        guest.agent.busy = set(range(8))
        with pytest.raises(HostError, match="let go of none"):
            await manager.vcpus.change("ldg1", MOVED)
        guest.agent.is_there = False
        with pytest.raises(HostError, match="run qemu-guest-agent in the guest"):
            await manager.vcpus.change("ldg1", MOVED)
        assert manager.host.store.domain("ldg1") == before, "nothing is held for a change that was not made"
        guest.agent.is_there, guest.agent.busy = True, {1, 2, 3, 4}
        with pytest.raises(HostError, match="let go of 3"):
            await manager.vcpus.change("ldg1", MOVED)
        assert manager.host.store.domain("ldg1").constraints.core_ids == (1, 3)
        assert bindings(manager).held == {4, 5, 6, 7, 12, 13, 14, 15}
        assert vids(manager) == [0, 1, 2, 3, 4]

    at_desk(tmp_path, with_four_cores(work))


def test_what_was_held_for_a_broken_change_is_given_back(tmp_path: Path) -> None:
    """The manager was killed in the middle of it."""

    async def work(manager: Manager, guest: FakeGuest) -> None:
        domain = manager.host.store.domain("ldg1")
        manager.host.save(replace(domain, bindings=replace(bindings(manager), idle=(12, 13, 14, 15))))
        await manager.vcpus.start()
        assert manager.host.store.domain("ldg1") == domain

    at_desk(tmp_path, with_four_cores(work))


def test_properties_of_cores(tmp_path: Path) -> None:
    """What is refused says why; threading turns the same cores into other virtual CPUs."""

    async def work(host: FakeHost, manager: Manager) -> None:
        async def refused(code: str, **properties: str) -> None:
            given = {name.replace("_", "-"): value for name, value in properties.items()}
            with pytest.raises(LdomsError) as caught:
                await manager.domains.set("ldg1", given)
            assert caught.value.code == code, caught.value.message

        await refused("bad-property", max_cores="0")
        await refused("bad-property", max_cores="few")
        await refused("bad-property", threading="fast")
        await refused("whole-core", threading="max-ipc")
        await manager.vcpus.change("ldg1", CpuChange("set", Unit.CORES, 2))
        await refused("max-cores", max_cores="1")
        await manager.domains.set("ldg1", {"threading": "max-ipc", "max-cores": "2"})
        constraints = manager.host.store.domain("ldg1").constraints
        assert (constraints.vcpus, constraints.whole_core, constraints.max_cores) == (2, True, 2)
        with pytest.raises(LdomsError) as caught:
            await manager.vcpus.change("ldg1", CpuChange("add", Unit.CORES, 1))
        assert caught.value.code == "max-cores"
        await manager.vcpus.change("ldg1", CpuChange("remove", Unit.CORES, 1))
        await manager.life.bind("ldg1")
        assert len(bindings(manager).held) == 4
        await refused("domain-bound", threading="max-throughput")
        await manager.life.unbind("ldg1")
        await manager.domains.set("ldg1", {"threading": "", "max-cores": "unlimited"})
        constraints = manager.host.store.domain("ldg1").constraints
        assert (constraints.vcpus, constraints.whole_core, constraints.max_cores) == (4, True, 0)

    at_desk(tmp_path, work)


def test_the_control_domain_changes_at_once(tmp_path: Path) -> None:
    """What QEMU's other threads may use follows, also in whole cores, also with a guest there."""

    async def work(host: FakeHost, manager: Manager, guest: FakeGuest) -> None:
        await manager.vcpus.set("primary", 1)
        assert host.engine.control is not None
        assert (host.engine.control.cpus, host.engine.control.quota) == ({0}, 0.25)
        await manager.vcpus.change("primary", CpuChange("set", Unit.CORES, 1))
        assert (host.engine.control.cpus, host.engine.control.quota) == ({0}, 1.0)

    at_desk(tmp_path, with_guest(work))  # type: ignore[arg-type]
