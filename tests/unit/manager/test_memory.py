"""Memory of a guest that runs: it takes and gives in its own time, and the account is right at every moment."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from ldoms.hypervisor.fake import FakeGuest
from ldoms.hypervisor.states import RunState
from ldoms.manager.manager import Manager
from ldoms.manager.memory_change import STALL_S
from ldoms.migration.peer import Credentials
from ldoms.model.domain import Bindings, Domain, MemoryBlock
from ldoms.model.errors import Busy, RequestError
from ldoms.model.migration import MigrationOptions
from ldoms.model.operation import Operation, OperationStatus
from unit.clock import run
from unit.manager.desk import at_desk, fake_host, furnish
from unit.migration.harness import DOMAIN, FakeHost, Pair, migrating


def guest_of(host: FakeHost) -> FakeGuest:
    guest = host.guest
    assert guest is not None
    return guest


def bindings_of(manager: Manager) -> Bindings:
    bindings = manager.host.store.domain(DOMAIN).bindings
    assert bindings is not None
    return bindings


async def over(manager: Manager, change: Domain | Operation) -> Operation:
    """The operation, once it is over."""
    assert isinstance(change, Operation)
    return await manager.host.operations.wait(change.id)


async def activate(manager: Manager) -> None:
    await manager.life.bind(DOMAIN)
    await manager.life.start(DOMAIN)


def test_a_guest_is_given_more_and_gives_it_back(tmp_path: Path) -> None:
    """It is reserved before it is added; it is listed where the guest sees it; what is given back is free."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await activate(manager)
        guest_of(host).added.step_mib = 128
        change = await manager.memory.add(DOMAIN, 512)
        assert manager.host.partition().free_memory_mib == 2560
        assert (await over(manager, change)).result == {"asked_mib": 512, "done_mib": 512, "memory_mib": 1536}
        assert guest_of(host).added.size_mib == 512
        assert bindings_of(manager).memory == (MemoryBlock(0, 4096, 1024), MemoryBlock(4096, 5120, 512))
        assert manager.host.store.domain(DOMAIN).constraints.memory_mib == 1536

        change = await manager.memory.set(DOMAIN, 1280)
        assert manager.host.partition().free_memory_mib == 2560, "it was given back before the guest had let it go"
        assert (await over(manager, change)).status is OperationStatus.SUCCESS
        assert manager.host.partition().free_memory_mib == 2816

        await over(manager, await manager.memory.remove(DOMAIN, 256))
        assert bindings_of(manager).memory == (MemoryBlock(0, 4096, 1024),)
        assert bindings_of(manager).boot_memory_mib == 0
        assert manager.host.partition().free_memory_mib == 3072

    at_desk(tmp_path, work)


def test_it_is_listed_while_it_goes_on(tmp_path: Path) -> None:
    """Flag `r`, and how far it is; others are told to wait, and how to stop it."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await activate(manager)
        guest_of(host).added.step_mib = 128
        change = await manager.memory.add(DOMAIN, 1024)
        await asyncio.sleep(0.18)
        (view,) = manager.listing.domains([DOMAIN])
        assert view.status.flags == "-nr---"
        assert view.status.memory_progress == 50
        for verb in (
            lambda: manager.memory.add(DOMAIN, 256),
            lambda: manager.life.stop(DOMAIN, force=True),
        ):
            with pytest.raises(Busy, match=r"operation memdr .* run 'ldm cancel-operation memdr ldg1'"):
                await verb()
        with pytest.raises(Busy, match="operation memdr"):
            manager.migrations.migrate(DOMAIN, MigrationOptions("t4-2"), Credentials("tracy", "secret"), "root")
        await over(manager, change)
        (view,) = manager.listing.domains([DOMAIN])
        assert (view.status.flags, view.status.memory_progress) == ("-n----", None)

    at_desk(tmp_path, work)


def test_a_guest_that_takes_nothing(tmp_path: Path) -> None:
    """It is not waited for for ever, and nothing is kept for it."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await activate(manager)
        guest_of(host).added.step_mib = 0
        began = asyncio.get_running_loop().time()
        ended = await over(manager, await manager.memory.add(DOMAIN, 512))
        assert STALL_S < asyncio.get_running_loop().time() - began < STALL_S + 2
        assert ended.error["code"] == "memory-partial"
        assert ended.error["message"] == (
            "the guest of LDom ldg1 has taken none of the 512M asked for: has it the driver virtio_mem?"
            " LDom ldg1 has 1024M now"
        )
        assert guest_of(host).added.requested_mib == 0
        assert manager.host.partition().free_memory_mib == 3072
        assert manager.host.store.domain(DOMAIN).constraints.memory_mib == 1024

    at_desk(tmp_path, work)


