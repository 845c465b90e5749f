"""What is known of the software in a guest, without waiting for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ldoms.hypervisor.fake import FakeGuest
from ldoms.manager.manager import Manager
from ldoms.model.events import EventKind
from unit.manager.desk import at_desk
from unit.migration.harness import FakeHost


async def start(host: FakeHost, manager: Manager) -> FakeGuest:
    """The guest of ldg1, in its firmware."""
    await manager.life.bind("ldg1")
    await manager.life.start("ldg1")
    assert host.guest is not None
    host.guest.has_booted = False
    return host.guest


def shown(manager: Manager) -> tuple[str, str]:
    """Flags and software state of ldg1."""
    (view,) = manager.listing.domains(["ldg1"])
    return view.status.flags, view.status.softstate


def test_a_guest_is_in_transition_until_its_drivers_are_seen(tmp_path: Path) -> None:
    """And again after each restart; its system is known when its agent has said so, and forgotten with it."""

    async def work(host: FakeHost, manager: Manager) -> None:
        guest = await start(host, manager)
        assert shown(manager) == ("-t----", "")
        await asyncio.sleep(30)
        assert shown(manager) == ("-t----", "")
        guest.has_booted = True
        await asyncio.sleep(10)
        assert shown(manager) == ("-n----", "Fake OS 1 running")
        guest.has_booted = False
        await guest.reset()
        await asyncio.sleep(0)
        assert shown(manager) == ("-t----", "")
        guest.has_booted = True
        await asyncio.sleep(10)
        assert shown(manager) == ("-n----", "Fake OS 1 running")
        guest.panic()
        await asyncio.sleep(0)
        assert shown(manager)[1] == "panicked"

    at_desk(tmp_path, work)


def test_without_an_agent_nothing_is_claimed(tmp_path: Path) -> None:
    """The guest has booted, and that is all that is known; an agent that goes takes its word with it."""

    async def work(host: FakeHost, manager: Manager) -> None:
        guest = await start(host, manager)
        guest.agent.is_there, guest.has_booted = False, True
        await asyncio.sleep(10)
        assert shown(manager) == ("-n----", "")
        guest.agent.is_there = True
        await asyncio.sleep(70)
        assert shown(manager)[1] == "Fake OS 1 running"
        guest.agent.is_there = False
        await asyncio.sleep(70)
        assert shown(manager) == ("-n----", "")

    at_desk(tmp_path, work)


def test_a_restart_of_the_manager_looks_again(tmp_path: Path) -> None:
    """A guest that is found is not said to be booting; what it is, it says anew."""

    async def work(host: FakeHost, manager: Manager) -> None:
        guest = await start(host, manager)
        guest.has_booted = True
        await host.stop()
        manager = await host.start()
        assert shown(manager) == ("-n----", "")
        await asyncio.sleep(10)
        assert shown(manager) == ("-n----", "Fake OS 1 running")

    at_desk(tmp_path, work)


def test_a_guest_that_does_not_answer_holds_nobody_up(tmp_path: Path) -> None:
    """Listings show what was known last."""

    async def work(host: FakeHost, manager: Manager) -> None:
        guest = await start(host, manager)
        guest.has_booted = True
        await asyncio.sleep(10)
        guest.hangs = True
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(100)
        assert shown(manager) == ("-n----", "Fake OS 1 running")
        assert asyncio.get_running_loop().time() - before < 110

    at_desk(tmp_path, work)


def test_a_restart_that_firmware_does_once_more_is_one(tmp_path: Path) -> None:
    """SeaBIOS resets the machine again after a guest has; another restart later is one of its own."""

    async def work(host: FakeHost, manager: Manager) -> None:
        guest = await start(host, manager)
        for _ in range(2):
            guest.has_booted = True
            await asyncio.sleep(10)
            guest.has_booted = False
            await guest.reset()
            await asyncio.sleep(0.2)
            await guest.reset()
            await asyncio.sleep(0.2)
        resets = [event for event in host.store.events() if event.kind is EventKind.DOMAIN_RESET]
        assert len(resets) == 2

    at_desk(tmp_path, work)
