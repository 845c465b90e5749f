"""Migrations from end to end between two managers, on fakes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ldoms.hypervisor.engine import Guest
from ldoms.hypervisor.states import RunState
from ldoms.migration.clock import GUEST_ANSWER_S
from ldoms.model.codec import from_wire
from ldoms.model.errors import Busy, RequestError
from ldoms.model.guest import TimeService
from ldoms.model.migration import LimitChanges, MigrationReport, Outcome, Progress
from ldoms.model.operation import OperationStatus
from ldoms.model.tuning import TUNABLE
from unit.migration.harness import DOMAIN, FakeHost, Gates, Pair, migrating


def test_an_active_domain_moves_and_keeps_its_memory(tmp_path: Path) -> None:
    """It runs on the target with what it had, and nothing is left on the source."""

    async def work(pair: Pair) -> None:
        operation = await pair.wait(pair.migrate())
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert pair.runs_on() == ["t4-2"]
        assert pair.target.guest is not None
        assert pair.target.guest.memory == 42
        assert pair.target.guest.announced == 1

    migrating(tmp_path, work)


def test_whoever_follows_a_migration_sees_how_the_copy_does(tmp_path: Path) -> None:
    """The figures of the hypervisor, while memory is copied: what was sent, what is changed, what is held back."""

    async def work(pair: Pair) -> None:
        started = pair.migrate()
        seen = [known.figures async for known in pair.manager.host.operations.follow(started.id)]
        copies = [from_wire(Progress, figures) for figures in seen if figures]
        assert copies
        assert all(one.status for one in copies)
        assert max(one.transferred_bytes for one in copies) > 0

    migrating(tmp_path, work)


@pytest.mark.parametrize("state", ["inactive", "bound"])
def test_a_domain_that_does_not_run_moves_in_the_same_state(tmp_path: Path, state: str) -> None:
    """Phases 1, 2 and 5 only."""

    async def work(pair: Pair) -> None:
        operation = await pair.wait(pair.migrate())
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert pair.target.domain_names == [DOMAIN]
        domain = pair.target.store.domain(DOMAIN)
        assert domain.is_bound == (state == "bound")
        phases = [phase["name"] for phase in operation.result["report"]["phases"]]
        assert phases == ["check", "prepare", "hand-off"]

    migrating(tmp_path, work, state)


def test_there_and_back_ten_times(tmp_path: Path) -> None:
    """A host that was the source becomes the target, and the other way round; epochs grow."""

    async def work(pair: Pair) -> None:
        for number in range(1, 11):
            operation = await pair.wait(pair.migrate())
            assert operation.status is OperationStatus.SUCCESS, operation.error
            await pair.settle()
            uuid = pair.target.store.domain(DOMAIN).uuid
            ownership = pair.target.store.ownership(uuid)
            assert ownership is not None
            assert ownership.epoch == number
            pair.source, pair.target = pair.target, pair.source
            pair.link.targets = {"t4-2": pair.target.manager.target}  # type: ignore[union-attr]

    migrating(tmp_path, work)


def test_a_guest_keeps_the_cpus_that_it_has(tmp_path: Path) -> None:
    """Those that it uses and those that are parked, by their numbers; it can be changed on after every move."""

    async def work(pair: Pair) -> None:
        async def move() -> None:
            operation = await pair.wait(pair.migrate())
            assert operation.status is OperationStatus.SUCCESS, operation.error
            await pair.settle()
            pair.source, pair.target = pair.target, pair.source
            pair.link.targets = {"t4-2": pair.target.manager.target}  # type: ignore[union-attr]

        async def change(vcpus: int, used: list[int], parked: tuple[int, ...]) -> None:
            await pair.manager.vcpus.set(DOMAIN, vcpus)
            for _ in range(2):
                bindings, guest = pair.source.store.domain(DOMAIN).bindings, pair.source.guest
                assert guest is not None
                assert bindings is not None
                assert ([vcpu.vid for vcpu in bindings.vcpus], bindings.parked) == (used, parked)
                assert (guest.vcpus, guest.offline) == (len(used) + len(parked), set(parked))
                assert guest.placement == pair.manager.host.placement(bindings)
                assert guest.spec.machine == bindings.machine
                await move()

        await change(4, [0, 1, 2, 3], ())
        assert pair.source.guest is not None
        pair.source.guest.agent.busy = {3}
        await change(2, [0, 3], (1, 2))
        await change(3, [0, 1, 3], (2,))
        await change(4, [0, 1, 2, 3], ())

    migrating(tmp_path, work)


def test_a_change_of_cpus_waits_for_the_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the domain that moves; those of the control domain change at once."""

    async def work(pair: Pair) -> None:
        gates = Gates(monkeypatch)
        gates.closed = "source-copy"
        operation = pair.migrate()
        await gates.reached.wait()
        with pytest.raises(Busy, match=r"operation migrate-domain .* is under way"):
            await pair.manager.vcpus.add(DOMAIN, 1)
        await pair.manager.vcpus.set("primary", 1)
        assert pair.source.engine.control is not None
        assert pair.source.engine.control.cpus == {0}
        await pair.manager.vcpus.set("primary", 4)
        gates.open()
        assert (await pair.wait(operation)).status is OperationStatus.SUCCESS

    migrating(tmp_path, work)


