"""The failure of a master, and what becomes of its slaves; guests that panic, and are made to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ldoms.hypervisor.fake import FakeGuest
from ldoms.manager.failure import FailurePolicies
from ldoms.manager.manager import Manager
from ldoms.model.domain import DomainState
from ldoms.model.errors import RequestError
from ldoms.model.events import EventKind
from ldoms.model.operation import OperationStatus
from unit.manager.desk import at_desk
from unit.migration.harness import FakeHost

Work = Callable[[FakeHost, Manager, dict[str, FakeGuest]], Awaitable[None]]


def in_family(directory: Path, work: Work, **policies: str) -> None:
    """Do some work with ldg1, the master of ldg2, the master of ldg3; all of them run."""

    async def main(host: FakeHost, manager: Manager) -> None:
        for number in (2, 3):
            name = f"ldg{number}"
            await manager.domains.add(name, {"master": f"ldg{number - 1}"})
            await manager.vcpus.set(name, 1)
            await manager.memory.set(name, 256)
        manager.concentrators.add("primary-vcc1", "primary", "5100-5101")
        for name, policy in policies.items():
            await manager.domains.set(name, {"failure-policy": policy})
        guests = {}
        for name in ("ldg1", "ldg2", "ldg3"):
            bound = await manager.life.bind(name)
            await manager.life.start(name)
            guests[name] = host.engine.guests[bound.uuid]
        await work(host, manager, guests)

    at_desk(directory, main)


def states(manager: Manager) -> list[str]:
    """What ldg1, ldg2 and ldg3 do."""
    return [view.status.state.value for view in manager.listing.domains(["ldg1", "ldg2", "ldg3"])]


def applied(host: FakeHost) -> list[tuple[str, object, object]]:
    """The policies that were carried out: on whom, because of whom, which."""
    return [
        (event.domain, event.data["master"], event.data["policy"])
        for event in host.store.events()
        if event.kind is EventKind.FAILURE_POLICY_APPLIED
    ]


def kinds(host: FakeHost, name: str) -> list[EventKind]:
    return [event.kind for event in host.store.events() if event.domain == name]


def test_a_crash_stops_the_slaves_as_far_as_the_policies_go(tmp_path: Path) -> None:
    """A slave that was stopped by a policy has failed, too: its own policy counts for its slaves."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        guests["ldg1"].die()
        await asyncio.sleep(1)
        assert applied(host) == [("ldg2", "ldg1", "stop"), ("ldg3", "ldg2", "reset")]
        assert states(manager) == ["bound", "bound", "active"]
        assert kinds(host, "ldg2")[-1] is EventKind.DOMAIN_STOPPED
        assert kinds(host, "ldg3")[-1] is EventKind.DOMAIN_RESET

    in_family(tmp_path, work, ldg1="stop", ldg2="reset")


def test_a_panic_is_a_failure_once(tmp_path: Path) -> None:
    """Not again when the guest's QEMU ends after it; but again when it has started anew and panics once more."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        guests["ldg1"].panic()
        await asyncio.sleep(1)
        assert guests["ldg2"].interrupted == 1
        guests["ldg1"].panic()
        await asyncio.sleep(1)
        assert guests["ldg2"].interrupted == 1
        await guests["ldg1"].reset()
        guests["ldg1"].panic()
        await asyncio.sleep(1)
        assert guests["ldg2"].interrupted == 2
        guests["ldg1"].die()
        await asyncio.sleep(1)
        assert guests["ldg2"].interrupted == 2
        assert states(manager) == ["bound", "active", "active"]
        assert kinds(host, "ldg1").count(EventKind.DOMAIN_PANICKED) == 3

    in_family(tmp_path, work, ldg1="panic")


def test_a_panic_by_policy_is_no_second_failure(tmp_path: Path) -> None:
    """The whole chain is dealt with from the first one; the panic that the policy causes does not begin another."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        guests["ldg1"].die()
        await asyncio.sleep(1)
        assert applied(host) == [("ldg2", "ldg1", "panic"), ("ldg3", "ldg2", "panic")]
        assert (guests["ldg2"].interrupted, guests["ldg3"].interrupted) == (1, 1)

    in_family(tmp_path, work, ldg1="panic", ldg2="panic")


