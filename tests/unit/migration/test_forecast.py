"""The forecast: its calculation on values, and what is measured for it on fakes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ldoms.cli.forecast import comparison_lines
from ldoms.migration import trial
from ldoms.migration.forecast import (
    FIXED_S,
    DirtyCurve,
    Lessons,
    follow_copy,
    forecast,
    learn,
    link_of_history,
    rates_of_history,
    slowdown_percent,
)
from ldoms.migration.trial import speed_of
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import HostError
from ldoms.model.forecast import DirtyRate, Forecast, ForecastBasis, LinkSource, LinkSpeed, MemoryUse, Range
from ldoms.model.migration import (
    CopiedDisk,
    DiskCopy,
    MigrationPlan,
    MigrationReport,
    OnStall,
    Outcome,
    PassRecord,
    PhaseRecord,
)
from ldoms.model.operation import OperationStatus
from ldoms.model.phases import Phase
from ldoms.model.services import Volume
from unit.migration.harness import Pair, migrating

MIB = 1 << 20
NOTHING = Lessons()
PLAN = MigrationPlan(
    capabilities=("events", "pause-before-switchover", "return-path"),
    channels=1,
    cipher="NORMAL",
    compression="none",
    max_bandwidth_bytes_s=0,
    downtime_limit_s=0.03,
    max_suspend_s=0.3,
    on_stall=OnStall.ABORT,
)


def steady(rate: float, working_set: float = math.inf) -> tuple[DirtyRate, ...]:
    """The rates of a guest that goes round through its working set."""
    return tuple(DirtyRate(window, min(rate, working_set / window)) for window in (0.2, 0.8, 1.6))


def basis(
    nonzero: float = 300 * MIB,
    total: float = 512 * MIB,
    rates: Sequence[DirtyRate] = (),
    bytes_s: float = 500e6,
    spread: float = 0.1,
) -> ForecastBasis:
    """What was measured."""
    link = LinkSpeed(bytes_s, spread, LinkSource.PROBE)
    return ForecastBasis(MemoryUse(round(total), round(nonzero)), tuple(rates), link, check_s=0.2)


def made(known: ForecastBasis, plan: MigrationPlan = PLAN, lessons: Lessons = NOTHING) -> Forecast:
    """Its forecast."""
    return forecast(known, plan, lessons, 512 * MIB)


def report(known: Forecast | None = None, copy_s: float = 1.0, stood_s: float = 0.05) -> MigrationReport:
    """Of a migration that was done."""
    return MigrationReport(
        id="1",
        domain="ldg1",
        target_name="ldg1",
        uuid="u",
        source="t4-1",
        target="t4-2",
        user="root",
        active=True,
        outcome=Outcome.DONE,
        started_at=0.0,
        ended_at=copy_s + 1.0,
        phases=(
            PhaseRecord(Phase.CHECK, 0.0, 0.2),
            PhaseRecord(Phase.PREPARE, 0.2, 0.6),
            PhaseRecord(Phase.COPY, 0.8, copy_s),
            PhaseRecord(Phase.HAND_OFF, 0.8 + copy_s, 0.2),
        ),
        passes=(PassRecord(1, copy_s, 200 * MIB, 10 * MIB),),
        plan=PLAN,
        stop_resume_s=stood_s,
        forecast=known,
    )


# The curve


def test_a_guest_that_goes_round_has_changed_all_of_it_some_time() -> None:
    """Its working set is found in rates that fall with the window."""
    curve = DirtyCurve(steady(100 * MIB, 60 * MIB), 512 * MIB)
    assert curve.changed(0.1) == pytest.approx(10 * MIB)
    assert curve.changed(100) == pytest.approx(60 * MIB)
    assert curve.end_bytes == pytest.approx(60 * MIB)


def test_a_guest_that_does_not_come_back_is_expected_to_some_time() -> None:
    """No end of it is seen within 1.6 s; it is never more than there is."""
    curve = DirtyCurve(steady(20 * MIB), 512 * MIB)
    assert curve.changed(1.6) == pytest.approx(32 * MIB)
    assert 32 * MIB < curve.changed(5) < 100 * MIB
    assert curve.changed(1000) == pytest.approx(curve.end_bytes) == pytest.approx(128 * MIB)
    assert DirtyCurve(steady(200 * MIB), 512 * MIB).changed(1000) == 512 * MIB


def test_nothing_measured_is_no_change() -> None:
    """Such as of a guest that stands still."""
    assert DirtyCurve((), 512 * MIB).changed(5) == 0


# The copy


def test_an_idle_guest_is_sent_once() -> None:
    """And what is left at last is what the limit allows."""
    course = follow_copy(300 * MIB, 512 * MIB, DirtyCurve((), 512 * MIB), 500e6, PLAN)
    assert course.converges
    assert course.sent_bytes == pytest.approx(300 * MIB, rel=0.01)
    assert course.left_bytes / 500e6 <= PLAN.downtime_limit_s * 1.06
    assert course.seconds == pytest.approx(300 * MIB / 500e6, rel=0.15)


def test_the_published_measurement_is_met() -> None:
    """64 MiB changed at 100 MiB/s over a link of 200 MB/s, by hand: passes shrink by half until 6 MB are left."""
    course = follow_copy(400e6, 400e6, DirtyCurve(steady(100e6, 64e6), 400e6), 200e6, PLAN)
    assert course.converges
    assert course.sent_bytes == pytest.approx(400e6 + 64e6 + 32e6 + 16e6 + 8e6, rel=0.08)


def test_a_guest_that_is_faster_than_the_link_does_not_converge() -> None:
    """Then it is said, and the guest is not suspended, unless that is what was asked for."""
    hot = basis(rates=steady(100 * MIB), bytes_s=25e6)
    known = made(hot)
    assert not known.converges
    assert known.suspension_s.high == 0
    suspended = made(hot, replace(PLAN, on_stall=OnStall.SUSPEND))
    assert suspended.converges
    assert suspended.suspension_s.expected > PLAN.max_suspend_s
    in_parts = made(hot, replace(PLAN, on_stall=OnStall.POSTCOPY))
    assert in_parts.converges
    assert in_parts.suspension_s.expected < PLAN.max_suspend_s
    assert in_parts.bytes.expected == pytest.approx(suspended.bytes.expected)


def test_a_throttle_brings_it_to_an_end_at_a_price() -> None:
    """The guest is held back until the link is fast enough."""
    plan = replace(PLAN, on_stall=OnStall.THROTTLE, throttle_percents=(50, 70, 85, 93))
    free, throttled = (made(basis(rates=steady(30e6), bytes_s=25e6), one) for one in (PLAN, plan))
    assert (free.converges, throttled.converges) == (False, True)
    assert throttled.slowdown_percent.expected > free.slowdown_percent.expected + 5


def test_a_guest_that_stands_still_for_the_whole_copy() -> None:
    """The suspension is the copy."""
    known = made(basis(), replace(PLAN, stands_still=True, max_suspend_s=5.0))
    assert known.converges
    assert known.suspension_s.expected > 300 * MIB / 500e6


def test_memory_that_could_not_be_looked_at_counts_in_full() -> None:
    """Rather too much than too little."""
    known = made(replace(basis(), memory=None))
    assert known.bytes.expected == pytest.approx(512 * MIB, rel=0.01)


MEMORY = st.floats(16 * MIB, 2048 * MIB)
RATE = st.floats(0, 200 * MIB)
SPEED = st.floats(10e6, 5e9)
SET = st.floats(1 * MIB, 256 * MIB)


@settings(deadline=None, max_examples=50)
@given(nonzero=MEMORY, rate=RATE, working_set=SET, speed=SPEED, spread=st.floats(0.05, 3.0))
def test_low_expected_high(nonzero: float, rate: float, working_set: float, speed: float, spread: float) -> None:
    """Whatever is measured: every figure is finite, and lies within its own range."""
    known = made(basis(nonzero, 2048 * MIB, steady(rate, working_set), speed, spread))
    for one in (known.total_s, known.suspension_s, known.bytes, known.slowdown_percent):
        assert 0 <= one.low <= one.expected <= one.high < math.inf
    assert from_wire(Forecast, to_wire(known)) == known


@settings(deadline=None, max_examples=200)
@given(
    rates=st.lists(st.tuples(st.floats(0.05, 60), st.one_of(st.just(0.0), st.floats(0, 4e9))), max_size=6),
    speed=SPEED,
    times=st.lists(st.floats(0, 1000), min_size=2, max_size=2).map(sorted),
)
def test_rates_that_fit_together_badly(rates: list[tuple[float, float]], speed: float, times: list[float]) -> None:
    """They are measured at different moments: whatever they are, there is a forecast, and more time is more change."""
    measured = [DirtyRate(window, rate) for window, rate in rates]
    curve = DirtyCurve(measured, 512 * MIB)
    assert 0 <= curve.changed(times[0]) <= curve.changed(times[1]) + 1 <= 512 * MIB + 1
    known = made(basis(rates=measured, bytes_s=speed))
    for one in (known.total_s, known.suspension_s, known.bytes, known.slowdown_percent):
        assert 0 <= one.low <= one.expected <= one.high < math.inf


@settings(deadline=None, max_examples=50)
@given(nonzero=MEMORY, more=st.floats(1.0, 4.0), speed=SPEED)
def test_more_memory_takes_longer(nonzero: float, more: float, speed: float) -> None:
    """Of an idle guest."""
    small, large = (made(basis(size, 8192 * MIB, (), speed)) for size in (nonzero, nonzero * more))
    assert small.total_s.expected <= large.total_s.expected + 1e-9
    assert small.bytes.expected <= large.bytes.expected + 1


@settings(deadline=None, max_examples=50)
@given(nonzero=MEMORY, rate=RATE, working_set=SET, speed=SPEED, slower=st.floats(2.0, 10.0))
@example(nonzero=135 * MIB, rate=MIB * 213.0, working_set=175 * MIB, speed=219.0 * MIB, slower=3.01)  # it is given up
def test_a_slower_link_takes_longer(
    nonzero: float, rate: float, working_set: float, speed: float, slower: float
) -> None:
    """At half the speed or less, as near by one pass more or less decides; or it is given up, which may be sooner."""
    fast, slow = (made(basis(nonzero, 2048 * MIB, steady(rate, working_set), one)) for one in (speed, speed / slower))
    if slow.converges:
        assert fast.converges
        assert fast.total_s.expected <= slow.total_s.expected + 1e-9


# What earlier migrations teach


def test_without_a_history_the_defaults_count() -> None:
    """And a migration that has failed teaches nothing."""
    assert learn(()) == Lessons()
    assert learn((replace(report(), outcome=Outcome.FAILED),)) == Lessons()


def test_one_migration_teaches_less_than_many() -> None:
    """What is learnt is drawn to the default."""
    once, often = learn((report(),)), learn((report(),) * 8)
    assert FIXED_S < once.fixed_s < often.fixed_s < 0.8
    assert (once.migrations, often.migrations) == (1, 8)


def test_a_forecast_that_was_wrong_is_corrected() -> None:
    """Twice the copy and twice the suspension that were forecast, again and again: the next one says so."""
    known = made(basis())
    copy_s = known.total_s.expected - known.suspension_s.expected - 0.2 - FIXED_S
    lessons = learn((report(known, copy_s * 1.3, known.suspension_s.expected * 2),) * 8)
    assert 1.15 < lessons.copy_factor < 1.3
    assert 1.6 < lessons.suspension_factor < 2
    again = made(basis(), lessons=lessons)
    assert again.suspension_s.expected > 1.5 * known.suspension_s.expected
    assert again.basis.migrations == 8


def test_what_is_corrected_already_is_not_corrected_again() -> None:
    """The correction of a forecast is taken out before it is compared with the fact."""
    lessons = Lessons(migrations=8, suspension_factor=2.0)
    known = made(basis(), lessons=lessons)
    after = learn((report(known, stood_s=known.suspension_s.expected),) * 8)
    assert after.suspension_factor == pytest.approx(2.0 ** (8 / 10))


def test_a_forecast_that_was_off_by_much_is_wider() -> None:
    """Its range comes from what earlier ones have missed by."""
    known = made(basis())
    good, bad = (
        learn([report(known, stood_s=known.suspension_s.expected * factor) for factor in factors])
        for factors in ((1.0,) * 8, (0.3, 3.0) * 4)
    )
    assert good.suspension_spread < 0.5 * bad.suspension_spread


def test_longer_windows_come_from_earlier_passes() -> None:
    """As busy as the guest is now, against what it was then; not from a copy that held it back."""
    then = report(made(basis(rates=steady(10 * MIB))), copy_s=10.0)
    assert rates_of_history((then,), steady(10 * MIB)) == (DirtyRate(10.0, MIB),)
    assert rates_of_history((then,), steady(20 * MIB)) == (DirtyRate(10.0, 2 * MIB),)
    assert rates_of_history((replace(then, throttle_percent=50),), steady(10 * MIB)) == ()
    assert rates_of_history((report(),), steady(10 * MIB)) == ()


def test_the_link_of_history_is_that_of_the_longest_passes() -> None:
    """With the same encryption only, and where neither a limit nor compression has decided."""
    assert link_of_history((report(),), True) == LinkSpeed(200 * MIB, 0.3, LinkSource.HISTORY)
    assert link_of_history((report(),), False) is None
    for plan in (replace(PLAN, max_bandwidth_bytes_s=5 * MIB), replace(PLAN, compression="zstd")):
        assert link_of_history((replace(report(), plan=plan),), True) is None


def test_a_forecast_that_cannot_be_made_does_not_stop_a_migration(tmp_path: Path) -> None:
    """The report is without one then."""

    def broken(*arguments: object) -> Forecast:
        raise ZeroDivisionError

    async def work(pair: Pair) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ldoms.migration.forecasting.forecast", broken)
            operation = await pair.wait(pair.migrate())
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert from_wire(MigrationReport, operation.result["report"]).forecast is None

    migrating(tmp_path, work)


# The trial


def test_what_only_fills_buffers_does_not_count() -> None:
    """4 MB at once, then 25 MB/s."""
    samples = [(0.01 * step, round(min(4e6, 4e8 * 0.01 * step) + 25e6 * 0.01 * step)) for step in range(151)]
    assert speed_of(samples).bytes_s == pytest.approx(25e6, rel=0.01)


def test_an_unsteady_link_has_a_wide_range() -> None:
    """As its quarters differ."""
    even = [(0.1 * step, 10_000_000 * step) for step in range(11)]
    uneven = [*even[:6], *((at, sent + 20_000_000 * (step + 1)) for step, (at, sent) in enumerate(even[6:]))]
    assert speed_of(uneven).spread > speed_of(even).spread


def test_a_trial_that_sent_nothing_has_failed() -> None:
    """It is no speed of 0."""
    with pytest.raises(HostError):
        speed_of([(0.01, 0), (1.5, 0)])


# On two hosts


def test_a_dry_run_forecasts_and_leaves_nothing(tmp_path: Path) -> None:
    """Memory, three windows, a trial; both ends of it are gone afterwards."""

    async def work(pair: Pair) -> None:
        assert pair.source.guest is not None
        pair.source.guest.changes_bytes_s = 10 * MIB
        pair.source.guest.nonzero_bytes = 100 * MIB
        operation = await pair.wait(pair.migrate(dry_run=True))
        assert operation.status is OperationStatus.SUCCESS, operation.error
        made_report = from_wire(MigrationReport, operation.result["report"])
        known = made_report.forecast
        assert known is not None
        assert made_report.plan is not None
        assert made_report.plan.compression == "zstd", "the trial has shown a slow link"
        assert known.basis.memory == MemoryUse(1024 * MIB, 100 * MIB)
        assert known.basis.link.source is LinkSource.PROBE
        assert {one.bytes_s for one in known.basis.dirty_rates} == {10 * MIB}
        assert len(known.basis.dirty_rates) == 3
        assert known.total_s.expected > 0
        for host in (pair.source, pair.target):
            assert len(host.engine.trials) == 1
            assert host.engine.trials[0].is_gone
        assert not pair.world.listeners
        assert "end-trial" in pair.link.calls

    migrating(tmp_path, work)


def test_a_migration_takes_the_link_of_the_dry_run_before(tmp_path: Path) -> None:
    """It makes no trial of its own, and its report has the forecast."""

    async def work(pair: Pair) -> None:
        await pair.wait(pair.migrate(dry_run=True))
        operation = await pair.wait(pair.migrate())
        known = from_wire(MigrationReport, operation.result["report"]).forecast
        assert known is not None
        assert known.basis.link.source is LinkSource.EARLIER_PROBE
        assert len(pair.source.engine.trials) == 1
        (record,) = pair.source.store.migrations()
        assert record.report.forecast == known

    migrating(tmp_path, work)


def test_without_anything_known_the_link_is_assumed(tmp_path: Path) -> None:
    """And the forecast says so."""

    async def work(pair: Pair) -> None:
        operation = await pair.wait(pair.migrate())
        known = from_wire(MigrationReport, operation.result["report"]).forecast
        assert known is not None
        assert known.basis.link.source is LinkSource.ASSUMED

    migrating(tmp_path, work)


def test_a_trial_that_fails_does_not_fail_the_dry_run(tmp_path: Path) -> None:
    """The target cannot start one: the forecast goes on without."""

    async def work(pair: Pair) -> None:
        async def refuse(spec: object) -> None:
            raise HostError("no", code="no-qemu")

        pair.target.engine.start_trial = refuse  # type: ignore[assignment, method-assign]
        operation = await pair.wait(pair.migrate(dry_run=True))
        assert operation.status is OperationStatus.SUCCESS, operation.error
        known = from_wire(MigrationReport, operation.result["report"]).forecast
        assert known is not None
        assert known.basis.link.source is LinkSource.ASSUMED
        assert pair.source.engine.trials[0].is_gone

    migrating(tmp_path, work)


def test_a_trial_that_nobody_ends_ends_by_itself(tmp_path: Path) -> None:
    """The source is gone: the target does not keep memory for it."""

    async def work(pair: Pair) -> None:
        pair.link.lose_answers.add("end-trial")
        ended: list[str] = []

        async def lost(self: object, migration: str) -> None:
            ended.append(migration)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ldoms.migration.fake.FakePeer.end_trial", lost)
            await pair.wait(pair.migrate(dry_run=True))
        (there,) = pair.target.engine.trials
        assert ended
        assert not there.is_gone
        await asyncio.sleep(20)
        assert there.is_gone

    migrating(tmp_path, work)


def test_a_cancelled_dry_run_ends_its_trial(tmp_path: Path) -> None:
    """Wherever it is."""

    async def work(pair: Pair) -> None:
        operation = pair.migrate(dry_run=True)
        while not pair.target.engine.trials:
            await asyncio.sleep(0.05)
        pair.manager.host.operations.cancel(operation.id)
        ended = await pair.wait(operation)
        assert ended.status is not OperationStatus.SUCCESS
        assert pair.source.engine.trials[0].is_gone
        await asyncio.sleep(20)
        assert pair.target.engine.trials[0].is_gone

    migrating(tmp_path, work)


def test_the_trial_asks_for_no_more_than_a_bare_qemu_can() -> None:
    """Capabilities that need a machine, or a guest, are left out."""
    plan = replace(PLAN, capabilities=("auto-converge", "events", "postcopy-ram", "return-path"), stands_still=True)
    tried = trial.trial_plan(plan)
    assert tried.capabilities == ("events", "return-path")
    assert not tried.stands_still
    assert tried.cipher == plan.cipher


@pytest.mark.parametrize(("channels", "capabilities"), [(1, ("events",)), (2, ("events", "multifd"))])
def test_the_trial_is_one_of_the_link(channels: int, capabilities: tuple[str, ...]) -> None:
    """Whether to compress what is sent follows from it; over as many connections as the copy."""
    plan = replace(PLAN, capabilities=("events", "multifd"), channels=channels, compression="zstd")
    tried = trial.trial_plan(plan)
    assert (tried.capabilities, tried.compression, tried.channels) == (capabilities, "none", channels)


def test_ranges_are_what_they_say() -> None:
    """A faster link at the low end, a slower one at the high end."""
    narrow, wide = (made(basis(spread=spread)).total_s for spread in (0.05, 1.0))
    assert isinstance(narrow, Range)
    assert wide.low < narrow.low
    assert wide.high > narrow.high


def test_what_a_guest_has_lost() -> None:
    """For want of a CPU, held back, and standing still: each by itself, and together."""
    assert slowdown_percent(0, 0, 0, 0, 0) == 0
    assert slowdown_percent(2.0, 0.0, 0.0, 2.0, 0.0) == 0
    assert slowdown_percent(1.0, 1.0, 0.0, 2.0, 0.0) == pytest.approx(50)
    assert slowdown_percent(0.0, 0.0, 0.4, 2.0, 0.0) == pytest.approx(40)
    assert slowdown_percent(0.0, 0.0, 0.0, 3.0, 1.0) == pytest.approx(25)
    assert slowdown_percent(1.0, 1.0, 0.4, 3.0, 1.0) == pytest.approx(100 * (1 - 0.5 * 0.6 * 0.75))


def test_a_report_has_the_slow_down_beside_its_forecast(tmp_path: Path) -> None:
    """The fake gets half of the CPU time that it wants."""

    async def work(pair: Pair) -> None:
        assert pair.source.guest is not None
        pair.source.guest.load = 1.0
        await pair.wait(pair.migrate())
        await pair.settle()
        (record,) = pair.source.store.migrations()
        assert record.report.slowdown_percent is not None
        assert 50 <= record.report.slowdown_percent <= 100
        line = next(line for line in comparison_lines(record.report) if line.startswith("slow-down"))
        assert line.split()[3:5] == [f"{record.report.slowdown_percent:.0f}", "%"]

    migrating(tmp_path, work)


def test_disks_are_sent_before_the_memory() -> None:
    """As fast, so that it takes longer by that; a move with disks teaches nothing of the memory's copy."""
    copies = tuple(
        DiskCopy(f"disk@{number}", f"vdisk{number}", "vds", Volume("v", "/v"), 9 << 30, content_bytes=1 << 30)
        for number in range(2)
    )
    known = basis()
    plain, longer = made(known), made(known, replace(PLAN, disks=copies))
    sent_s = (2 << 30) / known.link.bytes_s
    assert longer.total_s.expected - plain.total_s.expected == pytest.approx(sent_s, rel=0.2)
    assert longer.total_s.high - plain.total_s.high > sent_s
    assert longer.suspension_s == plain.suspension_s
    slow = replace(report(plain, copy_s=500.0), storage=(CopiedDisk("vdisk0", "/v", 9 << 30, 1 << 30, 499.0),))
    assert learn([slow]).copy_factor == learn([]).copy_factor