def test_it_moves_under_another_name(tmp_path: Path) -> None:
    """``HOST:NEWNAME``."""

    async def work(pair: Pair) -> None:
        operation = await pair.wait(pair.migrate(new_name="ldg2"))
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert pair.target.domain_names == ["ldg2"]

    migrating(tmp_path, work)


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    """Phase 1, and neither host is different afterwards."""

    async def work(pair: Pair) -> None:
        operation = await pair.wait(pair.migrate(dry_run=True))
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert pair.runs_on() == ["t4-1"]
        assert not pair.source.store.migrations()
        assert not pair.target.store.migrations()

    migrating(tmp_path, work)


def test_every_failing_check_is_reported_at_once(tmp_path: Path) -> None:
    """Several planted faults, all of them in the findings, and nothing is started."""

    async def work(pair: Pair) -> None:
        target = pair.target.manager
        assert target is not None
        await target.switches.remove("primary-vsw0", force=False)
        target.disk_services.remove_volume("primary-vds0", "root", force=False)
        target.concentrators.remove("primary-vcc0", force=False)
        operation = await pair.wait(pair.migrate())
        assert operation.error["code"] == "check-failed"
        rules = {finding["rule"] for finding in operation.error["findings"] if finding["severity"] == "error"}
        assert rules == {"switches", "volumes", "console"}
        assert "prepare" not in pair.link.calls

    migrating(tmp_path, work)


def test_a_wrong_password_ends_it_before_anything_happens(tmp_path: Path) -> None:
    """And the error does not have the password."""

    async def work(pair: Pair) -> None:
        operation = await pair.wait(pair.migrate(password="hunter2"))
        assert operation.error["code"] == "authentication-failed"
        assert "hunter2" not in str(operation)
        assert pair.runs_on() == ["t4-1"]

    migrating(tmp_path, work)


def test_the_report_has_the_facts(tmp_path: Path) -> None:
    """Phases with their times, passes, both suspensions, the plan and why; stored on both hosts."""

    async def work(pair: Pair) -> None:
        operation = await pair.wait(pair.migrate())
        await pair.settle()
        await asyncio.sleep(30)
        for host in (pair.source, pair.target):
            (record,) = host.store.migrations()
            report = record.report
            assert report.id == operation.id
            assert report.outcome is Outcome.DONE
            assert [phase.name.value for phase in report.phases] == ["check", "prepare", "copy", "suspend", "hand-off"]
            assert report.passes
            assert report.downtime_s == pytest.approx(0.03)
            assert report.stop_resume_s is not None
            assert report.plan is not None
            assert set(report.plan.reasons) == {*TUNABLE, "encryption", "suspension", "bandwidth", "stall"} - {
                "throttle"
            }
            assert report.guest_clock is not None
            assert report.guest_time is not None
            assert report.guest_time.service is None

    migrating(tmp_path, work)


@pytest.mark.parametrize("synchronised", [True, False])
def test_the_target_knows_whether_the_guest_keeps_its_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, synchronised: bool
) -> None:
    """The source asks the guest before the move, the report has it, and the target acts on it."""
    told = []

    async def correct(guest: Guest, *, keeps_time: bool) -> None:
        told.append(keeps_time)

    monkeypatch.setattr("ldoms.migration.target.correct_guest_clock", correct)

    async def work(pair: Pair) -> None:
        assert pair.source.guest is not None
        pair.source.guest.agent.keeper = TimeService("chrony", synchronised)
        pair.source.guest.agent.error_s = 0.02
        operation = await pair.wait(pair.migrate())
        await pair.settle()
        assert told == [synchronised]
        seen = from_wire(MigrationReport, operation.result["report"])
        assert seen.guest_time is not None
        assert seen.guest_time.service == TimeService("chrony", synchronised)
        assert seen.guest_time.offset_s == pytest.approx(0.02, abs=0.01)
        assert ("guest-clock" in {finding.rule for finding in seen.findings}) != synchronised

    migrating(tmp_path, work)


