"""What was promised is kept, or the guest stays: from end to end between two managers, on fakes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ldoms.hypervisor.states import RunState
from ldoms.model.codec import from_wire
from ldoms.model.migration import MigrationReport, OnStall, Outcome
from ldoms.model.operation import Operation, OperationStatus
from unit.migration.harness import Pair, migrating

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
