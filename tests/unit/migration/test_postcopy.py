"""A guest that goes over before all of its memory has: it is fetched, whatever breaks; or the guest is lost, and told.

Until then the guest needs both hosts. Nothing that happens makes it run twice, or leaves anything behind.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ldoms.hypervisor.states import IN_POSTCOPY, MigrationStatus
from ldoms.migration.postcopy import RECOVERY_S, STILL_S, Step, next_step
from ldoms.model.errors import HostError, RequestError
from ldoms.model.migration import MigrationReport, OnStall, Outcome, Postcopy
from ldoms.model.operation import Operation, OperationStatus
from ldoms.model.phases import POSTCOPY
from unit.migration.harness import DOMAIN, Gates, Pair, migrating

HOT_BYTES = 400_000_000
"""More than the fake link sends within any suspension that is promised here."""


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Gates:
    return Gates(monkeypatch)


def begin(pair: Pair, rest_s: float = 20.0, **options: object) -> Operation:
    """Begin to move a guest that precopy cannot move."""
    pair.world.hot_bytes, pair.world.rest_s = HOT_BYTES, rest_s
    return pair.migrate(on_stall=OnStall.POSTCOPY, **options)


async def fetching(pair: Pair, operation: Operation) -> None:
    """Return when the guest runs on the target and lacks memory."""
    while pair.manager.host.operations.get(operation.id).phase != POSTCOPY:
        assert not pair.manager.host.operations.get(operation.id).is_over, pair.describe()
        await asyncio.sleep(0.05)
    assert pair.runs_on() == ["t4-2"]


def last_report(pair: Pair) -> MigrationReport:
    return pair.source.store.migrations()[-1].report


def part(pair: Pair) -> Postcopy:
    """The part of the report about postcopy."""
    known = last_report(pair).postcopy
    assert known is not None
    return known


def test_a_guest_that_precopy_cannot_move_goes_over(tmp_path: Path) -> None:
    """It runs on the target while the rest comes; the report says since when, for how long, and how much."""

    async def work(pair: Pair) -> None:
        started = begin(pair)
        await fetching(pair, started)
        assert pair.source.guest is not None, "the source serves pages"
        operation = await pair.wait(started)
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert pair.runs_on() == ["t4-2"]
        assert pair.target.guest is not None
        assert pair.target.guest.memory == 42
        report, known = last_report(pair), part(pair)
        assert report.stall is not None
        assert report.stall.measures == ("handed over before the rest",)
        assert report.stop_resume_s is not None
        assert report.stop_resume_s <= report.resumed_at
        assert known.seconds >= pair.world.rest_s
        assert (known.recoveries, known.broken_s, known.is_lost) == (0, 0.0, False)
        assert known.sent_bytes > 0
        assert known.missing_bytes > 0

    migrating(tmp_path, work)


def test_a_guest_that_precopy_can_move_does_not_need_it(tmp_path: Path) -> None:
    """What is only allowed is not done; nothing of it is left in either QEMU."""

    async def work(pair: Pair) -> None:
        operation = await pair.wait(pair.migrate(on_stall=OnStall.POSTCOPY))
        assert operation.status is OperationStatus.SUCCESS, operation.error
        await pair.settle()
        assert last_report(pair).postcopy is None
        assert pair.target.guest is not None
        assert pair.target.guest.plan is None

    migrating(tmp_path, work)


@pytest.mark.parametrize("with_managers", [True, False], ids=["data and managers", "data alone"])
def test_a_cut_link_is_mended_by_itself(tmp_path: Path, with_managers: bool) -> None:
    """For half a minute, and more than once: the guest has all of its memory in the end, and runs where it went.

    A connection that comes back by itself, before the target can be asked for another one, is left as it is.
    """

    async def work(pair: Pair) -> None:
        started = begin(pair)
        await fetching(pair, started)
        for _ in range(2):
            await asyncio.sleep(3.0)
            pair.world.links_up, pair.link.is_up = False, not with_managers
            await asyncio.sleep(30.0)
            pair.world.links_up = pair.link.is_up = True
        operation = await pair.wait(started)
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert pair.runs_on() == ["t4-2"]
        assert part(pair).recoveries == (0 if with_managers else 2)
        assert part(pair).broken_s > 50

    migrating(tmp_path, work)


@pytest.mark.parametrize("who", ["source", "target", "both"])
@pytest.mark.parametrize("cut", [False, True], ids=["link up", "link cut"])
def test_a_restart_of_a_manager_goes_on(tmp_path: Path, who: str, cut: bool) -> None:
    """While pages are missing, also when the link is cut just then: QEMU goes on, and the rest comes."""

    async def work(pair: Pair) -> None:
        await fetching(pair, begin(pair))
        pair.world.links_up = not cut
        for name in ("source", "target"):
            if who in (name, "both"):
                await getattr(pair, name).stop()
        await asyncio.sleep(15.0)
        pair.world.links_up = True
        for name in ("target", "source"):
            if who in (name, "both"):
                await getattr(pair, name).start()
        await pair.settle()
        assert last_report(pair).outcome is Outcome.DONE, pair.describe()
        assert pair.runs_on() == ["t4-2"]
        assert part(pair).sent_bytes == pair.world.rest_s * 1e8

    migrating(tmp_path, work)


GATES = ["source-suspend", "source-hand-off", "source-sent-all", "source-handing-off", "target-take-over"]
GATES += ["target-taken", "target-running", "source-peer-took"]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("who", ["source", "target"])
def test_a_manager_that_dies_at_a_gate_goes_on(tmp_path: Path, gates: Gates, gate: str, who: str) -> None:
    """Wherever the hand-off of a guest in parts is: after the restart it comes to the same end."""

    async def work(pair: Pair) -> None:
        gates.closed = gate
        begin(pair)
        await gates.reached.wait()
        host = getattr(pair, who)
        await host.stop()
        gates.open(crashed=who)
        await asyncio.sleep(2.0)
        await host.start()
        await pair.settle()
        if gate == "source-suspend":  # QEMU waits for a word, and may still be told that it is off
            assert pair.runs_on() == (["t4-1"] if who == "target" else ["t4-2"])
        else:
            assert last_report(pair).outcome is Outcome.DONE
            assert pair.runs_on() == ["t4-2"]

    migrating(tmp_path, work)


@pytest.mark.parametrize("lost", ["finish", "status", "listen-again", "abort"])
def test_answers_that_are_lost_change_nothing(tmp_path: Path, lost: str) -> None:
    """Each may be asked again."""

    async def work(pair: Pair) -> None:
        started = begin(pair)
        await fetching(pair, started) if lost != "finish" else await asyncio.sleep(10.0)
        pair.link.lose_answers.add(lost)
        pair.world.links_up = False
        await asyncio.sleep(12.0)
        pair.world.links_up = True
        await asyncio.sleep(20.0)
        pair.link.lose_answers.clear()
        operation = await pair.wait(started)
        assert operation.status is OperationStatus.SUCCESS, operation.error

    migrating(tmp_path, work)


async def lost(pair: Pair, started: Operation, on: str) -> str:
    """The sentence about a guest that was lost; its domain is bound on that host, and can be started there."""
    operation = await pair.wait(started)
    assert operation.status is OperationStatus.FAILURE
    await pair.settle()
    assert pair.runs_on() == []
    host = pair.source if on == "t4-1" else pair.target
    assert host.domain_names == [DOMAIN]
    assert host.guest is None
    assert last_report(pair).outcome is Outcome.FAILED
    assert host.manager is not None
    await host.manager.life.start(DOMAIN)
    assert pair.runs_on() == [on]
    return str(operation.error["message"])


@pytest.mark.parametrize("cut", [False, True], ids=["link up", "link cut"])
def test_when_the_targets_qemu_dies_the_guest_is_lost(tmp_path: Path, cut: bool) -> None:
    """That is said; the domain is on the target, nothing is left on the source, and it can be started anew."""

    async def work(pair: Pair) -> None:
        started = begin(pair)
        await fetching(pair, started)
        pair.world.links_up = not cut
        assert pair.target.guest is not None
        pair.target.guest.die()
        told = await lost(pair, started, "t4-2")
        assert told.startswith("the guest has ended on t4-2 before all of its memory had come")
        assert "'ldm start-domain ldg1' starts it anew" in told
        assert part(pair).is_lost

    migrating(tmp_path, work)


@pytest.mark.parametrize("cut", [False, True], ids=["link up", "link cut"])
def test_a_guest_that_shuts_down_meanwhile_is_not_lost(tmp_path: Path, cut: bool) -> None:
    """It needs no more memory: it has moved, and is bound on the target."""

    async def work(pair: Pair) -> None:
        started = begin(pair)
        await fetching(pair, started)
        pair.world.links_up = not cut
        assert pair.target.guest is not None
        await pair.target.guest.press_power_button()
        await asyncio.sleep(2 * STILL_S)
        pair.world.links_up = True
        operation = await pair.wait(started)
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert pair.runs_on() == []
        assert not [one for one in pair.source.store.domains() if one.name == DOMAIN]
        assert pair.target.store.domain(DOMAIN).is_bound
        assert (last_report(pair).outcome, part(pair).is_lost) == (Outcome.DONE, False)
        assert pair.target.store.migrations()[-1].report.outcome is Outcome.DONE

    migrating(tmp_path, work)


def test_when_the_sources_qemu_dies_the_guest_is_lost(tmp_path: Path) -> None:
    """The target's hangs, as a page will never come: it is ended there, and all of that is told."""

    async def work(pair: Pair) -> None:
        started = begin(pair)
        await fetching(pair, started)
        assert pair.source.guest is not None
        pair.source.guest.die()
        await lost(pair, started, "t4-2")
        assert "QEMU on t4-1 has ended" in pair.target.store.migrations()[-1].report.cause

    migrating(tmp_path, work)