def test_a_guest_that_gives_back_a_part(tmp_path: Path) -> None:
    """Both amounts are told; it keeps whole steps, and may be asked again."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await activate(manager)
        await over(manager, await manager.memory.add(DOMAIN, 1024))
        guest_of(host).added.least_mib = 300
        ended = await over(manager, await manager.memory.remove(DOMAIN, 1024))
        assert ended.status is OperationStatus.FAILURE
        assert ended.error["message"].startswith(
            "the guest of LDom ldg1 has given back only 512M of the 1024M that were asked for"
        )
        assert ended.error["details"] == {"asked_mib": 1024, "done_mib": 512, "memory_mib": 1536}
        assert guest_of(host).added.requested_mib == 512
        assert (bindings_of(manager).memory_mib, manager.host.partition().free_memory_mib) == (1536, 2560)
        guest_of(host).added.least_mib = 0
        assert (await over(manager, await manager.memory.set(DOMAIN, 1024))).status is OperationStatus.SUCCESS
        assert manager.host.partition().free_memory_mib == 3072

    at_desk(tmp_path, work)


@pytest.mark.parametrize(("before", "wanted", "free"), [(1024, 2048, 2560), (2048, 1024, 2560)])
def test_what_was_changed_before_it_was_cancelled_stays(tmp_path: Path, before: int, wanted: int, free: int) -> None:
    """In whole steps; the rest is as if it had not been asked for."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await activate(manager)
        if before != 1024:
            await over(manager, await manager.memory.set(DOMAIN, before))
        guest_of(host).added.step_mib = 64
        change = await manager.memory.set(DOMAIN, wanted)
        while abs(guest_of(host).added.size_mib - (before - 1024)) < 448:
            await asyncio.sleep(0.01)
        await manager.memory.cancel(DOMAIN)
        ended = await over(manager, change)
        assert ended.status is OperationStatus.CANCELLED
        assert ended.error["message"].startswith("cancelled: only 512M of the 1024M that were asked for were ")
        await asyncio.sleep(5)
        added = guest_of(host).added
        assert (added.requested_mib, bindings_of(manager).memory_mib) == (512, 1536)
        assert manager.host.partition().free_memory_mib == free

    at_desk(tmp_path, work)


@pytest.mark.parametrize(("before", "wanted"), [(1024, 2048), (2048, 1024)])
@pytest.mark.parametrize("alive", [True, False])
def test_a_restart_of_the_manager_in_the_middle(tmp_path: Path, before: int, wanted: int, alive: bool) -> None:
    """The change goes on; if the guest has ended meanwhile, it is as if nothing had been asked for."""

    async def main() -> None:
        host = fake_host(tmp_path)
        manager = await host.start()
        await furnish(manager)
        await activate(manager)
        if before != 1024:
            await over(manager, await manager.memory.set(DOMAIN, before))
        guest = guest_of(host)
        guest.added.step_mib = 64
        change = await manager.memory.set(DOMAIN, wanted)
        assert isinstance(change, Operation)
        await asyncio.sleep(0.2)
        await host.stop()
        if not alive:
            guest.die()
        manager = await host.start()
        ended = await manager.host.operations.wait(change.id)
        memory = wanted if alive else before
        assert ended.status is (OperationStatus.SUCCESS if alive else OperationStatus.FAILURE), ended
        assert bindings_of(manager).memory_mib == memory
        assert manager.host.partition().free_memory_mib == 4096 - memory
        assert manager.host.store.domain(DOMAIN).constraints.memory_mib == memory
        await host.stop()

    run(main())


def test_a_guest_that_ends_in_the_middle(tmp_path: Path) -> None:
    """It has what it had before, and is started with that."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await activate(manager)
        guest_of(host).added.step_mib = 64
        change = await manager.memory.add(DOMAIN, 1024)
        await asyncio.sleep(0.2)
        guest_of(host).die()
        ended = await over(manager, change)
        assert ended.error["code"] == "guest-ended"
        assert bindings_of(manager).memory == (MemoryBlock(0, 4096, 1024),)
        assert manager.host.partition().free_memory_mib == 3072
        await manager.life.start(DOMAIN)
        assert (guest_of(host).spec.memory_mib, guest_of(host).spec.added_memory_mib) == (1024, 0)

    at_desk(tmp_path, work)


def test_the_next_start_makes_it_one_piece(tmp_path: Path) -> None:
    """The guest starts with all that it has, and the machine is still the one that it was bound with."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await activate(manager)
        await over(manager, await manager.memory.add(DOMAIN, 512))
        assert guest_of(host).spec.memory_mib == 1024
        await manager.life.stop(DOMAIN, force=True)
        await manager.life.start(DOMAIN)
        spec = guest_of(host).spec
        assert (spec.memory_mib, spec.memory_room_mib, spec.machine.memory_max_mib) == (1536, 6656, 8192)
        assert bindings_of(manager).memory == (MemoryBlock(0, 4096, 1024), MemoryBlock(1024, 5120, 512))

    at_desk(tmp_path, work)