def test_an_end_that_was_wanted_is_no_failure(tmp_path: Path) -> None:
    """Stopped here, shut down by itself, or started anew by itself."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        await guests["ldg1"].reset()
        await manager.life.stop("ldg1", force=True)
        await guests["ldg2"].press_power_button()
        await asyncio.sleep(1)
        assert applied(host) == []
        assert states(manager) == ["bound", "bound", "active"]

    in_family(tmp_path, work, ldg1="stop", ldg2="stop")


def test_what_ends_while_no_manager_looks_is_no_failure(tmp_path: Path) -> None:
    """It may have been shut down in good order; nothing is done to others on a guess."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        await host.stop()
        guests["ldg1"].die()
        manager = await host.start()
        await asyncio.sleep(1)
        assert applied(host) == []
        assert states(manager) == ["bound", "active", "active"]

    in_family(tmp_path, work, ldg1="stop")


def test_a_slave_that_is_busy_is_waited_for(tmp_path: Path) -> None:
    """For a minute; one that is not active is left alone."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        with manager.host.operations.holding("ldg2", "set-vcpu"):
            guests["ldg1"].die()
            await asyncio.sleep(30)
            assert states(manager)[1] == "active"
        await asyncio.sleep(5)
        assert states(manager)[1] == "bound"
        assert applied(host) == [("ldg2", "ldg1", "stop")]
        await manager.life.start("ldg1")
        await asyncio.sleep(1)
        assert host.guest is not None
        with manager.host.operations.holding("ldg3", "set-vcpu"):
            await asyncio.sleep(1)

    in_family(tmp_path, work, ldg1="stop")


def test_a_policy_that_waits_survives_a_restart(tmp_path: Path) -> None:
    """Of the manager, once or often; it is carried out once, and then it is forgotten."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        with manager.host.operations.holding("ldg2", "set-vcpu"):
            guests["ldg1"].die()
            await asyncio.sleep(5)
            await host.stop()
        manager = await host.start()
        with manager.host.operations.holding("ldg2", "set-vcpu"):
            await asyncio.sleep(5)
            await host.stop()
        assert applied(host) == []
        manager = await host.start()
        await asyncio.sleep(5)
        assert applied(host) == [("ldg2", "ldg1", "reset")]
        await host.stop()
        manager = await host.start()
        await asyncio.sleep(5)
        assert len(applied(host)) == 1
        assert states(manager) == ["bound", "active", "active"]

    in_family(tmp_path, work, ldg1="reset")


def test_a_slave_that_has_started_anew_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure of its master was before that: what was to be done about it means another guest."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        with manager.host.operations.holding("ldg2", "set-vcpu"):
            guests["ldg1"].die()
            await asyncio.sleep(5)
            await host.stop()
        guests["ldg2"].die()
        monkeypatch.setattr(FailurePolicies, "resume", lambda self: None)
        manager = await host.start()
        await manager.life.start("ldg2")
        await host.stop()
        monkeypatch.undo()
        manager = await host.start()
        await asyncio.sleep(5)
        assert applied(host) == []
        assert states(manager) == ["bound", "active", "active"]

    in_family(tmp_path, work, ldg1="stop")


# ------------------------------------------------------------------------------------------ panic-domain


def test_a_guest_is_made_to_panic(tmp_path: Path) -> None:
    """After its memory was written, if that is asked; it starts anew as it wishes, and its time begins anew."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        core = tmp_path / "ldg1.core"
        began = host.store.domain("ldg1").started_at
        operation = manager.panics.begin("ldg1", str(core), "root")
        over = await manager.host.operations.wait(operation.id)
        assert (over.status, dict(over.result)) == (OperationStatus.SUCCESS, {"core": str(core)})
        assert core.read_text() == "core of ldg1: 0\n"
        assert guests["ldg1"].interrupted == 1
        assert states(manager)[0] == "active"
        assert host.store.domain("ldg1").started_at > began
        assert kinds(host, "ldg1")[-2:] == [EventKind.DOMAIN_PANICKED, EventKind.DOMAIN_RESET]

    in_family(tmp_path, work)


def test_a_guest_that_does_not_care_is_told_of(tmp_path: Path) -> None:
    """The error says what its kernel lacks; it is the domain's own again."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        guests["ldg1"].ignores_nmi = True
        operation = manager.panics.begin("ldg1", "", "root")
        over = await manager.host.operations.wait(operation.id)
        assert over.error["code"] == "no-panic"
        assert "sysctl kernel.unknown_nmi_panic=1" in over.error["message"]
        await manager.life.stop("ldg1", force=True)

    in_family(tmp_path, work)


