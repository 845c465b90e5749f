"""What was promised is kept, or the guest stays: from end to end between two managers, on fakes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ldoms.hypervisor.states import RunState
from ldoms.manager.migrations import options_again
from ldoms.model.codec import from_wire
from ldoms.model.errors import MigrationError
from ldoms.model.migration import (
    Description,
    DescriptionAnswer,
    LimitChanges,
    MigrationOptions,
    MigrationReport,
    OnStall,
    Outcome,
)
from ldoms.model.operation import Operation, OperationStatus
from ldoms.model.phases import Phase
from unit.migration.harness import DOMAIN, Gates, Pair, migrating

HOT = 800_000_000
"""Bytes that are changed in each pass; 800 ms of the fake's bandwidth."""


def make_hot(pair: Pair, calm_percent: int = 100) -> None:
    pair.world.hot_bytes, pair.world.calm_percent = HOT, calm_percent


async def stayed(pair: Pair, operation: Operation) -> dict[str, Any]:
    """The figures of a promise that could not be kept; the guest runs where it ran."""
    assert operation.status is OperationStatus.FAILURE
    assert operation.error["code"] == "promise", operation.error
    await pair.settle()
    assert pair.runs_on() == ["t4-1"]
    pair.check_nothing_left(pair.target)
    return dict(operation.error["details"])


def report_of(pair: Pair) -> MigrationReport:
    (record,) = pair.source.store.migrations()
    return record.report


def test_a_guest_that_changes_too_much_stays(tmp_path: Path) -> None:
    """With --on-stall=abort nothing is done to it, and the error has the figures."""

    async def work(pair: Pair) -> None:
        make_hot(pair)
        details = await stayed(pair, await pair.wait(pair.migrate(on_stall=OnStall.ABORT)))
        assert details["left_s"] == pytest.approx(0.8)
        assert details["max_suspend_s"] == pytest.approx(0.3)
        report = report_of(pair)
        assert (report.outcome, report.throttle_percent, report.stall) == (Outcome.FAILED, 0, None)
        assert "--max-suspend 1000ms" in report.cause

    migrating(tmp_path, work)


def test_a_guest_that_is_held_back_moves(tmp_path: Path) -> None:
    """And the report has by how much, for how long, what it cost, and why."""

    async def work(pair: Pair) -> None:
        make_hot(pair, calm_percent=85)
        operation = await pair.wait(pair.migrate())
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert pair.runs_on() == ["t4-2"]
        report = from_wire(MigrationReport, operation.result["report"])
        assert report.throttle_percent in (70, 90)  # the last step may not have been seen any more
        assert report.stall is not None
        assert report.stall.measures == ("held back by 70 %", "held back by 90 %")
        assert report.stall.left_s == pytest.approx(0.8)
        assert report.throttled_s > 0
        assert 0.7 * report.throttled_s < report.held_back_s < report.throttled_s

    migrating(tmp_path, work)


def test_a_guest_that_no_throttle_calms_stays(tmp_path: Path) -> None:
    """After all steps; it is not held back any more."""

    async def work(pair: Pair) -> None:
        make_hot(pair)
        details = await stayed(pair, await pair.wait(pair.migrate()))
        assert details["throttle_percent"] == 90
        report = report_of(pair)
        assert report.stall is not None
        assert report.stall.measures[-1] == "held back by 90 %"

    migrating(tmp_path, work)


def test_a_guest_may_be_suspended_for_as_long_as_it_takes(tmp_path: Path) -> None:
    """If the administrator allows it; it runs on the target afterwards, and only there."""

    async def work(pair: Pair) -> None:
        make_hot(pair)
        operation = await pair.wait(pair.migrate(on_stall=OnStall.SUSPEND))
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert pair.runs_on() == ["t4-2"]
        report = from_wire(MigrationReport, operation.result["report"])
        assert report.stall is not None
        assert report.stall.measures == ("suspended for the rest",)
        assert report.stopped_at > 0

    migrating(tmp_path, work)


