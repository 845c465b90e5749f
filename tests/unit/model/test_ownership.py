"""The hand-off, explored: everything that can happen to the ownership table, in every order.

The world is one migration: a source, a target, the messages between them, and their QEMUs. Every step that reality
may take is a step here: messages are delayed, lost and doubled; each manager crashes at any moment, between making a
record durable and acting on it too, and starts again; the target's QEMU dies, or refuses to run; the source cancels;
an administrator settles by force. What the managers do is looked up in the real table, `ldoms.model.ownership`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from ldoms.model import ownership
from ldoms.model.ownership import (
    ON_RESTART,
    Action,
    IllegalTransition,
    OwnerEvent,
    Ownership,
    OwnerState,
    Step,
    Verdict,
    advance,
    announce,
    verdict_of,
)

MAX_IN_FLIGHT = 2
MAX_CRASHES = 3
MAX_EPOCH = 3
"""A wrong table may hand a domain over for ever; three times is enough to see it."""


@dataclass(frozen=True)
class World:
    """Everything that matters of one migration.

    Attributes:
        source, target: what is on their disks.
        verdict: of the target, on its disk.
        source_runs, target_runs: their guests.
        source_has, target_has: a copy that could run: False once it is removed, or its QEMU has died.
        sent: QEMU has handed everything over; the source's guest is stopped.
        called_off: the source has decided against the migration; on its disk before its guest runs again.
        to_do_source, to_do_target: an action that is due, and forgotten by a crash.
        told: the target has told its verdict.
        flight: messages on their way.
    """

    source: Ownership
    target: Ownership
    verdict: Verdict | None = None
    source_runs: bool = True
    target_runs: bool = False
    source_has: bool = True
    target_has: bool = True
    sent: bool = False
    called_off: bool = False
    to_do_source: Action = Action.NOTHING
    to_do_target: Action = Action.NOTHING
    told: bool = False
    flight: tuple[str, ...] = ()
    crashes: int = 0


def beginning() -> World:
    """The target has announced the domain; memory is about to flow."""
    source = Ownership("u", 0, OwnerState.OWNER, "m")
    return World(source, announce(None, "u", 1, "m"))


def send(world: World, message: str) -> World:
    if world.flight.count(message) >= MAX_IN_FLIGHT:
        return world
    return replace(world, flight=tuple(sorted((*world.flight, message))))


def good_steps(world: World) -> Iterator[tuple[str, World]]:
    """What the managers and QEMU do when nothing is against them."""
    yield from source_steps(world)
    yield from target_steps(world)
    for message in sorted(set(world.flight)):
        rest = list(world.flight)
        rest.remove(message)
        yield from deliver(message, replace(world, flight=tuple(rest)))


def bad_steps(world: World) -> Iterator[tuple[str, World]]:
    """What may get in their way."""
    for message in sorted(set(world.flight)):
        rest = list(world.flight)
        rest.remove(message)
        yield f"lose {message}", replace(world, flight=tuple(rest))
        if len(world.flight) < MAX_IN_FLIGHT:
            yield f"double {message}", send(world, message)
    if world.crashes < MAX_CRASHES:
        crashed = replace(world, crashes=world.crashes + 1)
        yield "source restarts", replace(crashed, to_do_source=ON_RESTART[world.source.state])
        again = ON_RESTART[world.target.state]
        if world.target.state is OwnerState.OWNER and world.verdict is Verdict.TAKEN:
            again = Action.RUN
        yield "target restarts", replace(crashed, to_do_target=again)
    if world.target_has and not world.target_runs:
        yield "target's QEMU dies", replace(world, target_has=False)
    if world.source.state is OwnerState.OWNER and not world.called_off and not world.sent:
        yield "source cancels", replace(world, called_off=True)
    if world.source.state is OwnerState.OWNER and world.sent and not world.called_off:
        # Cancelled at the last moment: everything was sent, but nothing is recorded yet.
        yield "source cancels late", replace(world, called_off=True)


def source_steps(world: World) -> Iterator[tuple[str, World]]:
    state = world.source.state
    if state is OwnerState.OWNER and not world.called_off and not world.sent and world.verdict is None:
        if world.target_has:
            yield "everything is sent", replace(world, sent=True, source_runs=False)
        else:
            yield "copy fails", replace(world, called_off=True)
    if state is OwnerState.OWNER and world.sent and not world.called_off and world.to_do_source is Action.NOTHING:
        yield "source lets go", act_source(world, OwnerEvent.SENT_ALL)
    if world.to_do_source is Action.RESUME:
        yield "source resumes", replace(world, to_do_source=Action.NOTHING, source_runs=world.source_has)
    if world.to_do_source is Action.REMOVE:
        yield "source removes", replace(world, to_do_source=Action.NOTHING, source_has=False, source_runs=False)
    if state is OwnerState.HANDING_OFF:
        yield "source asks", send(replace(world, to_do_source=Action.NOTHING), "finish")
    if state is OwnerState.OWNER and world.called_off:
        yield "source calls it off", send(replace(world, source_runs=world.source_has), "abort")


def act_source(world: World, event: OwnerEvent) -> World:
    after, action = advance(world.source, event)
    called_off = world.called_off or event is OwnerEvent.PEER_REFUSED
    return replace(world, source=after, to_do_source=action, called_off=called_off)


def target_steps(world: World) -> Iterator[tuple[str, World]]:
    if world.to_do_target is Action.RUN:
        if world.target_has:
            yield "target runs", replace(world, to_do_target=Action.NOTHING, target_runs=True)
            if not world.told and not world.target_runs:
                refused = replace(world, to_do_target=Action.NOTHING)
                yield "target's QEMU refuses to run", decide_target(refused, OwnerEvent.CANNOT_RUN)
        elif not world.told:
            # It has died before it was told to run, and this manager knows that it was not.
            yield (
                "target finds its QEMU dead",
                decide_target(replace(world, to_do_target=Action.NOTHING), OwnerEvent.CANNOT_RUN),
            )
        else:
            yield "target's guest has crashed", replace(world, to_do_target=Action.NOTHING)
    if world.to_do_target is Action.DISCARD:
        yield "target discards", replace(world, to_do_target=Action.NOTHING, target_has=False, target_runs=False)
    if world.target.state is OwnerState.INCOMING and not world.target_has:
        yield "target gives up", decide_target(world, OwnerEvent.GIVE_UP)


def decide_target(world: World, event: OwnerEvent) -> World:
    after, action = advance(world.target, event)
    return replace(world, target=after, verdict=verdict_of(event), to_do_target=action)


def deliver(message: str, world: World) -> Iterator[tuple[str, World]]:
    if message in ("finish", "abort"):
        yield f"deliver {message}", asked(world, message)
    elif world.source.state is OwnerState.HANDING_OFF:
        event = OwnerEvent.PEER_TOOK if message == Verdict.TAKEN else OwnerEvent.PEER_REFUSED
        yield f"deliver {message}", act_source(world, event)
    else:
        yield f"deliver {message}, too late to matter", world


def asked(world: World, message: str) -> World:
    if world.to_do_target is not Action.NOTHING:
        return world  # it is in the middle of an earlier call, and answers when that is done
    if world.verdict is None:
        complete = message == "finish" and world.sent and world.target_has
        return send(decide_target(world, OwnerEvent.TAKE_OVER if complete else OwnerEvent.GIVE_UP), message)
    return send(replace(world, told=True), world.verdict.value)


def explore(start: World) -> dict[World, list[tuple[str, World]]]:
    """Every world that can be reached, with the good steps out of each."""
    found: dict[World, list[tuple[str, World]]] = {}
    pending = [start]
    while pending:
        world = pending.pop()
        if world in found:
            continue
        if world.source.epoch > MAX_EPOCH:
            found[world] = []
            continue
        found[world] = list(good_steps(world))
        pending += [after for _, after in (*found[world], *bad_steps(world))]
    return found


def runs_twice(world: World) -> bool:
    return world.source_runs and world.target_runs


def is_settled(world: World) -> bool:
    """The guest runs on one host, which knows that it owns it; or every copy of it has died."""
    if world.source_runs and not world.target_runs:
        return world.source.state is OwnerState.OWNER
    if world.target_runs and not world.source_runs:
        return world.target.state is OwnerState.OWNER
    return False


def cannot_settle(worlds: dict[World, list[tuple[str, World]]]) -> list[World]:
    """Worlds from which no run of good steps leads to one that is settled."""
    before: dict[World, list[World]] = {world: [] for world in worlds}
    for world, steps in worlds.items():
        for _, after in steps:
            before[after].append(world)
    reached = {world for world in worlds if is_settled(world)}
    pending = list(reached)
    while pending:
        for world in before[pending.pop()]:
            if world not in reached:
                reached.add(world)
                pending.append(world)
    return [world for world in worlds if world not in reached]


def can_succeed(worlds: dict[World, list[tuple[str, World]]]) -> bool:
    """Whether a migration with nothing against it ends on the target."""
    pending, seen = [beginning()], set()
    while pending:
        world = pending.pop()
        if world.target_runs and not world.source_has and not world.source_runs:
            return True
        if world not in seen:
            seen.add(world)
            pending += [after for _, after in worlds[world]]
    return False


def lost_for_a_reason(world: World) -> bool:
    """The target took over, and then its QEMU died: that is a crash of the guest, on the host that owns it."""
    return world.target.state is OwnerState.OWNER and not world.target_has


def test_never_runs_twice_and_always_settles() -> None:
    """Whatever is lost, doubled or crashes: one owner at most, and once messages flow, exactly one."""
    worlds = explore(beginning())
    assert len(worlds) > 1000, "the exploration is too small to mean anything"
    assert not [world for world in worlds if runs_twice(world)]
    assert not [world for world in cannot_settle(worlds) if not lost_for_a_reason(world)]
    assert can_succeed(worlds)


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        pytest.param(
            (OwnerState.INCOMING, OwnerEvent.TAKE_OVER),
            Step(OwnerState.INCOMING, Action.RUN),
            id="the target runs without a durable record",
        ),
        pytest.param(
            (OwnerState.HANDING_OFF, OwnerEvent.PEER_TOOK),
            Step(OwnerState.OWNER, Action.RESUME),
            id="the source resumes although the target has it",
        ),
        pytest.param(
            (OwnerState.OWNER, OwnerEvent.SENT_ALL),
            Step(OwnerState.OWNER, Action.RESUME),
            id="the source does not let go",
        ),
        pytest.param(
            (OwnerState.HANDING_OFF, OwnerEvent.PEER_REFUSED),
            Step(OwnerState.GONE, Action.REMOVE),
            id="the source gives a refused domain away",
        ),
    ],
)
def test_a_wrong_table_is_found_out(
    monkeypatch: pytest.MonkeyPatch, row: tuple[OwnerState, OwnerEvent], wrong: Step
) -> None:
    """The exploration sees a mistake in the table: it would fail if one were made."""
    monkeypatch.setitem(ownership.TRANSITIONS, row, wrong)  # type: ignore[arg-type]
    try:
        worlds = explore(beginning())
    except IllegalTransition:
        return
    doubled = [world for world in worlds if runs_twice(world)]
    stuck = [world for world in cannot_settle(worlds) if not lost_for_a_reason(world)]
    assert doubled or stuck or not can_succeed(worlds)


def test_a_late_cancel_that_is_not_written_down_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that resumes its guest before it has written down why would hand it over after a restart."""
    steps = bad_steps

    def forgetful(world: World) -> Iterator[tuple[str, World]]:
        for label, after in steps(world):
            yield label, replace(after, called_off=False) if label == "source restarts" else after

    monkeypatch.setitem(globals(), "bad_steps", forgetful)
    assert any(runs_twice(world) for world in explore(beginning()))