def test_a_core_that_cannot_be_written_keeps_the_guest_from_panicking(tmp_path: Path) -> None:
    """What was asked for first did not work; nothing of it is left."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        target, part = tmp_path / "full", tmp_path / "full.part"
        operation = manager.panics.begin("ldg1", str(target), "root")
        part.mkdir()
        over = await manager.host.operations.wait(operation.id)
        part.rmdir()
        assert over.status is OperationStatus.FAILURE
        assert guests["ldg1"].interrupted == 0

    in_family(tmp_path, work)


@pytest.mark.parametrize(
    ("dump_s", "words"),
    [(1000.0, "cancelled: the memory of LDom ldg1 was not written"), (10000.0, "was not written within 3600 s")],
)
def test_a_core_takes_no_longer_than_it_may(tmp_path: Path, dump_s: float, words: str) -> None:
    """It can be called off, and has a limit; nothing is left of it, and the guest is not made to panic."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        guests["ldg1"].dump_s = dump_s
        core = tmp_path / "ldg1.core"
        operation = manager.panics.begin("ldg1", str(core), "root")
        await asyncio.sleep(10)
        assert [path.name for path in tmp_path.glob("*core*")] == ["ldg1.core.part"]
        assert manager.host.operations.get(operation.id).may_cancel
        if dump_s == 1000.0:
            manager.host.operations.cancel(operation.id)
        over = await manager.host.operations.wait(operation.id)
        assert words in over.error["message"]
        assert list(tmp_path.glob("*core*")) == []
        assert guests["ldg1"].interrupted == 0
        await manager.life.stop("ldg1", force=True)

    in_family(tmp_path, work)


def test_a_core_ends_with_the_manager(tmp_path: Path) -> None:
    """Nothing of it is left, not even after a crash; the operation is known to have failed."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        guests["ldg1"].dump_s = 1000.0
        core, part = tmp_path / "ldg1.core", tmp_path / "ldg1.core.part"
        for crashes in (False, True):
            operation = manager.panics.begin("ldg1", str(core), "root")
            await asyncio.sleep(10)
            await host.stop()
            assert not part.exists()
            if crashes:
                part.write_text("what a manager that was killed has left")
            manager = await host.start()
            assert not part.exists()
            over = manager.host.operations.get(operation.id)
            assert (over.status, over.error["code"]) == (OperationStatus.FAILURE, "restarted")
        assert guests["ldg1"].interrupted == 0
        assert manager.host.operations.holder("ldg1") == ""

    in_family(tmp_path, work)


@pytest.mark.parametrize(
    ("name", "core", "code", "words"),
    [
        ("primary", "", "control-domain", "LDom primary is the host itself"),
        ("ldg4", "", "not-found", "LDom ldg4 was not found"),
        ("ldg1", "core", "bad-path", "needs its full path, not 'core'"),
        ("ldg1", "/nowhere/core", "bad-path", "the directory /nowhere does not exist"),
        ("ldg1", "/etc/passwd", "file-exists", "/etc/passwd already exists"),
        ("ldg2", "", "domain-not-active", "LDom ldg2 is not active"),
    ],
)
def test_what_cannot_be_panicked(tmp_path: Path, name: str, core: str, code: str, words: str) -> None:
    """Nothing happens to any guest."""

    async def work(host: FakeHost, manager: Manager, guests: dict[str, FakeGuest]) -> None:
        await manager.life.stop("ldg2", force=True)
        with pytest.raises(RequestError, match=words) as caught:
            manager.panics.begin(name, core, "root")
        assert caught.value.code == code
        assert [guest.interrupted for guest in guests.values()] == [0, 0, 0]
        assert manager.listing.domains(["ldg1"])[0].status.state is DomainState.ACTIVE

    in_family(tmp_path, work)