@pytest.mark.parametrize("who", ["source", "target"])
def test_a_host_that_loses_its_power_takes_the_guest_with_it(tmp_path: Path, who: str) -> None:
    """When it is back, both hosts come to an end of it by themselves."""

    async def work(pair: Pair) -> None:
        await fetching(pair, begin(pair))
        host = getattr(pair, who)
        await host.lose_power()
        await asyncio.sleep(20.0)
        await host.start()
        await pair.settle()
        assert last_report(pair).outcome is Outcome.FAILED
        assert pair.target.domain_names == [DOMAIN]

    migrating(tmp_path, work)


@pytest.mark.parametrize("gate", ["source-handing-off", "target-take-over"])
def test_a_target_that_dies_before_it_has_taken_over_loses_the_guest(tmp_path: Path, gates: Gates, gate: str) -> None:
    """QEMU on the source cannot go back either: the domain stays there, and can be started anew."""

    async def work(pair: Pair) -> None:
        gates.closed = gate
        started = begin(pair)
        await gates.reached.wait()
        assert pair.target.guest is not None
        pair.target.guest.die()
        gates.open()
        told = await lost(pair, started, "t4-1")
        assert "its guest is lost, as it had been sent in parts" in told

    migrating(tmp_path, work)


def test_it_cannot_be_cancelled_any_more(tmp_path: Path) -> None:
    """On either host, with a sentence that says what can be done; nor can the domain be changed, or move on."""

    async def work(pair: Pair) -> None:
        started = begin(pair)
        await fetching(pair, started)
        assert pair.target.manager is not None
        for manager in (pair.manager, pair.target.manager):
            with pytest.raises(RequestError) as caught:
                await manager.migrations.cancel(DOMAIN, force=False)
            assert caught.value.code == "in-postcopy"
        with pytest.raises(RequestError) as caught:
            await pair.target.manager.vcpus.set(DOMAIN, 1)
        assert caught.value.code == "in-postcopy"
        (view,) = pair.target.manager.listing.domains([DOMAIN])
        assert (view.status.state, view.status.flags[5]) == ("active", "t")
        assert view.status.migration is not None
        assert view.status.migration.phase == POSTCOPY
        assert (await pair.wait(started)).status is OperationStatus.SUCCESS

    migrating(tmp_path, work)


