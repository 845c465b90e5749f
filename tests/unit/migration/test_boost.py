"""Strands that are lent to the control domains while a domain moves, and returned on every way out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ldoms.hypervisor.states import MigrationStatus
from ldoms.model.boost import AUTO, BoostWish
from ldoms.model.codec import from_wire
from ldoms.model.migration import MigrationReport
from ldoms.model.operation import Operation, OperationStatus
from unit.migration.harness import DOMAIN, FakeHost, Gates, Pair, migrating

WAYS_OUT = ("cancel", "target lost", "restart", "target restarts")
OWN = 4
"""Strands of primary on either host of a `Pair`; the domain has 2 of the other 4."""


def used(host: FakeHost) -> float:
    """Strands that everything of QEMU but virtual CPUs may use on a host."""
    assert host.engine.control is not None
    return host.engine.control.share * 4


def report_of(operation: Operation) -> MigrationReport:
    return from_wire(MigrationReport, operation.result["report"])


def check_returned(pair: Pair) -> None:
    """Nothing is lent any more on either host, and primary has what it had."""
    for host in (pair.source, pair.target):
        assert used(host) == OWN, f"{host.name} has not got its strands back"
        assert host.manager is not None
        (primary,) = host.manager.listing.domains(["primary"])
        assert (primary.domain.constraints.vcpus, primary.status.lent_strands) == (OWN, 0)


@pytest.mark.parametrize(
    ("asked", "threads", "held", "free", "per_cpu", "lent"),
    [
        (3, 1, 2, 8, 1, 3),
        (3, 1, 2, 2, 1, 2),
        (AUTO, 1, 1, 8, 1, 1),
        (AUTO, 1, 4, 8, 1, 0),
        (AUTO, 3, 1, 8, 1, 3),
        (AUTO, 3, 1, 2, 1, 2),
        (AUTO, 1, 2, 16, 8, 14),
    ],
)
def test_how_many_are_lent(asked: int, threads: int, held: int, free: int, per_cpu: int, lent: int) -> None:
    """What was asked for, as far as it is free; or what makes a CPU for each thread of the copy and one more."""
    assert BoostWish(asked, threads).strands(held, free, per_cpu) == lent


def test_they_are_lent_for_the_copy_and_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On both hosts; primary has as many virtual CPUs as before all the while, and the report says what was lent."""
    gates = Gates(monkeypatch)
    gates.closed = "source-suspend"

    async def work(pair: Pair) -> None:
        operation = pair.migrate(boost=2)
        await gates.reached.wait()
        assert (used(pair.source), used(pair.target)) == (OWN + 2, OWN + 2)
        (primary,) = pair.manager.listing.domains(["primary"])
        assert (primary.domain.constraints.vcpus, primary.status.lent_strands) == (OWN, 2)
        assert len(pair.manager.host.partition().free_strands) == 2
        gates.open()
        operation = await pair.wait(operation)
        assert operation.status is OperationStatus.SUCCESS, operation.error
        boost = report_of(operation).boost
        assert boost is not None
        assert (boost.asked, boost.source_strands, boost.target_strands, boost.taken) == (2, 2, 2, 0)
        assert 0 < boost.lent_at <= boost.returned_at
        await pair.settle()
        check_returned(pair)

    migrating(tmp_path, work)


def test_without_the_option_nothing_is_lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the report says nothing of it."""
    gates = Gates(monkeypatch)
    gates.closed = "source-suspend"

    async def work(pair: Pair) -> None:
        operation = pair.migrate()
        await gates.reached.wait()
        assert (used(pair.source), used(pair.target)) == (OWN, OWN)
        gates.open()
        assert report_of(await pair.wait(operation)).boost is None

    migrating(tmp_path, work)


@pytest.mark.parametrize(
    ("where", "way"),
    [
        *((where, way) for where in ("source-copy", "source-suspend") for way in WAYS_OUT),
        ("source-suspend", "target's QEMU dies"),
    ],
)
def test_they_are_returned_on_every_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, where: str
) -> None:
    """Whatever happens in the middle: cancelled, failed, or the manager of a host was away."""
    gates = Gates(monkeypatch)
    gates.closed = where

    async def work(pair: Pair) -> None:
        operation = pair.migrate(boost=AUTO)
        await gates.reached.wait()
        assert used(pair.source) > OWN
        if way == "cancel":
            pair.manager.host.operations.cancel(operation.id)
            gates.open()
        elif way == "target lost":
            pair.link.is_up = pair.world.links_up = False
            gates.open()
            await pair.wait(operation)
            assert used(pair.source) == OWN, "nothing is copied any more"
            pair.link.is_up = pair.world.links_up = True
        elif way == "target's QEMU dies":
            assert pair.target.guest is not None
            pair.target.guest.die()
            gates.open()
        elif way == "restart":
            await pair.source.stop()
            gates.open(crashed="source")
            await pair.source.start()
        else:
            await pair.target.stop()
            await pair.target.start()
            gates.open()
        await pair.settle()
        check_returned(pair)
        ended = pair.manager.migrations.report(operation.id)
        assert ended.boost is not None
        assert ended.boost.returned_at >= ended.boost.lent_at > 0

    migrating(tmp_path, work)


def test_a_copy_that_outlives_its_manager_is_boosted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager that comes back has lent nothing at first, and lends again when the copy goes on."""
    placed: list[float] = []

    async def work(pair: Pair) -> None:
        pair.world.copy_s = 30.0
        pair.migrate(boost=2)
        await asyncio.sleep(5.0)
        assert pair.source.guest is not None
        assert pair.source.guest.status == MigrationStatus.ACTIVE
        await pair.source.stop()
        place = pair.source.engine.place_control

        async def note(placement: object) -> None:
            await place(placement)  # type: ignore[arg-type]
            placed.append(used(pair.source))

        monkeypatch.setattr(pair.source.engine, "place_control", note)
        await pair.source.start()
        await pair.settle()
        assert placed == [OWN, OWN + 2, OWN]
        check_returned(pair)

    migrating(tmp_path, work)