def test_compressed_memory_is_less_on_a_slow_link() -> None:
    """What share of it is not known where nothing was tried: the range is that of what was measured."""
    slow = basis(bytes_s=25e6)
    plain, packed = made(slow), made(slow, replace(PLAN, compression="zstd"))
    for figure in ("total_s", "bytes"):
        before, after = getattr(plain, figure), getattr(packed, figure)
        assert after.high < before.high
        assert after.low < 0.5 * before.low
        assert after.expected < 0.6 * before.expected
    assert made(basis(), replace(PLAN, compression="zstd")).total_s.expected > made(basis()).total_s.expected


@pytest.mark.parametrize("share", [0.2, 0.55, 0.9])
def test_what_a_sample_leaves_is_expected_of_all(share: float) -> None:
    """Within a narrower range than where nobody has tried, and never more than all of it."""
    slow, packed = basis(bytes_s=25e6), replace(PLAN, compression="zstd")
    assert slow.memory is not None
    tried = made(replace(slow, memory=replace(slow.memory, compressed_share=share)), packed).bytes
    assert tried.expected == pytest.approx(share * made(slow).bytes.expected, rel=0.02)
    assert tried.high <= 1.03 * made(slow).bytes.high
    unknown = made(slow, packed).bytes
    assert tried.high / tried.low < unknown.high / unknown.low