def test_adjusted_changes(tmp_path: Path) -> None:
    """Active: the change is rounded; bound: the result."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.memory.add(DOMAIN, 6, adjusted=True)
        assert manager.host.store.domain(DOMAIN).constraints.memory_mib == 1280
        await manager.memory.set(DOMAIN, 1021)
        await activate(manager)
        assert (bindings_of(manager).memory_mib, manager.host.store.domain(DOMAIN).constraints.memory_mib) == (
            1024,
            1021,
        )
        await over(manager, await manager.memory.add(DOMAIN, 300, adjusted=True))
        assert bindings_of(manager).memory_mib == 1536
        await over(manager, await manager.memory.remove(DOMAIN, 300, adjusted=True))
        assert bindings_of(manager).memory_mib == 1280
        await manager.memory.set("primary", 4300, adjusted=True)
        assert manager.host.store.domain("primary").constraints.memory_mib == 4352

    at_desk(tmp_path, work)


def test_asking_for_what_it_has_is_no_change(tmp_path: Path) -> None:
    """There is nothing to wait for."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await activate(manager)
        assert isinstance(await manager.memory.set(DOMAIN, 1024), Domain)

    at_desk(tmp_path, work)


def test_changes_before_and_after_a_migration(tmp_path: Path) -> None:
    """The guest has its memory on the target, where it has seen it, and can be given and asked for more there."""

    async def work(pair: Pair) -> None:
        await over(pair.manager, await pair.manager.memory.add(DOMAIN, 512))
        assert (await pair.wait(pair.migrate(max_suspend_s=10.0))).status is OperationStatus.SUCCESS
        manager = pair.target.manager
        assert manager is not None
        guest = guest_of(pair.target)
        assert (guest.spec.memory_mib, guest.added.size_mib) == (1024, 512)
        assert bindings_of(manager).memory == (MemoryBlock(0, 4096, 1024), MemoryBlock(4096, 5120, 512))
        assert manager.host.partition().free_memory_mib == 2560
        await over(manager, await manager.memory.add(DOMAIN, 512))
        await over(manager, await manager.memory.remove(DOMAIN, 768))
        assert (guest.added.size_mib, manager.host.partition().free_memory_mib) == (256, 2816)
        back = manager.migrations.migrate(
            DOMAIN, MigrationOptions("t4-1", user="tracy", max_suspend_s=10.0), Credentials("tracy", "secret"), "root"
        )
        assert (await manager.host.operations.wait(back.id)).status is OperationStatus.SUCCESS
        assert guest_of(pair.source).added.size_mib == 256
        await over(pair.manager, await pair.manager.memory.set(DOMAIN, 1024))
        assert pair.manager.host.partition().free_memory_mib == 3072

    migrating(tmp_path, work)


def test_a_guest_with_added_memory_stands_still_no_longer_than_promised(tmp_path: Path) -> None:
    """Without KVM it is suspended for the whole copy; if that takes too long it goes on where it is."""

    async def work(pair: Pair) -> None:
        await over(pair.manager, await pair.manager.memory.add(DOMAIN, 512))
        pair.world.copy_s = 3.0
        move = pair.migrate(max_suspend_s=2.0)
        await asyncio.sleep(1.5)
        assert await guest_of(pair.source).state() is RunState.PAUSED
        ended = await pair.wait(move)
        assert ended.status is OperationStatus.FAILURE
        assert "not all of its memory has been sent, and 2000 ms are allowed" in ended.error["message"]
        await pair.settle()
        assert pair.runs_on() == ["t4-1"]
        pair.world.copy_s = 0.5
        moved = await pair.wait(pair.migrate(max_suspend_s=2.0))
        assert moved.status is OperationStatus.SUCCESS, moved.error
        assert pair.runs_on() == ["t4-2"]
        assert 0.5 < moved.result["report"]["stop_resume_s"] < 2.0

    migrating(tmp_path, work)


