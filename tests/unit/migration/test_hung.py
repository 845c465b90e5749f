"""The source's QEMU falls silent in the last part of the copy: the guest is not forgotten, and nobody is misled."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ldoms.hypervisor.fake import FakeGuest
from ldoms.hypervisor.states import RunState
from ldoms.migration.copying import MemoryCopy
from ldoms.model.domain import DomainState, DomainView
from ldoms.model.errors import HostError, LdomsError
from ldoms.model.operation import Operation, OperationStatus
from unit.clock import run
from unit.migration.harness import DOMAIN, FakeHost, Gates, Pair, migrating


async def fall_silent(pair: Pair, monkeypatch: pytest.MonkeyPatch, *, gate: str = "source-suspend") -> Operation:
    """Begin a migration, hang the source's QEMU at a gate, and wait until the migration has failed."""
    gates = Gates(monkeypatch)
    gates.closed = gate
    operation = pair.migrate()
    await gates.reached.wait()
    assert pair.source.guest is not None
    pair.source.guest.hangs = True
    gates.open()
    return await pair.wait(operation)


def seen(host: FakeHost) -> DomainView:
    """The domain as the host lists it."""
    assert host.manager is not None
    (view,) = host.manager.listing.domains([DOMAIN])
    return view


@pytest.mark.parametrize("restarts", [False, True])
def test_the_guest_goes_on_whenever_its_qemu_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    """After an hour, too, and with another manager; meanwhile it is listed as suspended, with the flag `e`."""

    async def work(pair: Pair) -> None:
        operation = await fall_silent(pair, monkeypatch)
        assert operation.status is OperationStatus.FAILURE
        assert f"'ldm stop-domain -f {DOMAIN}'" in operation.error["message"]
        if restarts:
            await pair.source.restart()
        await asyncio.sleep(3600)
        view = seen(pair.source)
        assert (view.status.state, view.status.flags[5]) == (DomainState.SUSPENDED, "e")
        assert pair.source.guest is not None
        pair.source.guest.hangs = False
        await asyncio.sleep(20)
        view = seen(pair.source)
        assert (view.status.state, view.status.flags[5]) == (DomainState.ACTIVE, "-")
        assert pair.runs_on() == ["t4-1"]
        Gates(monkeypatch)
        assert (await pair.wait(pair.migrate())).status is OperationStatus.SUCCESS, "nothing is in the way of the next"

    migrating(tmp_path, work)


def test_nobody_takes_it_for_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another migration, and a cancellation, are refused, and told what helps; which does help."""

    async def work(pair: Pair) -> None:
        await fall_silent(pair, monkeypatch)
        for refused in (lambda: pair.manager.migrations.cancel(DOMAIN, force=True), lambda: moved(pair)):
            with pytest.raises(LdomsError, match="stop-domain -f") as error:
                await refused()
            assert error.value.code == "not-resumed"
        await pair.manager.life.stop(DOMAIN, force=True)
        await asyncio.sleep(20)
        view = seen(pair.source)
        assert (view.status.state, view.status.flags[5]) == (DomainState.BOUND, "-")
        await pair.manager.life.start(DOMAIN)
        assert pair.runs_on() == ["t4-1"]

    migrating(tmp_path, work)


def test_a_copy_that_does_not_let_itself_be_cancelled_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a silent link QEMU may not even answer: its guest, which stands still, does not wait for that."""

    async def no_answer(guest: FakeGuest) -> None:
        await asyncio.sleep(5.0)
        raise HostError("migrate_cancel: QEMU does not answer", code="qemu-silent")

    async def work(pair: Pair) -> None:
        pair.world.late_s = [60.0, 60.0]
        monkeypatch.setattr(FakeGuest, "cancel_migration", no_answer)
        clock, guest = asyncio.get_running_loop().time, pair.source.guest
        started = pair.migrate()
        assert guest is not None
        while guest.run_state is RunState.RUNNING:
            await asyncio.sleep(0.05)
        stopped_s = clock()
        while guest.run_state is not RunState.RUNNING:
            await asyncio.sleep(0.05)
        assert clock() - stopped_s < 2.5
        await pair.wait(started)

    migrating(tmp_path, work)


async def moved(pair: Pair) -> None:
    """Ask for another migration."""
    pair.migrate()


def test_a_guest_that_has_shut_down_meanwhile_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands still for a reason of its own is not for a migration to wake."""

    async def work(pair: Pair) -> None:
        await fall_silent(pair, monkeypatch)
        guest = pair.source.guest
        assert guest is not None
        guest.run_state, guest.hangs = RunState.SHUT_DOWN, False
        await asyncio.sleep(30)
        assert guest.run_state is RunState.SHUT_DOWN
        assert seen(pair.source).status.flags[5] == "-"

    migrating(tmp_path, work)


def test_a_domain_that_was_taken_back_by_force_is_not_handed_over_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manager is killed just after it has written that down: its next one goes on with that, not with the move."""

    async def main() -> None:
        pair = Pair(tmp_path)
        await pair.set_up()
        try:
            gates = Gates(monkeypatch)
            gates.closed = "source-handing-off"
            pair.migrate()
            await gates.reached.wait()
            pair.link.is_up = False
            gates.open()
            await asyncio.sleep(30)
            gates = Gates(monkeypatch)
            gates.closed = "source-reclaimed"
            cancelling = asyncio.create_task(pair.manager.migrations.cancel(DOMAIN, force=True))
            await gates.reached.wait()
            cancelling.cancel()
            await pair.source.stop()
            gates.open(crashed="source")
            pair.link.is_up = True
            await pair.source.start()
            await pair.settle()
            assert pair.runs_on() == ["t4-1"], pair.describe()
            pair.check_sound()
        finally:
            await pair.tear_down()

    run(main())


@pytest.mark.parametrize("step", ["send", "switch_over"])
def test_a_mistake_of_ours_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """An exception that nobody expects leaves no guest suspended, no target waiting, and the next attempt free."""

    async def fails(*arguments: object, **more: object) -> bool:
        raise ZeroDivisionError("a mistake")

    async def work(pair: Pair) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(MemoryCopy, step, fails)
            operation = await pair.wait(pair.migrate())
        assert operation.error["code"] == "internal"
        assert pair.runs_on() == ["t4-1"]
        assert pair.target.guest is None
        assert not any(host.store.migrations(unsettled=True) for host in (pair.source, pair.target))
        assert (await pair.wait(pair.migrate())).status is OperationStatus.SUCCESS

    migrating(tmp_path, work)