def test_a_suspended_guest_goes_on_here_if_the_copy_fails(tmp_path: Path) -> None:
    """The link is cut while it stands still for the rest: the target is lost, the guest is not."""

    async def work(pair: Pair) -> None:
        make_hot(pair)
        pair.world.copy_s = 20.0
        started, guest = pair.migrate(on_stall=OnStall.SUSPEND), pair.source.guest
        assert guest is not None
        while guest.run_state is not RunState.PAUSED:
            await asyncio.sleep(0.2)
        await guest.cut_migration()
        operation = await pair.wait(started)
        assert operation.status is OperationStatus.FAILURE
        await pair.settle()
        assert pair.runs_on() == ["t4-1"]

    migrating(tmp_path, work)


def test_a_restarted_manager_knows_that_the_guest_was_suspended(tmp_path: Path) -> None:
    """It does not take it for one that somebody has paused, and ends the copy."""

    async def work(pair: Pair) -> None:
        make_hot(pair)
        pair.world.copy_s = 20.0
        pair.migrate(on_stall=OnStall.SUSPEND)
        guest = pair.source.guest
        assert guest is not None
        while guest.run_state is not RunState.PAUSED:
            await asyncio.sleep(0.2)
        await pair.source.restart()
        await asyncio.sleep(60)
        await pair.settle()
        assert pair.runs_on() == ["t4-2"]

    migrating(tmp_path, work)


@pytest.mark.parametrize("on_stall", list(OnStall))
def test_what_takes_too_long_is_given_up(tmp_path: Path, on_stall: OnStall) -> None:
    """--max-time, from the request; whatever is allowed at a stall, and before the first pass is over."""

    async def work(pair: Pair) -> None:
        make_hot(pair)
        pair.world.copy_s = 100.0
        began_s = asyncio.get_running_loop().time()
        operation = await pair.wait(pair.migrate(max_time_s=20.0, on_stall=on_stall))
        assert asyncio.get_running_loop().time() - began_s < 22.0
        details = await stayed(pair, operation)
        assert details["is_late"] is True

    migrating(tmp_path, work)


def test_a_last_part_that_comes_too_late_is_cut_off_and_tried_again(tmp_path: Path) -> None:
    """Nobody could foresee it: the guest goes on when its time is up, and the next attempt moves it."""

    async def work(pair: Pair) -> None:
        pair.world.late_s = [2.0]
        operation = await pair.wait(pair.migrate())
        assert operation.status is OperationStatus.SUCCESS, operation.error
        await pair.settle()
        assert pair.runs_on() == ["t4-2"]
        first, second = sorted((one.report for one in pair.source.store.migrations()), key=lambda one: one.started_at)
        assert (first.outcome, second.outcome) == (Outcome.FAILED, Outcome.DONE)
        assert "did not arrive within the 300ms" in first.cause
        assert (first.earlier, second.earlier) == ("", first.id)

    migrating(tmp_path, work)


def test_a_last_part_that_comes_too_late_twice_leaves_the_guest_where_it_is(tmp_path: Path) -> None:
    """And the error is that of a promise."""

    async def work(pair: Pair) -> None:
        pair.world.late_s = [2.0, 2.0]
        await stayed(pair, await pair.wait(pair.migrate()))
        assert len(pair.source.store.migrations()) == 2

    migrating(tmp_path, work)