def test_a_guest_that_does_not_tell_its_time_moves(tmp_path: Path) -> None:
    """It may take no longer than others to be moved: it is given a few seconds, in which the rest goes on."""

    async def never() -> TimeService | None:
        await asyncio.sleep(1_000)
        return None

    async def work(pair: Pair) -> None:
        assert pair.source.guest is not None
        pair.source.guest.agent.time_service = never  # type: ignore[method-assign]
        operation = await pair.wait(pair.migrate())
        assert operation.status is OperationStatus.SUCCESS, operation.error
        seen = from_wire(MigrationReport, operation.result["report"])
        assert seen.guest_time is None
        assert seen.phases[0].seconds <= GUEST_ANSWER_S + 1

    migrating(tmp_path, work)


def test_the_key_of_the_stream_is_nowhere_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes from manager to manager to QEMU, and is forgotten."""
    monkeypatch.setattr("ldoms.migration.source.secrets.token_hex", lambda size: "c0ffee" * 4)

    async def work(pair: Pair) -> None:
        await pair.wait(pair.migrate())
        await pair.settle()
        for host in (pair.source, pair.target):
            dump = "\n".join(host.store._db.iterdump())
            assert "c0ffee" not in dump
        assert pair.target.guest is not None
        assert pair.target.guest.key == ""

    migrating(tmp_path, work)


def test_changes_are_refused_while_it_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On both hosts, and the refusal names the operation."""

    async def work(pair: Pair) -> None:
        gates = Gates(monkeypatch)
        gates.closed = "source-suspend"
        operation = pair.migrate()
        await gates.reached.wait()
        for host in (pair.source, pair.target):
            manager = host.manager
            assert manager is not None
            with pytest.raises(Exception, match="migrate-domain") as caught:
                manager.domains.set_variables(DOMAIN, {"boot-file": "/other"})
            assert DOMAIN in str(caught.value)
            with pytest.raises(Exception, match="migrate-domain"):
                await manager.life.stop(DOMAIN, force=True)
        gates.open()
        assert (await pair.wait(operation)).status is OperationStatus.SUCCESS

    migrating(tmp_path, work)


@pytest.mark.parametrize("gate", ["source-check", "source-prepare", "target-prepare", "source-copy", "source-suspend"])
def test_a_cancel_in_any_phase_leaves_it_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str) -> None:
    """The guest runs on the source, the target is clean, and the domain can move the next time."""

    async def work(pair: Pair) -> None:
        gates = Gates(monkeypatch)
        gates.closed = gate
        operation = pair.migrate()
        await gates.reached.wait()
        cancelling = asyncio.create_task(pair.manager.migrations.cancel(DOMAIN, force=False))
        await asyncio.sleep(0.1)
        gates.open()
        await cancelling
        assert (await pair.wait(operation)).status is OperationStatus.CANCELLED
        await pair.settle()
        pair.check_sound()
        assert pair.runs_on() == ["t4-1"]
        gates.closed = ""
        assert (await pair.wait(pair.migrate())).status is OperationStatus.SUCCESS

    migrating(tmp_path, work)


