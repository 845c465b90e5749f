"""Migrations that are too many at once: they wait for their turn, in order, and say what they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ldoms.hypervisor.fake import FakeGuest
from ldoms.manager.config import Config, MigrationConfig
from ldoms.migration.peer import Credentials
from ldoms.migration.queue import GRANTED_S, HEARD_S, ReceivingQueue, SendingQueue
from ldoms.model.codec import from_wire
from ldoms.model.migration import MigrationOptions, MigrationReport, Outcome
from ldoms.model.operation import Operation, OperationStatus
from ldoms.model.queue import Copying, Turn, fair_shares, whose_promise_breaks
from unit.clock import run
from unit.migration.harness import FakeHost, Pair

MIB = 1 << 20
COPY_S = 10.0


async def granted() -> Turn:
    return Turn(True)


# Decisions


@pytest.mark.parametrize(
    ("copies", "expected"),
    [
        ((), ""),
        ((Copying("a"),), ""),
        ((Copying("a", 10 * MIB, 100 * MIB, 50 * MIB),), ""),
        ((Copying("a", 60 * MIB, 100 * MIB, 50 * MIB),), "LDom a changes 60.0 MiB/s of its memory"),
        ((Copying("a", 60 * MIB, 100 * MIB), Copying("b", 0, 100 * MIB)), ""),
        ((Copying("a", 70 * MIB, 100 * MIB), Copying("b", 0, 100 * MIB)), "only 66.7 MiB/s would be sent"),
        # It does not come to an end even alone: another copy breaks nothing.
        ((Copying("a", 200 * MIB, 100 * MIB, 50 * MIB),), ""),
        ((Copying("a", 0, 100 * MIB, 500 * MIB, time_left_s=8),), "LDom a would not be over in the time promised"),
        ((Copying("a", 0, 100 * MIB, 500 * MIB, time_left_s=20),), ""),
        ((Copying("a", 0, 100 * MIB, 500 * MIB, time_left_s=2),), ""),
    ],
)
def test_whose_promise_another_copy_would_break(copies: tuple[Copying, ...], expected: str) -> None:
    """A copy that comes to an end now, and would not with what another one leaves it."""
    found = whose_promise_breaks(copies)
    assert expected in found
    assert bool(found) == bool(expected)


@pytest.mark.parametrize(
    ("limit", "wanted", "shares"),
    [
        (0, {"a": 0, "b": 5}, {"a": 0, "b": 0}),
        (90, {"a": 0}, {"a": 90}),
        (90, {"a": 0, "b": 0, "c": 0}, {"a": 30, "b": 30, "c": 30}),
        (90, {"a": 0, "b": 10, "c": 0}, {"a": 40, "b": 10, "c": 40}),
        (90, {"a": 20, "b": 10, "c": 200}, {"a": 20, "b": 10, "c": 60}),
        (90, {"a": 80, "b": 70}, {"a": 45, "b": 45}),
    ],
)
def test_a_limit_is_shared(limit: int, wanted: dict[str, int], shares: dict[str, int]) -> None:
    """Equally; what one does not want goes to the others, and together they never have more than there is."""
    assert fair_shares(limit, wanted) == shares


# The two queues by themselves


class Line:
    """A sending queue, and what happens at it, in order."""

    def __init__(self, limit: int, at_risk: Callable[[], str] = lambda: "") -> None:
        self.queue = SendingQueue(limit, at_risk)
        self.seen: list[str] = []
        self.told: dict[str, list[tuple[int, str]]] = {}

    def join(self, name: str, ask: Callable[[], Awaitable[Turn]] = granted) -> asyncio.Task[bool]:
        async def wait() -> bool:
            waited = await self.queue.wait(
                name, name, ask, lambda place, why: self.told.setdefault(name, []).append((place, why))
            )
            self.seen.append(name)
            return waited

        return asyncio.create_task(wait())


def test_first_come_first_served() -> None:
    """Two go at once, the others one after another in the order in which they came, and each hears its place."""

    async def main() -> None:
        line = Line(2)
        tasks = []
        for name in "abcd":
            tasks.append(line.join(name))
            await asyncio.sleep(0.01)
        assert line.seen == ["a", "b"]
        assert line.told["c"][-1] == (1, "2 of 2 outgoing migrations are under way: a, b")
        assert line.told["d"][-1][0] == 2
        line.queue.leave("b")
        await asyncio.sleep(0.01)
        assert line.seen == ["a", "b", "c"]
        line.queue.leave("a")
        await asyncio.sleep(2)
        assert line.seen == ["a", "b", "c", "d"]
        assert [await task for task in tasks] == [False, False, True, True]

    run(main())


def test_who_gives_up_waiting_lets_the_others_pass() -> None:
    """Cancelled in the queue: nobody waits for it."""

    async def main() -> None:
        line = Line(1)
        line.join("a")
        await asyncio.sleep(0.01)
        second, third = line.join("b"), line.join("c")
        await asyncio.sleep(0.01)
        second.cancel()
        line.queue.leave("a")
        assert await third
        assert line.seen == ["a", "c"]

    run(main())


def test_a_place_is_kept_while_a_check_is_made_again() -> None:
    """After a restart of the manager, who is checked faster does not overtake; who fails the check lets others pass."""

    async def main() -> None:
        line = Line(1)
        for name in "bcd":
            line.queue.keep_place(name, name)
        line.queue.enter("a", "a")
        for name in "dc":
            line.join(name)
            await asyncio.sleep(0.01)
        assert line.told["d"][-1] == (3, "1 of 1 outgoing migrations are under way: a")
        line.queue.leave("a")
        await asyncio.sleep(2)
        assert line.seen == [], "b is before them"
        assert line.told["c"][-1] == (2, "LDom b is before it in the queue")
        line.queue.leave("b")
        await asyncio.sleep(2)
        assert line.seen == ["c"]
        line.queue.leave("c")
        await asyncio.sleep(2)
        assert line.seen == ["c", "d"]

    run(main())


def test_who_waits_for_a_target_keeps_nobody_from_another_one() -> None:
    """And has its place again when the target has a turn for it."""

    async def main() -> None:
        line, answers = Line(1), {"a": Turn(False, 1, "full")}

        async def ask() -> Turn:
            return answers["a"]

        line.join("a", ask)
        await asyncio.sleep(0.01)
        other = line.join("b")
        await other
        assert line.told["a"] == [(1, "full (number 1 there)")]
        answers["a"] = Turn(True)
        line.join("c")
        await asyncio.sleep(1.5)
        line.queue.leave("b")
        await asyncio.sleep(1.5)
        assert line.seen == ["b", "a"], "it came before c"

    run(main())


def test_a_promise_at_risk_makes_others_wait() -> None:
    """As long as it is; the reason is the sentence that says whose."""
    risk = ["LDom a would suffer"]

    async def main() -> None:
        line = Line(5, lambda: risk[0])
        line.join("a")
        await asyncio.sleep(0.01)
        second = line.join("b")
        await asyncio.sleep(3)
        assert line.seen == ["a"]
        assert line.told["b"][-1] == (1, "LDom a would suffer")
        risk[0] = ""
        assert await second

    run(main())


def test_a_target_grants_turns_in_order() -> None:
    """Nobody overtakes one that asks regularly; whoever does not ask any more loses its place, or its turn."""
    now = [0.0]
    queue = ReceivingQueue(1, lambda: now[0])
    assert queue.ask("a", "ldg1", {}) == Turn(True)
    assert queue.ask("b", "ldg2", {"a": "ldg1"}) == Turn(False, 1, "1 of 1 incoming migrations are under way: ldg1")
    assert queue.ask("c", "ldg3", {"a": "ldg1"}).position == 2
    assert not queue.ask("c", "ldg3", {}).granted, "b was before it"
    assert queue.ask("b", "ldg2", {}).granted
    assert not queue.ask("c", "ldg3", {}).granted, "b has the turn, although it has not come yet"
    now[0] += GRANTED_S
    queue.ask("d", "ldg4", {"x": "ldg9"})
    now[0] += HEARD_S / 2
    assert queue.ask("c", "ldg3", {}).granted is False, "d asks, and c has not for long"
    now[0] += HEARD_S
    assert queue.ask("c", "ldg3", {}).granted, "d is gone"


# Between hosts


class Fleet(Pair):
    """Two hosts with several domains on each."""

    def __init__(self, directory: Path, most: int) -> None:
        super().__init__(directory)
        for host in (self.source, self.target):
            host.config = Config(migration=MigrationConfig(max_outgoing=most, max_incoming=most))

    async def add(self, host: FakeHost, name: str) -> None:
        manager = host.manager
        assert manager is not None
        await manager.domains.add(name, {})
        await manager.vcpus.set(name, 1)
        await manager.memory.set(name, 256)
        await manager.life.bind(name)
        await manager.life.start(name)

    def move(self, name: str, host: FakeHost | None = None, *, certificates: bool = False) -> Operation:
        host = host or self.source
        other = self.target if host is self.source else self.source
        assert host.manager is not None
        credentials = Credentials(certificate=True) if certificates else Credentials("tracy", "secret")
        options = MigrationOptions(other.name, user="tracy", certificates=certificates)
        return host.manager.migrations.migrate(name, options, credentials, "root")

    def engine_guest(self, name: str) -> FakeGuest:
        return self.source.engine.guests[self.source.store.domain(name).uuid]

    def status(self, name: str) -> tuple[str, int, str]:
        (view,) = self.manager.listing.domains([name])
        found = view.status.migration
        return (found.phase, found.position, found.reason) if found else ("", 0, "")


def at_fleet(directory: Path, most: int, work: Callable[[Fleet], Awaitable[None]]) -> None:
    """Do some work at two hosts, with ldg1 (2 virtual CPUs) and a2 and a3 (none of its strands) on the first."""

    async def main() -> None:
        fleet = Fleet(directory, most)
        await fleet.set_up("inactive")
        fleet.world.copy_s = COPY_S
        for host in (fleet.source, fleet.target):
            assert host.manager is not None
            await host.manager.vcpus.set("primary", 1)
        for name in ("a1", "a2", "a3"):
            await fleet.add(fleet.source, name)
        try:
            await work(fleet)
        finally:
            await fleet.tear_down()

    run(main())


def test_the_third_of_three_waits_and_says_so(tmp_path: Path) -> None:
    """In ``list -o status``, in the operation and in the report; then all of them are there."""

    async def work(fleet: Fleet) -> None:
        operations = [fleet.move(name) for name in ("a1", "a2", "a3")]
        await asyncio.sleep(2)
        reason = "2 of 2 outgoing migrations are under way: a1, a2"
        assert fleet.status("a3") == ("queued", 1, reason)
        report = fleet.manager.migrations.report(operations[2].id)
        assert report.outcome is Outcome.UNDER_WAY
        assert report.queued is not None
        assert (report.queued.position, report.queued.reason) == (1, reason)
        for operation in operations:
            ended = await fleet.wait(operation)
            assert ended.status is OperationStatus.SUCCESS, ended.error
        assert sorted(fleet.target.domain_names) == ["a1", "a2", "a3"]
        queued = from_wire(MigrationReport, ended.result["report"]).queued
        assert queued is not None
        assert queued.position == 0
        assert queued.seconds > 0
        assert from_wire(MigrationReport, (await fleet.wait(operations[0])).result["report"]).queued is None

    at_fleet(tmp_path, 2, work)


def test_one_that_waits_can_be_called_off(tmp_path: Path) -> None:
    """Nothing has happened to it, and the others are not disturbed."""

    async def work(fleet: Fleet) -> None:
        first, second = fleet.move("a1"), fleet.move("a2")
        await asyncio.sleep(2)
        await fleet.manager.migrations.cancel("a2", force=False)
        assert (await fleet.wait(second)).status is OperationStatus.CANCELLED
        assert (await fleet.wait(first)).status is OperationStatus.SUCCESS
        assert "a2" in fleet.source.domain_names

    at_fleet(tmp_path, 1, work)


def test_crossing_with_one_at_a_time(tmp_path: Path) -> None:
    """Both hosts send to each other all that they have, one at a time: all arrive, nobody waits for ever."""

    async def work(fleet: Fleet) -> None:
        for name in ("b1", "b2"):
            await fleet.add(fleet.target, name)
        pairs = [(fleet.source, "a1"), (fleet.target, "b1"), (fleet.source, "a2"), (fleet.target, "b2")]
        begun = [(host, fleet.move(name, host)) for host, name in pairs]
        async with asyncio.timeout(20 * COPY_S):
            for host, operation in begun:
                assert host.manager is not None
                ended = await host.manager.host.operations.wait(operation.id)
                assert ended.status is OperationStatus.SUCCESS, ended.error
        assert sorted(fleet.target.domain_names) == ["a1", "a2"]
        assert sorted(fleet.source.domain_names) == ["a3", "b1", "b2", "ldg1"]

    at_fleet(tmp_path, 1, work)


def test_a_target_that_is_full_makes_the_source_wait(tmp_path: Path) -> None:
    """The reason is the target's; the source's own limit is not reached."""

    async def work(fleet: Fleet) -> None:
        fleet.target.config = Config(migration=MigrationConfig(max_incoming=1))
        await fleet.target.restart()
        operations = [fleet.move("a1"), fleet.move("a2")]
        await asyncio.sleep(3)
        phase, position, reason = fleet.status("a2")
        assert (phase, position) == ("queued", 1)
        assert reason == "1 of 1 incoming migrations are under way: a1 (number 1 there)"
        for operation in operations:
            assert (await fleet.wait(operation)).status is OperationStatus.SUCCESS

    at_fleet(tmp_path, 2, work)


@pytest.mark.parametrize("certificates", [True, False])
def test_a_restart_of_the_manager_while_it_waits(tmp_path: Path, certificates: bool) -> None:
    """With certificates it waits again, and goes; a password is kept nowhere, and the reason says so."""

    async def work(fleet: Fleet) -> None:
        first, second = fleet.move("a1"), fleet.move("a2", certificates=certificates)
        await asyncio.sleep(2)
        await fleet.source.restart()
        assert fleet.status("a1")[0] == "copy"
        if certificates:
            await asyncio.sleep(1)
            assert fleet.status("a2")[:2] == ("queued", 1)
        assert (await fleet.wait(first)).status is OperationStatus.SUCCESS
        ended = await fleet.wait(second)
        report = fleet.manager.migrations.report(second.id)
        if certificates:
            assert ended.status is OperationStatus.SUCCESS, ended.error
            assert "a2" in fleet.target.domain_names
            return
        assert (ended.status, ended.error["code"]) == (OperationStatus.FAILURE, "restarted")
        assert "passwords are kept nowhere" in ended.error["message"]
        assert (report.outcome, report.cause) == (Outcome.FAILED, ended.error["message"])
        assert (await fleet.wait(fleet.move("a2"))).status is OperationStatus.SUCCESS

    at_fleet(tmp_path, 1, work)


def test_what_does_not_run_waits_for_nobody(tmp_path: Path) -> None:
    """A bound domain has no memory to copy."""

    async def work(fleet: Fleet) -> None:
        first = fleet.move("a1")
        await asyncio.sleep(2)
        assert (await fleet.wait(fleet.move("ldg1"))).status is OperationStatus.SUCCESS
        assert fleet.status("a1")[0] == "copy"
        assert (await fleet.wait(first)).status is OperationStatus.SUCCESS

    at_fleet(tmp_path, 1, work)


def test_what_has_changed_while_it_waited_is_found(tmp_path: Path) -> None:
    """The check is made again when its turn has come."""

    async def work(fleet: Fleet) -> None:
        first, second = fleet.move("a1"), fleet.move("a2")
        await asyncio.sleep(2)
        assert fleet.target.manager is not None
        await fleet.target.manager.domains.add("a2", {})
        assert (await fleet.wait(first)).status is OperationStatus.SUCCESS
        ended = await fleet.wait(second)
        assert ended.status is OperationStatus.FAILURE
        assert "LDom a2 already exists on t4-2" in ended.error["message"]

    at_fleet(tmp_path, 1, work)


def test_a_promise_that_ends_in_the_queue(tmp_path: Path) -> None:
    """``--max-time`` counts from the request: nobody waits for a turn that comes too late."""

    async def work(fleet: Fleet) -> None:
        first = fleet.move("a1")
        await asyncio.sleep(2)
        options = MigrationOptions("t4-2", user="tracy", max_time_s=3.0)
        second = fleet.manager.migrations.migrate("a2", options, Credentials("tracy", "secret"), "root")
        ended = await fleet.wait(second)
        assert ended.error["code"] == "promise"
        assert "the 3 s that were promised" in ended.error["message"]
        assert "1 of 1 outgoing migrations are under way: a1" in ended.error["message"]
        assert fleet.status("a1")[0] == "copy"
        assert (await fleet.wait(first)).status is OperationStatus.SUCCESS

    at_fleet(tmp_path, 1, work)


@pytest.mark.parametrize("limited", ["source", "target"])
def test_a_limit_of_a_host_is_shared_by_what_leaves_it_or_comes(tmp_path: Path, limited: str) -> None:
    """One alone has all of it, beside another half, and all again afterwards; a target tells the sources."""

    async def work(fleet: Fleet) -> None:
        host = getattr(fleet, limited)
        host.config = Config(migration=MigrationConfig(bandwidth="100M"))
        await host.restart()
        guests = {name: fleet.engine_guest(name) for name in ("a1", "a2")}
        first = fleet.move("a1")
        await asyncio.sleep(COPY_S / 2)
        second = fleet.move("a2")
        for operation in (first, second):
            assert (await fleet.wait(operation)).status is OperationStatus.SUCCESS
        assert guests["a1"].bandwidths == [100 * MIB, 50 * MIB]
        assert guests["a2"].bandwidths == [50 * MIB, 100 * MIB]

    at_fleet(tmp_path, 2, work)


def test_without_a_limit_there_is_none(tmp_path: Path) -> None:
    """QEMU sends as fast as it can."""

    async def work(fleet: Fleet) -> None:
        guest = fleet.engine_guest("a1")
        assert (await fleet.wait(fleet.move("a1"))).status is OperationStatus.SUCCESS
        assert guest.bandwidths == [0]

    at_fleet(tmp_path, 2, work)