def test_a_restart_that_forgets_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that resumes after a restart, instead of asking, would run the guest twice."""
    monkeypatch.setitem(ON_RESTART, OwnerState.HANDING_OFF, Action.RESUME)  # type: ignore[arg-type]
    assert any(runs_twice(world) for world in explore(beginning()))


def test_epochs_grow_with_success_only() -> None:
    """The epoch is the number of moves that happened; a refused one leaves it as it was."""
    owner = Ownership("u", 4, OwnerState.OWNER, "m")
    handing_off, action = advance(owner, OwnerEvent.SENT_ALL)
    assert (handing_off.epoch, action) == (5, Action.ASK_TARGET)
    assert advance(handing_off, OwnerEvent.PEER_TOOK)[0].epoch == 5
    assert advance(handing_off, OwnerEvent.PEER_REFUSED)[0].epoch == 4
    assert advance(handing_off, OwnerEvent.RECLAIMED)[0].epoch == 6, "it must outrank what the target may have"


def test_what_the_table_does_not_have_is_refused() -> None:
    """An event out of place is a broken invariant, not something to be guessed about."""
    with pytest.raises(IllegalTransition):
        advance(Ownership("u", 1, OwnerState.REFUSED, "m"), OwnerEvent.TAKE_OVER)
    with pytest.raises(IllegalTransition):
        announce(Ownership("u", 1, OwnerState.OWNER, "m"), "u", 2, "n")
