"""How domains are stopped: what the guest is asked, how long it is waited for, and what is left."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from ldoms.hypervisor.fake import FakeGuest
from ldoms.manager.manager import Manager
from ldoms.model.domain import DomainState
from ldoms.model.events import EventKind
from ldoms.model.operation import Operation, OperationStatus
from ldoms.model.stopping import STOP_S, StopMode, StopOptions
from unit.manager.desk import at_desk
from unit.migration.harness import FakeHost


async def active(host: FakeHost, manager: Manager) -> FakeGuest:
    """The guest of ldg1, which runs and has an agent that does not obey."""
    await manager.life.bind("ldg1")
    await manager.life.start("ldg1")
    assert host.guest is not None
    return host.guest


async def stop(manager: Manager, *arguments: Any, **more: Any) -> tuple[Operation, float]:
    """Stop ldg1; the operation when it is over, and how long it took."""
    clock = asyncio.get_running_loop().time
    began = clock()
    operation = manager.life.begin_stop("ldg1", StopOptions(*arguments, **more), "root")
    return await manager.host.operations.wait(operation.id), clock() - began


def state(manager: Manager) -> DomainState:
    (view,) = manager.listing.domains(["ldg1"])
    return view.status.state


def kinds(host: FakeHost) -> list[EventKind]:
    return [event.kind for event in host.store.events()]


def test_a_guest_that_obeys_leaves_its_domain_bound(tmp_path: Path) -> None:
    """Asked through its agent, or by the power button where it has none."""

    async def work(host: FakeHost, manager: Manager) -> None:
        for has_agent in (True, False):
            if has_agent:
                guest = await active(host, manager)
            else:
                await manager.life.start("ldg1")
                assert host.guest is not None
                guest = host.guest
            guest.agent.is_there, guest.agent.obeys = has_agent, True
            over, _ = await stop(manager)
            assert (over.status, over.kind, dict(over.result)) == (
                OperationStatus.SUCCESS,
                "stop-domain",
                {"notes": ()},
            )
            assert state(manager) is DomainState.BOUND
            assert kinds(host)[-1] is EventKind.DOMAIN_STOPPED

    at_desk(tmp_path, work)


def test_a_guest_that_does_not_obey_has_its_time_and_goes_on(tmp_path: Path) -> None:
    """100 seconds, in which it is shown as stopping and how far it is; then the error says what ends it."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await active(host, manager)
        operation = manager.life.begin_stop("ldg1", StopOptions(), "root")
        await asyncio.sleep(STOP_S / 2)
        now = manager.host.operations.get(operation.id)
        assert (now.phase, now.progress in (49, 50), state(manager)) == ("shutting down", True, DomainState.STOPPING)
        over = await manager.host.operations.wait(operation.id)
        assert over.status is OperationStatus.FAILURE
        assert over.error["code"] == "stop-timeout"
        assert "did not shut down within 100 s and goes on running; 'ldm stop-domain -f ldg1'" in over.error["message"]
        assert state(manager) is DomainState.ACTIVE

    at_desk(tmp_path, work)


def test_after_a_time_of_its_own_it_is_switched_off(tmp_path: Path) -> None:
    """As LDoms does with -t; with -h, or without an agent, it goes on."""

    async def work(host: FakeHost, manager: Manager) -> None:
        guest = await active(host, manager)
        over, took = await stop(manager, StopMode.HALT, 5.0)
        assert (over.error["code"], round(took)) == ("stop-timeout", 5)
        guest.agent.is_there = False
        guest.press_power_button = guest.state  # type: ignore[method-assign]
        over, took = await stop(manager, StopMode.SHUT_DOWN, 5.0)
        assert (over.error["code"], round(took)) == ("stop-timeout", 5)
        del guest.press_power_button  # type: ignore[method-assign]
        guest.agent.is_there = True
        over, took = await stop(manager, StopMode.SHUT_DOWN, 5.0)
        assert (over.status, round(took), state(manager)) == (OperationStatus.SUCCESS, 5, DomainState.BOUND)

    at_desk(tmp_path, work)


def test_quick_does_not_ask_in_good_order(tmp_path: Path) -> None:
    """The guest here would not obey that."""

    async def work(host: FakeHost, manager: Manager) -> None:
        await active(host, manager)
        over, took = await stop(manager, StopMode.QUICK)
        assert (over.status, round(took), state(manager)) == (OperationStatus.SUCCESS, 0, DomainState.BOUND)

    at_desk(tmp_path, work)