def test_a_target_that_is_lost_for_good_is_settled_by_force(tmp_path: Path) -> None:
    """The guest is lost with it; the domain comes back to the source, and the target, if it returns, gives it up."""

    async def work(pair: Pair) -> None:
        started = begin(pair)
        await fetching(pair, started)
        await pair.target.lose_power()
        await asyncio.sleep(30.0)
        await pair.manager.migrations.cancel(DOMAIN, force=True)
        operation = await pair.wait(started)
        assert operation.error["code"] == "reclaimed"
        assert "its guest is lost" in operation.error["message"]
        assert pair.source.guest is None
        await pair.target.start()

    migrating(tmp_path, work)


def test_a_source_that_is_lost_for_good_leaves_a_guest_that_can_be_ended(tmp_path: Path) -> None:
    """Its QEMU hangs and says nothing; the flag e shows it, and stop-domain -f ends it."""

    async def work(pair: Pair) -> None:
        await fetching(pair, begin(pair))
        await pair.source.lose_power()
        await asyncio.sleep(60.0)
        assert pair.target.manager is not None
        (view,) = pair.target.manager.listing.domains([DOMAIN])
        assert (view.status.state, view.status.flags[5]) == ("active", "e")
        await pair.target.manager.life.stop(DOMAIN, force=True)
        assert pair.runs_on() == []
        await pair.source.start()

    migrating(tmp_path, work)