def test_a_second_try_must_fit_into_what_is_left_of_the_time(tmp_path: Path) -> None:
    """It would take as long as the first, and what is left is what is promised for it; disks are not copied twice."""

    async def work(pair: Pair) -> None:
        pair.world.late_s = [2.0, 2.0]
        await stayed(pair, await pair.wait(pair.migrate(max_time_s=60.0)))
        first, second = sorted(pair.source.store.migrations(), key=lambda one: one.report.started_at)
        assert second.options.max_time_s == pytest.approx(60.0 - first.report.total_s)

        late = MigrationError("late", phase=Phase.SUSPEND, code="promise")
        took_10_s = replace(first, report=replace(first.report, started_at=100.0, ended_at=110.0))

        def again(error: MigrationError = late, **options: Any) -> MigrationOptions | None:
            return options_again(replace(took_10_s, options=replace(first.options, **options)), error)

        assert again() == replace(first.options, max_time_s=50.0)
        assert again(max_time_s=0.0) == replace(first.options, max_time_s=0.0)
        assert again(max_time_s=19.0) is None
        assert again(copy_storage=True) is None
        assert again(MigrationError("hot", phase=Phase.COPY, code="promise")) is None
        assert again(MigrationError("cut", phase=Phase.SUSPEND, code="copy-failed")) is None
        assert options_again(replace(took_10_s, settled=False), late) is None

    migrating(tmp_path, work)


def test_a_guest_that_may_be_suspended_for_the_rest_is_waited_for(tmp_path: Path) -> None:
    """With --on-stall=suspend nothing is cut off after 300 ms."""

    async def work(pair: Pair) -> None:
        pair.world.late_s = [2.0]
        operation = await pair.wait(pair.migrate(on_stall=OnStall.SUSPEND))
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert report_of(pair).outcome is Outcome.DONE

    migrating(tmp_path, work)


@pytest.mark.parametrize("state", ["active", "bound", "inactive"])
def test_a_target_that_takes_too_long_to_get_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """It is not waited for: the domain stays, and whenever the target has come to it, nothing is left there."""

    async def work(pair: Pair) -> None:
        gates = Gates(monkeypatch)
        gates.closed = "target-prepare"
        began_s = asyncio.get_running_loop().time()
        operation = await pair.wait(pair.migrate(max_time_s=5.0))
        assert asyncio.get_running_loop().time() - began_s < 8.0
        assert operation.status is OperationStatus.FAILURE
        assert operation.error["code"] == "promise"
        assert report_of(pair).phases[-1].name is Phase.PREPARE
        assert "the 5 s that were promised" in operation.error["message"]
        assert "t4-2 is not ready for it" in operation.error["message"]
        assert pair.runs_on() == (["t4-1"] if state == "active" else [])
        await asyncio.sleep(30.0)
        gates.open()
        await pair.settle()
        assert DOMAIN in pair.source.domain_names
        pair.check_nothing_left(pair.target)
        assert (await pair.wait(pair.migrate())).status is OperationStatus.SUCCESS

    migrating(tmp_path, work, state)


def test_a_target_that_takes_too_long_to_answer_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has begun; a dry run, which promises nothing, is answered in its own time."""

    async def work(pair: Pair) -> None:
        assert pair.target.manager is not None
        side = pair.target.manager.target
        describe = side.describe

        async def slow(description: Description, caller: str) -> DescriptionAnswer:
            await asyncio.sleep(20.0)
            return await describe(description, caller)

        monkeypatch.setattr(side, "describe", slow)
        operation = await pair.wait(pair.migrate(max_time_s=5.0))
        assert operation.error["code"] == "promise"
        assert "t4-2 has not answered" in operation.error["message"]
        assert (await pair.wait(pair.migrate(max_time_s=5.0, dry_run=True))).status is OperationStatus.SUCCESS

    migrating(tmp_path, work)


def test_the_time_can_be_changed_while_the_target_gets_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than what was promised first: it is waited for."""

    async def work(pair: Pair) -> None:
        gates = Gates(monkeypatch)
        gates.closed = "target-prepare"
        started = pair.migrate(max_time_s=5.0)
        await gates.reached.wait()
        pair.manager.migrations.change_limits(DOMAIN, LimitChanges(max_time_s=60.0), "root")
        await asyncio.sleep(20.0)
        gates.open()
        operation = await pair.wait(started)
        assert operation.status is OperationStatus.SUCCESS, operation.error

    migrating(tmp_path, work)