def test_a_restart_leaves_the_domain_active(tmp_path: Path) -> None:
    """By its agent it keeps its QEMU; without one it is shut down, and started again."""

    async def work(host: FakeHost, manager: Manager) -> None:
        guest = await active(host, manager)
        guest.agent.obeys = True
        over, _ = await stop(manager, StopMode.REBOOT)
        assert (over.status, state(manager)) == (OperationStatus.SUCCESS, DomainState.ACTIVE)
        assert (kinds(host)[-1], host.guest is guest) == (EventKind.DOMAIN_RESET, True)
        guest.agent.is_there = False
        over, _ = await stop(manager, StopMode.REBOOT)
        assert (over.status, state(manager)) == (OperationStatus.SUCCESS, DomainState.ACTIVE)
        assert kinds(host)[-2:] == [EventKind.DOMAIN_STOPPED, EventKind.DOMAIN_STARTED]
        assert host.guest is not guest

    at_desk(tmp_path, work)


def test_users_are_told_before(tmp_path: Path) -> None:
    """What cannot be shown is said afterwards, and does not keep the domain from being stopped."""

    async def work(host: FakeHost, manager: Manager) -> None:
        guest = await active(host, manager)
        over, _ = await stop(manager, StopMode.HALT, 1.0, "down in a minute")
        assert guest.agent.told == ["down in a minute"]
        guest.agent.is_there = False
        over, _ = await stop(manager, message="again")
        assert over.status is OperationStatus.SUCCESS
        assert list(over.result["notes"]) == [
            "the message was not shown to the users of LDom ldg1: it has no guest agent"
        ]

    at_desk(tmp_path, work)


def test_who_waits_no_more_leaves_a_domain_that_may_be_used(tmp_path: Path) -> None:
    """It is active and held by nobody; if its guest stops later, that is no crash."""

    async def work(host: FakeHost, manager: Manager) -> None:
        guest = await active(host, manager)
        operation = manager.life.begin_stop("ldg1", StopOptions(), "root")
        await asyncio.sleep(3)
        manager.host.operations.cancel(operation.id)
        over = await manager.host.operations.wait(operation.id)
        assert over.status is OperationStatus.CANCELLED
        assert "has been asked already and may still stop" in over.error["message"]
        assert state(manager) is DomainState.ACTIVE
        manager.domains.set_variables("ldg1", {"a": "b"})
        await guest.press_power_button()
        await asyncio.sleep(1)
        assert (state(manager), kinds(host)[-1]) == (DomainState.BOUND, EventKind.DOMAIN_STOPPED)

    at_desk(tmp_path, work)


def test_the_power_button_is_pressed_until_a_booting_guest_sees_it(tmp_path: Path) -> None:
    """Its firmware does not, and its kernel only when its drivers are there; one that is up for long is asked once."""

    async def work(host: FakeHost, manager: Manager) -> None:
        guest = await active(host, manager)
        guest.agent.is_there = guest.has_booted = False
        presses: list[float] = []

        async def press() -> None:
            presses.append(asyncio.get_running_loop().time())
            if guest.has_booted and len(presses) > 24:
                await FakeGuest.press_power_button(guest)

        guest.press_power_button = press  # type: ignore[method-assign]
        operation = manager.life.begin_stop("ldg1", StopOptions(), "root")
        await asyncio.sleep(20)
        guest.has_booted = True
        over = await manager.host.operations.wait(operation.id)
        assert over.status is OperationStatus.SUCCESS
        assert len(presses) == 25
        guest = await restarted(host, manager)
        guest.agent.is_there = False
        await asyncio.sleep(5)
        presses.clear()
        guest.has_booted = False
        guest.press_power_button = press  # type: ignore[method-assign]
        over, _ = await stop(manager, StopMode.HALT, 30.0)
        assert (over.error["code"], len(presses)) == ("stop-timeout", 10)  # what heeds the button comes after drivers
        presses.clear()
        manager.host.save(replace(manager.host.store.domain("ldg1"), started_at=1.0))
        guest.has_booted = False  # as it is for the press of a guest that does not care
        guest.press_power_button = press  # type: ignore[method-assign]
        over, _ = await stop(manager, StopMode.HALT, 30.0)
        assert (over.error["code"], len(presses)) == ("stop-timeout", 1)

    async def restarted(host: FakeHost, manager: Manager) -> FakeGuest:
        await manager.life.start("ldg1")
        assert host.guest is not None
        return host.guest

    at_desk(tmp_path, work)
