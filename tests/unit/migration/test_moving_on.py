"""A domain that has just arrived, and leaves again before all is done about its arrival: one migration at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.states import RunState
from ldoms.migration.peer import Credentials
from ldoms.model.migration import GuestClock, MigrationOptions, MigrationRecord, Role
from ldoms.model.operation import OperationStatus
from unit.migration.harness import DOMAIN, FakeHost, Gates, Pair, migrating

GATES = ("source-prepare", "source-copy", "source-suspend", "source-handing-off", "target-taken", "source-peer-took")


async def never(guest: Guest, *, keeps_time: bool) -> GuestClock | None:
    """The guest agent takes its time."""
    await asyncio.sleep(1_000)
    return None


async def slowly(guest: Guest, *, keeps_time: bool) -> GuestClock | None:
    """It answers in the end."""
    await asyncio.sleep(5)
    return GuestClock(2.0, 0.0)


async def arrive(pair: Pair) -> None:
    """Move the domain to t4-2."""
    operation = await pair.wait(pair.migrate())
    assert operation.status is OperationStatus.SUCCESS


def leave(pair: Pair, password: str = "secret") -> None:
    """Begin to move it back."""
    assert pair.target.manager is not None
    pair.target.manager.migrations.migrate(
        DOMAIN, MigrationOptions("t4-1", user="tracy"), Credentials("tracy", password), "root"
    )


def arrival(host: FakeHost) -> MigrationRecord:
    """The record of the domain's way to that host."""
    return next(record for record in host.store.migrations() if record.role is Role.TARGET)


@pytest.mark.parametrize("gate", GATES)
def test_a_restart_does_not_wake_what_is_leaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str) -> None:
    """Its arrival was never finished with; the restarted manager goes on with the departure, and with that alone."""

    async def work(pair: Pair) -> None:
        monkeypatch.setattr("ldoms.migration.target.correct_guest_clock", never)
        await arrive(pair)
        gates = Gates(monkeypatch)
        gates.closed = gate
        leave(pair)
        await gates.reached.wait()
        gates.open(crashed="")
        await pair.target.restart()
        await pair.settle()
        assert len(pair.runs_on()) == 1, pair.describe()

    migrating(tmp_path, work)


def test_a_departure_ends_what_is_left_of_the_arrival(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrival's record is settled before the departure touches the guest, and nothing of it comes later."""

    async def work(pair: Pair) -> None:
        monkeypatch.setattr("ldoms.migration.target.correct_guest_clock", never)
        await arrive(pair)
        assert not arrival(pair.target).settled
        gates = Gates(monkeypatch)
        gates.closed = "target-prepare"
        leave(pair)
        await gates.reached.wait()
        assert arrival(pair.target).settled
        gates.open()
        await pair.settle()
        assert pair.runs_on() == ["t4-1"]

    migrating(tmp_path, work)


def test_a_departure_that_is_refused_leaves_the_arrival_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest's clock is still set."""

    async def work(pair: Pair) -> None:
        monkeypatch.setattr("ldoms.migration.target.correct_guest_clock", slowly)
        await arrive(pair)
        leave(pair, password="wrong")
        await asyncio.sleep(2)
        assert not arrival(pair.target).settled
        await pair.settle()
        assert arrival(pair.target).settled
        assert pair.runs_on() == ["t4-2"]
        assert pair.source.store.migrations()[0].report.guest_clock == GuestClock(2.0, 0.0)

    migrating(tmp_path, work)


@pytest.mark.parametrize("gate", ["source-suspend", "source-handing-off"])
def test_a_late_question_does_not_wake_what_is_leaving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str
) -> None:
    """The old source asks once more for the verdict of the arrival: it gets it, and nothing follows from it."""

    async def work(pair: Pair) -> None:
        await arrive(pair)
        await pair.settle()
        await pair.target.restart()
        gates = Gates(monkeypatch)
        gates.closed = gate
        leave(pair)
        await gates.reached.wait()
        assert pair.target.manager is not None
        await pair.target.manager.target.finish(arrival(pair.target).id)
        guest = pair.target.guest
        assert guest is not None
        assert guest.run_state is not RunState.RUNNING, "the guest was resumed in the middle of its departure"
        gates.open()
        await pair.settle()
        assert pair.runs_on() == ["t4-1"]

    migrating(tmp_path, work)