def test_limits_are_changed_on_the_way(tmp_path: Path) -> None:
    """QEMU is told at the next look; a restart of the manager keeps them, and the report tells of them."""

    async def work(pair: Pair) -> None:
        pair.world.copy_s, pair.world.last_s = 20.0, 0.0
        pair.migrate(max_bandwidth_bytes_s=16 << 20, max_suspend_s=1.0)
        await asyncio.sleep(3.0)
        guest = pair.source.guest
        assert guest is not None
        assert guest.bandwidths == [16 << 20]
        pair.manager.migrations.change_limits(DOMAIN, LimitChanges(max_bandwidth_bytes_s=0, max_time_s=900.0), "tracy")
        await asyncio.sleep(1.0)
        assert guest.bandwidths == [16 << 20, 0]
        pair.manager.migrations.change_limits(DOMAIN, LimitChanges(max_suspend_s=0.012, max_time_s=900.0), "root")
        await asyncio.sleep(1.0)
        assert guest.downtime_limits == [pytest.approx(0.008)], "QEMU must not use what is allowed no more"
        await pair.source.restart()
        await asyncio.sleep(1.0)
        assert guest.bandwidths == [16 << 20, 0, 0], "nobody knows what QEMU was told before a restart"
        assert guest.downtime_limits == [pytest.approx(0.008)] * 2
        await pair.settle()
        (record,) = pair.source.store.migrations()
        assert record.report.outcome is Outcome.DONE
        assert (record.options.max_bandwidth_bytes_s, record.options.max_suspend_s) == (0, 0.012)
        assert record.plan == record.report.plan
        assert record.plan is not None
        assert (record.plan.max_suspend_s, record.plan.max_time_s) == (0.012, 900.0)
        assert "changed on the way" in record.plan.reasons["bandwidth"]
        changes = [(one.user, one.name, one.before, one.after) for one in record.report.changes]
        assert changes == [
            ("tracy", "max_bandwidth_bytes_s", 16 << 20, 0),
            ("tracy", "max_time_s", 0.0, 900.0),
            ("root", "max_suspend_s", 1.0, 0.012),
        ]

    migrating(tmp_path, work)


@pytest.mark.parametrize("gate", ["source-check", "source-prepare", "target-prepared"])
def test_limits_are_changed_before_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str) -> None:
    """The copy begins with them."""

    async def work(pair: Pair) -> None:
        gates = Gates(monkeypatch)
        gates.closed = gate
        operation = pair.migrate()
        await gates.reached.wait()
        pair.manager.migrations.change_limits(DOMAIN, LimitChanges(max_bandwidth_bytes_s=5, max_suspend_s=2.0), "root")
        guest = pair.source.guest
        assert guest is not None
        gates.open()
        done = await pair.wait(operation)
        assert done.status is OperationStatus.SUCCESS, done.error
        assert guest.bandwidths == [5]
        report = from_wire(MigrationReport, done.result["report"])
        assert report.plan is not None
        assert (report.plan.max_bandwidth_bytes_s, report.plan.max_suspend_s) == (5, 2.0)

    migrating(tmp_path, work)


@pytest.mark.parametrize("gate", ["source-suspend", "source-handing-off", "target-taken"])
def test_limits_stay_once_the_guest_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate: str) -> None:
    """One sentence says so, as it does on the target, and where no migration is under way."""

    async def refused(pair: Pair, host: FakeHost, code: str) -> None:
        assert host.manager is not None
        with pytest.raises(RequestError) as caught:
            host.manager.migrations.change_limits(DOMAIN, LimitChanges(max_time_s=1.0), "root")
        assert caught.value.code == code

    async def work(pair: Pair) -> None:
        await refused(pair, pair.source, "no-migration")
        gates = Gates(monkeypatch)
        gates.closed = gate
        operation = pair.migrate()
        await gates.reached.wait()
        await refused(pair, pair.source, "too-late")
        if gate != "target-taken":
            await refused(pair, pair.target, "not-the-source")
        gates.open()
        assert (await pair.wait(operation)).status is OperationStatus.SUCCESS
        await pair.settle()
        await refused(pair, pair.target, "no-migration")

    migrating(tmp_path, work)


def test_a_bound_domain_has_no_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is copied; and a dry run copies nothing, either."""

    async def work(pair: Pair) -> None:
        for code, dry_run in (("no-migration", True), ("no-limits", False)):
            gates = Gates(monkeypatch)
            gates.closed = "source-check"
            operation = pair.migrate(dry_run=dry_run)
            await gates.reached.wait()
            with pytest.raises(RequestError) as caught:
                pair.manager.migrations.change_limits(DOMAIN, LimitChanges(max_time_s=1.0), "root")
            assert caught.value.code == code
            gates.open()
            assert (await pair.wait(operation)).status is OperationStatus.SUCCESS

    migrating(tmp_path, work, "bound")


def test_after_the_hand_off_it_cannot_be_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without force the refusal says what force would risk."""

    async def work(pair: Pair) -> None:
        gates = Gates(monkeypatch)
        gates.closed = "source-handing-off"
        operation = pair.migrate()
        await gates.reached.wait()
        with pytest.raises(Exception, match="on both hosts"):
            await pair.manager.migrations.cancel(DOMAIN, force=False)
        gates.open()
        assert (await pair.wait(operation)).status is OperationStatus.SUCCESS

    migrating(tmp_path, work)


