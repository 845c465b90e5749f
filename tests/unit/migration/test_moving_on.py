"""A domain that has just arrived, and leaves again before all is done about its arrival: one migration at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ldoms.hypervisor.engine import Guest, RunState
from ldoms.migration.peer import Credentials
from ldoms.model.migration import GuestClock, MigrationOptions, MigrationRecord, Role
from ldoms.model.operation import OperationStatus
from unit.clock import run
from unit.migration.harness import DOMAIN, FakeHost, Gates, Pair

GATES = ("source-prepare", "source-copy", "source-suspend", "source-handing-off", "target-taken", "source-peer-took")


async def never(guest: Guest) -> GuestClock | None:
    """The guest agent takes its time."""
    await asyncio.sleep(1_000)
    return None


async def arrive(pair: Pair) -> None:
    """Move the domain to t4-2."""
    operation = await pair.wait(pair.migrate())
    assert operation.status is OperationStatus.SUCCESS


def leave(pair: Pair) -> None:
    """Begin to move it back."""
    assert pair.target.manager is not None
    pair.target.manager.migrations.migrate(
        DOMAIN, MigrationOptions("t4-1", user="tracy"), Credentials("tracy", "secret"), "root"
    )


def arrival(host: FakeHost) -> MigrationRecord:
    """The record of the domain's way to that host."""
    return next(record for record in host.store.migrations() if record.role is Role.TARGET)


@pytest.mark.parametrize("gate", GATES)
def test_a_restart_does_not_wake_what_is_leaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str) -> None:
    """Its arrival was never finished with; the restarted manager goes on with the departure, and with that alone."""

    async def main() -> None:
        monkeypatch.setattr("ldoms.migration.target._set_clock", never)
        pair = Pair(tmp_path)
        await pair.set_up()
        try:
            await arrive(pair)
            gates = Gates(monkeypatch)
            gates.closed = gate
            leave(pair)
            await gates.reached.wait()
            gates.open(crashed="")
            await pair.target.restart()
            await pair.settle()
            pair.check_sound()
            assert len(pair.runs_on()) == 1, pair.describe()
        finally:
            await pair.tear_down()

    run(main())


def test_a_departure_ends_what_is_left_of_the_arrival(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrival's record is settled before the departure touches the guest, and nothing of it comes later."""

    async def main() -> None:
        monkeypatch.setattr("ldoms.migration.target._set_clock", never)
        pair = Pair(tmp_path)
        await pair.set_up()
        try:
            await arrive(pair)
            assert not arrival(pair.target).settled
            gates = Gates(monkeypatch)
            gates.closed = "source-prepare"
            leave(pair)
            await gates.reached.wait()
            assert arrival(pair.target).settled
            gates.open()
            await pair.settle()
            pair.check_sound()
            assert pair.runs_on() == ["t4-1"]
        finally:
            await pair.tear_down()

    run(main())


@pytest.mark.parametrize("gate", ["source-suspend", "source-handing-off"])
def test_a_late_question_does_not_wake_what_is_leaving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str
) -> None:
    """The old source asks once more for the verdict of the arrival: it gets it, and nothing follows from it."""

    async def main() -> None:
        pair = Pair(tmp_path)
        await pair.set_up()
        try:
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
            pair.check_sound()
            assert pair.runs_on() == ["t4-1"]
        finally:
            await pair.tear_down()

    run(main())