def test_more_than_is_free_is_refused_in_the_check(tmp_path: Path) -> None:
    """One sentence with both figures, and nothing was started."""

    async def work(pair: Pair) -> None:
        operation = await pair.wait(pair.migrate(boost=3))
        assert operation.status is OperationStatus.FAILURE
        assert (
            operation.error["message"] == "3 strands are to be lent to the control domain of t4-1, and 2 are free there"
        )
        assert pair.target.guest is None
        check_returned(pair)

    migrating(tmp_path, work)


def test_the_target_lends_what_it_has(tmp_path: Path) -> None:
    """Fewer than asked for are no reason to refuse; the report says how many."""

    async def work(pair: Pair) -> None:
        assert pair.target.manager is not None
        await pair.target.manager.vcpus.add("primary", 1)
        boost = report_of(await pair.wait(pair.migrate(boost=2))).boost
        assert boost is not None
        assert (boost.source_strands, boost.target_strands) == (2, 1)
        await pair.target.manager.vcpus.remove("primary", 1)

    migrating(tmp_path, work)


def test_a_domain_that_needs_a_strand_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is bound as if nothing were lent; the strand is given back before it is used, and does not come back."""
    gates = Gates(monkeypatch)
    gates.closed = "source-suspend"

    async def work(pair: Pair) -> None:
        manager = pair.manager
        await manager.domains.add("ldg2", {})
        await manager.vcpus.set("ldg2", 1)
        await manager.memory.set("ldg2", 256)
        operation = pair.migrate(boost=2)
        await gates.reached.wait()
        bound = await manager.life.bind("ldg2")
        assert used(pair.source) == OWN + 1
        assert bound.bindings is not None
        assert not bound.bindings.held & manager.host.lending.strands
        await manager.life.unbind("ldg2")
        manager.domains.remove("ldg2")
        assert used(pair.source) == OWN + 1
        gates.open()
        boost = report_of(await pair.wait(operation)).boost
        assert boost is not None
        assert (boost.source_strands, boost.taken) == (2, 1)
        await pair.settle()
        check_returned(pair)

    migrating(tmp_path, work)


def test_primary_itself_may_be_given_some_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``ldm add-vcpu N primary`` during the copy, by hand or on top of a boost: these it keeps."""
    gates = Gates(monkeypatch)
    gates.closed = "source-suspend"

    async def work(pair: Pair) -> None:
        operation = pair.migrate(boost=1)
        await gates.reached.wait()
        await pair.manager.vcpus.add("primary", 2)
        assert used(pair.source) == OWN + 2
        gates.open()
        assert (await pair.wait(operation)).status is OperationStatus.SUCCESS
        assert used(pair.source) == OWN + 2
        await pair.manager.vcpus.remove("primary", 2)
        assert used(pair.source) == OWN

    migrating(tmp_path, work)


@pytest.mark.parametrize("state", ["inactive", "bound"])
def test_a_domain_that_does_not_run_needs_none(tmp_path: Path, state: str) -> None:
    """Nothing is copied, so nothing is lent or missed."""

    async def work(pair: Pair) -> None:
        operation = await pair.wait(pair.migrate(boost=99))
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert report_of(operation).boost is None
        assert pair.target.domain_names == [DOMAIN]

    migrating(tmp_path, work, state)