def test_a_lost_target_is_settled_by_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The administrator says that the target is lost for good; the guest runs on the source again."""

    async def work(pair: Pair) -> None:
        gates = Gates(monkeypatch)
        gates.closed = "source-handing-off"
        operation = pair.migrate()
        await gates.reached.wait()
        await pair.target.stop()
        assert pair.target.guest is not None
        pair.target.guest.die()
        gates.open()
        await asyncio.sleep(60)
        status = pair.manager.migrations.status(pair.source.store.domain(DOMAIN))
        assert status is not None
        assert status.error
        assert pair.runs_on() == []
        await pair.manager.migrations.cancel(DOMAIN, force=True)
        assert (await pair.wait(operation)).error["code"] == "reclaimed"
        assert pair.runs_on() == ["t4-1"]
        await pair.target.start()

    migrating(tmp_path, work)


def test_a_complete_copy_whose_source_is_lost_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source's host is gone for good after everything was sent: the target's administrator lets it run there."""

    async def work(pair: Pair) -> None:
        gates = Gates(monkeypatch)
        gates.closed = "source-hand-off"
        pair.migrate()
        await gates.reached.wait()
        source_guest = pair.source.guest
        assert source_guest is not None
        await pair.source.stop()
        source_guest.die()
        target = pair.target.manager
        assert target is not None
        with pytest.raises(Exception, match="alive"):
            await target.migrations.claim(DOMAIN)
        await asyncio.sleep(120)
        status = target.migrations.status(pair.target.store.domain(DOMAIN))
        assert status is not None
        assert status.error
        await target.migrations.claim(DOMAIN)
        assert pair.runs_on() == ["t4-2"]
        # The source comes back, asks, and removes what it has.
        await pair.source.start()

    migrating(tmp_path, work)


def test_a_copy_whose_source_is_silent_is_discarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By force, as it may be the only one; the source asks when it is back, and goes on with its own."""

    async def work(pair: Pair) -> None:
        gates = Gates(monkeypatch)
        gates.closed = "source-handing-off"
        pair.migrate()
        await gates.reached.wait()
        await pair.source.stop()
        target = pair.target.manager
        assert target is not None
        with pytest.raises(RequestError, match="is led by its source"):
            await target.migrations.cancel(DOMAIN, force=True)
        await asyncio.sleep(120)
        with pytest.raises(RequestError, match="'ldm cancel-operation -f migration ldg1' discards the copy") as caught:
            await target.migrations.cancel(DOMAIN, force=False)
        assert caught.value.code == "source-silent"
        await target.migrations.cancel(DOMAIN, force=True)
        assert pair.target.domain_names == []
        gates.open()
        await pair.source.start()
        await asyncio.sleep(60)
        assert pair.runs_on() == ["t4-1"]

    migrating(tmp_path, work)


def test_the_guest_of_a_refused_migration_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target's QEMU cannot let it run: a refusal, and the guest goes on where it was."""

    async def work(pair: Pair) -> None:
        gates = Gates(monkeypatch)
        gates.closed = "target-taken"
        operation = pair.migrate()
        await gates.reached.wait()
        assert pair.target.guest is not None
        pair.target.guest.refuses_to_run = True
        gates.open()
        ended = await pair.wait(operation)
        assert ended.error["code"] == "refused"
        assert pair.runs_on() == ["t4-1"]

    migrating(tmp_path, work)


def test_a_guest_comes_back_from_a_target_that_has_fallen_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target's QEMU answers nothing and was never told to run: it is ended, and the source goes on."""

    async def work(pair: Pair) -> None:
        gates = Gates(monkeypatch)
        gates.closed = "target-taken"
        operation = pair.migrate()
        await gates.reached.wait()
        assert pair.target.guest is not None
        pair.target.guest.hangs = True
        gates.open()
        ended = await pair.wait(operation)
        assert ended.error["code"] == "refused"
        assert pair.runs_on() == ["t4-1"]

    migrating(tmp_path, work)


def test_a_domain_whose_guest_was_killed_is_bound(tmp_path: Path) -> None:
    """Nothing to do with a migration, but the same books: a guest that ends leaves a bound domain."""

    async def work(pair: Pair) -> None:
        guest = pair.source.guest
        assert guest is not None
        guest.die()
        await asyncio.sleep(1)
        assert pair.runs_on() == []
        assert guest.run_state is RunState.CRASHED
        await pair.manager.life.start(DOMAIN)
        assert pair.runs_on() == ["t4-1"]

    migrating(tmp_path, work)