def test_the_target_must_have_what_was_added(tmp_path: Path) -> None:
    """The check counts what the guest has now, not what it was started with."""

    async def work(pair: Pair) -> None:
        await over(pair.manager, await pair.manager.memory.add(DOMAIN, 512))
        assert pair.target.manager is not None
        await pair.target.manager.memory.set("primary", 7168)
        ended = await pair.wait(pair.migrate())
        assert ended.status is OperationStatus.FAILURE
        assert "memory-amount" in [finding["rule"] for finding in ended.error["findings"]]
        await pair.target.manager.memory.set("primary", 4096)

    migrating(tmp_path, work)


@pytest.mark.parametrize("heard", [False, True])
def test_what_was_not_done_may_be_asked_for_again(tmp_path: Path, heard: bool) -> None:
    """QEMU did not answer: what was to be added is kept until it does, and the same command then is no idle word."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await activate(manager)
        guest = guest_of(host)
        guest.added.step_mib = 1
        change = await manager.memory.set(DOMAIN, 1536)
        if heard:
            await asyncio.sleep(1)
        guest.hangs = True
        ended = await over(manager, change)
        assert ended.error["code"] == "qemu-silent"
        assert "is kept for it" in ended.error["message"]
        assert manager.host.partition().free_memory_mib == 2560, "its guest may still take it"
        guest.hangs, guest.added.step_mib = False, 128
        await manager.host.operations.rest(DOMAIN)  # as every command does
        again = await manager.memory.set(DOMAIN, 1536)
        assert isinstance(again, Operation) is not heard, "it had been heard, and goes on"
        if isinstance(again, Operation):
            assert (await over(manager, again)).status is OperationStatus.SUCCESS
        while guest.added.size_mib < 512:
            assert await guest.added_memory()
        assert (guest.added.size_mib, bindings_of(manager).memory_mib) == (512, 1536)
        assert manager.host.store.domain(DOMAIN).constraints.memory_mib == 1536

    at_desk(tmp_path, work)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(("before", "wanted", "left"), [(1024, 2048, 1536), (2048, 1024, 1536)])
def test_the_account_follows_as_soon_as_qemu_answers(
    tmp_path: Path, before: int, wanted: int, left: int, restarted: bool
) -> None:
    """Nobody has to ask: the guest stays with what it has then, and others may have the rest."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await activate(manager)
        if before != 1024:
            await over(manager, await manager.memory.set(DOMAIN, before))
        guest = guest_of(host)
        guest.added.step_mib = 100
        change = await manager.memory.set(DOMAIN, wanted)
        while abs(guest.added.size_mib - (before - 1024)) < 300:
            await asyncio.sleep(0.01)
        guest.hangs = True
        assert (await over(manager, change)).error["code"] == "qemu-silent"
        guest.added.step_mib = 0
        guest.hangs = False
        if restarted:
            await host.restart()
            assert host.manager is not None
            manager = host.manager
        await asyncio.sleep(10)
        known = manager.host.store.domain(DOMAIN)
        assert known.bindings is not None
        assert (known.bindings.memory_mib, known.constraints.memory_mib) in ((left, left), (left + 256, left + 256))
        assert guest.added.requested_mib == known.bindings.memory_mib - 1024 >= guest.added.size_mib
        assert manager.host.partition().free_memory_mib == 4096 - known.bindings.memory_mib

    at_desk(tmp_path, work)


def test_a_guest_that_ended_silently_keeps_nothing(tmp_path: Path) -> None:
    """What was kept for it is free when it has gone."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await activate(manager)
        guest = guest_of(host)
        guest.added.step_mib = 0
        change = await manager.memory.set(DOMAIN, 1536)
        guest.hangs = True
        await over(manager, change)
        guest.die()
        await asyncio.sleep(10)
        assert bindings_of(manager).memory_mib == 1024
        assert manager.host.store.domain(DOMAIN).constraints.memory_mib == 1024
        assert manager.host.partition().free_memory_mib == 3072

    at_desk(tmp_path, work)


def test_a_machine_without_room_says_what_to_do(tmp_path: Path) -> None:
    """As those have that were bound by earlier versions without KVM."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await manager.life.bind(DOMAIN)
        domain = manager.host.store.domain(DOMAIN)
        assert domain.bindings is not None
        assert domain.bindings.machine is not None
        without = replace(domain.bindings, machine=replace(domain.bindings.machine, memory_max_mib=0))
        manager.host.save(replace(domain, bindings=without))
        await manager.life.start(DOMAIN)
        with pytest.raises(RequestError) as caught:
            await manager.memory.add(DOMAIN, 256)
        assert caught.value.code == "no-memory-room"
        assert "its machine was made without room for more; stop it to change its memory" in caught.value.message
        assert "and unbind and bind it to give its machine room" in caught.value.message
        assert "\n" not in caught.value.message

    at_desk(tmp_path, work)