def test_a_suspension_is_not_promised_to_a_silent_target(tmp_path: Path) -> None:
    """Its manager has to answer at the last moment at which the guest can stay; else it does."""

    async def work(pair: Pair) -> None:
        pair.world.hot_bytes = HOT_BYTES
        started = pair.migrate(on_stall=OnStall.POSTCOPY)
        guest = pair.source.guest
        assert guest is not None
        while guest.status != MigrationStatus.PRE_SWITCHOVER:
            if guest.status == MigrationStatus.ACTIVE and guest._goes_over:
                pair.link.is_up = False
            await asyncio.sleep(0.001)
        operation = await pair.wait(started)
        assert operation.error["code"] == "peer-silent"
        assert pair.runs_on() == ["t4-1"]
        pair.link.is_up = True

    migrating(tmp_path, work)


def test_the_last_part_of_a_guest_in_parts_is_not_cut_off(tmp_path: Path) -> None:
    """Although it is late: QEMU may have passed the point at which the guest can go back."""

    async def work(pair: Pair) -> None:
        pair.world.late_s = [1.0]
        operation = await pair.wait(begin(pair))
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert part(pair).seconds > 0

    migrating(tmp_path, work)


def test_an_answer_of_qemu_that_is_lost_does_not_take_a_guest_in_parts_back(tmp_path: Path) -> None:
    """It was told to send the last part, has not said so, and has done it: from there is no way but on."""

    async def work(pair: Pair) -> None:
        guest = pair.source.guest
        assert guest is not None
        tell = guest.continue_switchover

        async def silently() -> None:
            await tell()
            while guest.status not in IN_POSTCOPY:
                await asyncio.sleep(0.01)
            raise HostError("migrate-continue: QEMU did not answer in time", code="qemu-silent")

        guest.continue_switchover = silently  # type: ignore[method-assign]
        operation = await pair.wait(begin(pair))
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert part(pair).seconds > 0

    migrating(tmp_path, work)


def test_a_connection_on_which_all_was_sent_is_left_alone(tmp_path: Path) -> None:
    """QEMU would give up for good if it broke then: the kernel sends what it has when the link is back."""

    async def work(pair: Pair) -> None:
        started = begin(pair, rest_s=2.0)
        await fetching(pair, started)
        assert pair.source.guest is not None
        while (await pair.source.guest.progress()).remaining_bytes:
            await asyncio.sleep(0.01)
        pair.world.links_up = False
        await asyncio.sleep(3 * STILL_S)
        pair.world.links_up = True
        operation = await pair.wait(started)
        assert operation.status is OperationStatus.SUCCESS, operation.error
        assert part(pair).recoveries == 0

    migrating(tmp_path, work)


@pytest.mark.parametrize(
    ("status", "still_s", "left_bytes", "step"),
    [
        ("postcopy-active", 0.0, 4096, Step.WAIT),
        ("postcopy-active", STILL_S + 1, 4096, Step.MEND),
        ("postcopy-active", 10 * STILL_S, 0, Step.WAIT),
        ("postcopy-recover", STILL_S + 1, 4096, Step.WAIT),
        ("postcopy-recover-setup", RECOVERY_S + 1, 4096, Step.MEND),
        ("postcopy-something-new", STILL_S + 1, 4096, Step.WAIT),
        ("postcopy-paused", 0.0, 4096, Step.MEND),
        ("completed", 0.0, 4096, Step.DONE),
        ("failed", 0.0, 4096, Step.ASK),
        ("none", 0.0, 4096, Step.ASK),
    ],
)
def test_what_is_done_about_a_postcopy(status: str, still_s: float, left_bytes: int, step: Step) -> None:
    """By what QEMU says, and how long nothing has moved; what is not known is waited for."""
    assert next_step(status, still_s, left_bytes) is step
