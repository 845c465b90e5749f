"""The hand-off, explored: everything that can happen to the ownership table, in every order.

The world is one migration: a source, a target, the messages between them, and their QEMUs. Every step that reality may
take is a step here. What the managers do is looked up in the table that runs, `ldoms.model.ownership`; only what lies
around it is a model. `explore` visits every world that can be reached, and `flaws` says what is wrong in them.

Nothing of `ldmd` needs this module: it stands here because it says what the table beside it has to bear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ldoms.model.ownership import (
    ON_RESTART,
    Action,
    IllegalTransition,
    OwnerEvent,
    Ownership,
    OwnerState,
    Verdict,
    advance,
    announce,
    verdict_of,
)

MOST_MOVES = 3
"""A wrong table may hand a domain over for ever; so often is enough to see it."""


class Copy(Enum):
    """A guest's memory on a host."""

    HERE = 1
    DIED = 2
    """Its QEMU has ended by itself, or with the host's power; the domain is still listed."""
    REMOVED = 3
    """Nothing is left of the domain."""
    __hash__ = object.__hash__  # millions of times: the one of `Enum` is slow


class Power(Enum):
    """Whether a host is there."""

    ON = 1
    OFF = 2
    LOST = 3
    """For good."""
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of what may happen is explored.

    Attributes:
        messages: of a kind that are on their way at once.
        restarts: of managers.
        losses: hosts that lose their power, or are lost for good; a person who settles it knows that they are.
        mistakes: the person does not: what was taken for lost is alive.
        postcopy: the guest may be handed over before all of its memory is there.
    """

    messages: int = 2
    restarts: int = 2
    losses: int = 1
    mistakes: bool = False
    postcopy: bool = False


class World(NamedTuple):
    """Everything that matters of one migration.

    Attributes:
        source, target: the state on their disks, with the epoch.
        verdict: of the target, on its disk.
        source_copy, target_copy: what is left of each.
        source_runs, target_runs: their guests.
        stopped: the source's guest was stopped for the rest.
        complete: the target has every byte, or in parts enough to run.
        in_parts: QEMU sends the guest so, and cannot take it back.
        lacking: the target has not all of it.
        sent: the source's QEMU says so.
        called_off: the source has decided against the migration; on its disk before its guest runs again.
        to_do_source, to_do_target: an action that is due, and forgotten by a crash.
        deciding: the target's manager made its verdict itself, and has not told it: it knows what its QEMU did.
        told: the target has told its verdict.
        flight: messages on their way.
        forced: how a person has settled it.
    """

    source: tuple[OwnerState, int]
    target: tuple[OwnerState, int]
    verdict: Verdict | None = None
    source_copy: Copy = Copy.HERE
    target_copy: Copy = Copy.HERE
    source_runs: bool = True
    target_runs: bool = False
    stopped: bool = False
    complete: bool = False
    in_parts: bool = False
    lacking: bool = False
    sent: bool = False
    called_off: bool = False
    to_do_source: Action = Action.NOTHING
    to_do_target: Action = Action.NOTHING
    deciding: bool = False
    told: bool = False
    flight: tuple[str, ...] = ()
    source_power: Power = Power.ON
    target_power: Power = Power.ON
    restarts: int = 0
    losses: int = 0
    forced: OwnerEvent | None = None


Steps = Iterator[tuple[str, World]]
Worlds = Mapping[World, list[World]]
"""Worlds that can be reached, with those that good steps lead to."""


def beginnings() -> list[World]:
    """The target has announced the domain, which it has never had, has sent away once, or has refused before."""
    earlier = [None, *(Ownership("u", 0, state, "before") for state in (OwnerState.GONE, OwnerState.REFUSED))]
    records = [announce(before, "u", 1, "m") for before in earlier]
    return [World((OwnerState.OWNER, 0), (record.state, record.epoch)) for record in records]


def explore(bounds: Bounds) -> Worlds:
    """Visit every world that can be reached within bounds.

    Raises:
        IllegalTransition: the table lacks a step, or has an action for the wrong host.
    """
    found: dict[World, list[World]] = {}
    pending = beginnings()
    while pending:
        world = pending.pop()
        if world in found:
            continue
        found[world] = []
        if max(world.source[1], world.target[1]) > MOST_MOVES:
            continue
        found[world] = [after for _, after in good_steps(world, bounds)]
        pending += found[world]
        pending += [after for _, after in bad_steps(world, bounds)]
    return found


def flaws(worlds: Worlds) -> Iterator[tuple[str, World]]:
    """What is wrong with these worlds: each with the one where it shows."""
    for world in worlds:
        if world.source_runs and world.target_runs:
            yield "the guest runs twice", world
        if world.source_runs and world.source[0] is not OwnerState.OWNER:
            yield "the guest runs on a source that does not own it", world
        if world.target_runs and world.target[0] is not OwnerState.OWNER:
            yield "the guest runs on a target that does not own it", world
        if world.source[0] is world.target[0] is OwnerState.OWNER and not world.forced:
            yield "two hosts own the domain", world
        if world.target[0] is OwnerState.INCOMING and world.target_copy is Copy.REMOVED:
            yield "a copy that may be the only one is thrown away without a verdict", world
        if world.in_parts and world.source_runs:
            yield "a guest that was sent in parts runs on the source", world
        if world.lacking and world.source_copy is Copy.REMOVED and world.target_copy is Copy.HERE:
            yield "a guest lacks memory that was thrown away", world
        if not has_right_epochs(world):
            yield "an epoch is not the number of moves", world
    for world in _stuck(worlds):
        yield "it does not come to an end", world
    if not _can_succeed(worlds):
        yield "no migration succeeds", beginnings()[0]


def is_settled(world: World) -> bool:
    """One host owns the domain, and its guest runs there or has died there; nothing is left on the other."""
    if world.source_power is Power.LOST:
        gave_up = world.target[0] is OwnerState.REFUSED and world.target_copy is Copy.REMOVED
        return world.target_power is Power.LOST or gave_up or _owns_well(world.target[0], world, on_target=True)
    is_gone = world.source[0] is OwnerState.GONE and world.source_copy is Copy.REMOVED
    if world.target_power is Power.LOST:
        return is_gone or _owns_well(world.source[0], world, on_target=False)
    if world.target[0] is OwnerState.OWNER:
        return is_gone and _owns_well(world.target[0], world, on_target=True)
    is_refused = world.target[0] is OwnerState.REFUSED and world.target_copy is Copy.REMOVED
    return is_refused and _owns_well(world.source[0], world, on_target=False)


def has_right_epochs(world: World) -> bool:
    """An epoch counts moves, so that people can compare two hosts; what was taken back outranks the move.

    A domain whose guest was lost with the target, and was taken back, is the target's all the same if that returns.
    """
    has_left = world.source[0] is not OwnerState.OWNER
    was_back = world.forced is OwnerEvent.RECLAIMED
    expected = 2 * was_back + has_left
    return (world.source[1], world.target[1]) == (expected, 1)


# Steps


def good_steps(world: World, bounds: Bounds) -> Steps:
    """What the managers, QEMU and a person who knows do, when nothing is against them."""
    if world.source_power is Power.ON:
        yield from _source_steps(world, bounds)
    elif world.source_power is Power.OFF:
        again = ON_RESTART[world.source[0]]
        yield "the source comes back", world._replace(source_power=Power.ON, to_do_source=again)
    if world.target_power is Power.ON:
        yield from _target_steps(world)
    elif world.target_power is Power.OFF:
        yield "the target comes back", world._replace(target_power=Power.ON, to_do_target=_again(world))
    for message, rest in _messages(world):
        yield from _deliver(message, rest, bounds)
    yield from _force(world, knows=True)


def bad_steps(world: World, bounds: Bounds) -> Steps:
    """What may get in their way."""
    for message, rest in _messages(world):
        yield f"{message} is lost", rest
        yield f"{message} is doubled", _send(world, message, bounds)
        if message == "finish" and _listens(world) and world.verdict is None:
            yield "the target's QEMU does not answer", _send(_decide(rest, OwnerEvent.GIVE_UP), message, bounds)
    if world.restarts < bounds.restarts:
        restarted = world._replace(restarts=world.restarts + 1)
        if world.source_power is Power.ON:
            yield "the source's manager restarts", restarted._replace(to_do_source=ON_RESTART[world.source[0]])
        if world.target_power is Power.ON:
            yield "the target's manager restarts", restarted._replace(to_do_target=_again(world), deciding=False)
    if world.losses < bounds.losses:
        yield from _lose(world)
    if world.source_power is Power.ON and world.source_copy is Copy.HERE:
        yield "the source's QEMU dies", world._replace(source_copy=Copy.DIED, source_runs=False)
    if world.target_power is Power.ON and world.target_copy is Copy.HERE:
        yield "the target's QEMU dies", world._replace(target_copy=Copy.DIED, target_runs=False)
    if world.source_power is Power.ON and world.source[0] is OwnerState.OWNER and not world.called_off:
        yield "the source calls it off", world._replace(called_off=True)
    if world.target_power is Power.ON and world.target[0] is OwnerState.INCOMING and not world.complete:
        yield "the target hears nothing", _decide(world, OwnerEvent.GIVE_UP)
    if world.target_power is Power.ON and world.to_do_target is Action.RUN and world.deciding:
        yield "the target's QEMU refuses to run", _decide(world, OwnerEvent.CANNOT_RUN)
    if bounds.mistakes:
        yield from _force(world, knows=False)


def _source_steps(world: World, bounds: Bounds) -> Steps:
    match world.to_do_source:
        case Action.RESUME:
            yield "the source resumes", _resume(world)._replace(to_do_source=Action.NOTHING)
        case Action.REMOVE:
            done = world._replace(to_do_source=Action.NOTHING, source_copy=Copy.REMOVED, source_runs=False)
            yield "the source removes", done
        case Action.ASK_TARGET:
            yield "the source asks", _send(world, "finish", bounds)
            if world.lacking and world.source_copy is not Copy.HERE:
                yield "the source tells that no more will come", _send(world, "abort", bounds)
        case Action.RUN | Action.DISCARD:
            raise IllegalTransition(f"{world.to_do_source} is not for a source")
    if world.source[0] is not OwnerState.OWNER or world.to_do_source is not Action.NOTHING:
        return
    if world.called_off:
        yield "the source tells that it is off", _send(_resume(world), "abort", bounds)
    elif world.sent:
        yield "the source lets go", _advance_source(world, OwnerEvent.SENT_ALL)
    else:
        yield from _copy_steps(world)
        if bounds.postcopy and not world.stopped and Copy.HERE is world.source_copy is world.target_copy:
            split = world._replace(stopped=True, source_runs=False, in_parts=True, lacking=True, sent=True)
            yield "the guest is stopped, and sent in parts", split


def _copy_steps(world: World) -> Steps:
    can_arrive = world.target_power is Power.ON and world.target_copy is Copy.HERE and world.verdict is None
    if not can_arrive or (world.source_copy is not Copy.HERE and not world.complete):
        yield "the copy fails", world._replace(called_off=True)
    elif world.complete:  # a manager whose QEMU has died asks the target
        yield "the source knows that all is sent", world._replace(sent=True)
    elif world.stopped:
        yield "the rest arrives", world._replace(complete=True)
    else:
        yield "the guest is stopped for the rest", world._replace(stopped=True, source_runs=False)


def _target_steps(world: World) -> Steps:
    match world.to_do_target:
        case Action.RUN:
            done = world._replace(to_do_target=Action.NOTHING, deciding=False)
            if world.target_copy is Copy.HERE:
                yield "the target runs", done._replace(target_runs=True)
            elif world.deciding:
                yield "the target finds its QEMU dead", _decide(world, OwnerEvent.CANNOT_RUN)
            else:
                yield "the guest has crashed on the target", done
        case Action.DISCARD:
            done = world._replace(to_do_target=Action.NOTHING, target_copy=Copy.REMOVED, target_runs=False)
            yield "the target discards", done
        case Action.REMOVE | Action.RESUME | Action.ASK_TARGET:
            raise IllegalTransition(f"{world.to_do_target} is not for a target")
    if world.lacking and world.source_copy is world.target_copy is Copy.HERE:
        if not world.complete:
            yield "what it needs to run arrives", world._replace(complete=True)
        else:
            yield "all of it has arrived", world._replace(lacking=False)
    if world.target[0] is not OwnerState.INCOMING:
        return
    if world.in_parts:
        if world.target_copy is not Copy.HERE:
            yield "the target gives up", _decide(world, OwnerEvent.GIVE_UP)
        return
    if world.stopped and world.called_off and not world.complete and world.target_copy is Copy.HERE:
        # The kernel may keep the last bytes for long, and deliver them after the source has given up.
        yield "the rest arrives late", world._replace(complete=True)
    if world.target_copy is not Copy.HERE:
        yield "the target gives up", _decide(world, OwnerEvent.GIVE_UP)
    elif world.source_power is not Power.ON and not world.complete:
        yield "the target gives up on a silent source", _decide(world, OwnerEvent.GIVE_UP)


def _deliver(message: str, world: World, bounds: Bounds) -> Steps:
    if message in ("finish", "abort"):
        yield f"{message} arrives", _asked(world, message, bounds) if _listens(world) else _send(world, message, bounds)
        return
    if world.source_power is not Power.ON:
        return
    state = world.source[0]
    verdict, _, question = message.partition(" to ")
    is_needed = world.lacking and world.target_copy is Copy.HERE  # or to tell the target that no more will come
    if state is OwnerState.HANDING_OFF and verdict == Verdict.TAKEN and question == "finish" and is_needed:
        yield f"{message} arrives, and the source serves pages", world
    elif state is OwnerState.HANDING_OFF and question == "finish":
        event = OwnerEvent.PEER_TOOK if verdict == Verdict.TAKEN else OwnerEvent.PEER_REFUSED
        yield f"{message} arrives", _advance_source(world, event)
    elif state is OwnerState.OWNER and verdict == Verdict.TAKEN and question == "abort" and not world.source_runs:
        yield f"{message} arrives, as a person has claimed it", _advance_source(world, OwnerEvent.PEER_TOOK)
    else:
        yield f"{message} arrives too late to matter", world


def _asked(world: World, message: str, bounds: Bounds) -> World:
    lacks = world.lacking and world.target_copy is Copy.HERE
    if world.verdict is None and message == "finish" and lacks and not world.complete:
        return world  # still on its way: the source asks again
    if world.verdict is Verdict.TAKEN and message == "abort" and lacks:
        world = world._replace(target_copy=Copy.DIED, target_runs=False)
    if world.verdict is None:
        complete = message == "finish" and world.complete and world.target_copy is Copy.HERE
        return _send(_decide(world, OwnerEvent.TAKE_OVER if complete else OwnerEvent.GIVE_UP), message, bounds)
    return _send(world._replace(told=True), f"{world.verdict.value} to {message}", bounds)


def _lose(world: World) -> Steps:
    lost = world._replace(losses=world.losses + 1)
    for power in (Power.OFF, Power.LOST):
        if world.source_power is Power.ON:
            died = Copy.DIED if world.source_copy is Copy.HERE else world.source_copy
            yield (
                f"the source is {power.name}",
                lost._replace(source_power=power, source_copy=died, source_runs=False, to_do_source=Action.NOTHING),
            )
        if world.target_power is Power.ON:
            died = Copy.DIED if world.target_copy is Copy.HERE else world.target_copy
            yield (
                f"the target is {power.name}",
                lost._replace(
                    target_power=power,
                    target_copy=died,
                    target_runs=False,
                    to_do_target=Action.NOTHING,
                    deciding=False,
                ),
            )


def _force(world: World, *, knows: bool) -> Steps:
    """What a person may settle: a claim needs a source that is off, a reclaim a target that is lost for good.

    A guest that lacks memory, and whose source is lost for good, is ended.
    """
    may_reclaim = world.source_power is Power.ON and world.source[0] is OwnerState.HANDING_OFF
    if may_reclaim and (world.target_power is Power.LOST) is knows:
        yield (
            "a person takes it back",
            _advance_source(world._replace(forced=OwnerEvent.RECLAIMED), OwnerEvent.RECLAIMED),
        )
    waits = world.target_power is Power.ON and world.target[0] is OwnerState.INCOMING and world.verdict is None
    is_whole = world.complete and not world.lacking and world.target_copy is Copy.HERE
    if waits and is_whole and (world.source_power is not Power.ON) is knows:
        yield "a person claims it", _decide(world._replace(forced=OwnerEvent.TAKE_OVER), OwnerEvent.TAKE_OVER)
    if world.lacking and world.target_copy is Copy.HERE and world.source_power is Power.LOST and knows:
        if waits:
            yield "a person discards it", _decide(world, OwnerEvent.GIVE_UP)
        elif world.target[0] is OwnerState.OWNER and world.to_do_target is Action.NOTHING:
            yield "a person ends the guest", world._replace(target_copy=Copy.DIED, target_runs=False)


# The table


def _advance_source(world: World, event: OwnerEvent) -> World:
    after, action = advance(Ownership("u", world.source[1], world.source[0], "m"), event)
    if action is Action.NOTHING:
        raise IllegalTransition(f"a source that does nothing after {event}")
    called_off = world.called_off or event in (OwnerEvent.PEER_REFUSED, OwnerEvent.RECLAIMED)
    return world._replace(source=(after.state, after.epoch), to_do_source=action, called_off=called_off)


def _decide(world: World, event: OwnerEvent) -> World:
    after, action = advance(Ownership("u", world.target[1], world.target[0], "m"), event)
    return world._replace(
        target=(after.state, after.epoch), verdict=verdict_of(event), to_do_target=action, deciding=action is Action.RUN
    )


def _again(world: World) -> Action:
    """What a target does after a restart."""
    if world.target[0] is OwnerState.OWNER and world.verdict is Verdict.TAKEN and not world.target_runs:
        return Action.RUN
    return ON_RESTART[world.target[0]]


# Small things


def _resume(world: World) -> World:
    if world.in_parts and world.source_copy is Copy.HERE:
        return world._replace(source_copy=Copy.DIED)  # QEMU cannot
    return world._replace(source_runs=world.source_copy is Copy.HERE)


def _listens(world: World) -> bool:
    """A target in the middle of a call answers others when that is done."""
    return world.target_power is Power.ON and world.to_do_target is Action.NOTHING


def _messages(world: World) -> Iterator[tuple[str, World]]:
    for message in sorted(set(world.flight)):
        rest = list(world.flight)
        rest.remove(message)
        yield message, world._replace(flight=tuple(rest))


def _send(world: World, message: str, bounds: Bounds) -> World:
    if world.flight.count(message) >= bounds.messages:
        return world
    return world._replace(flight=tuple(sorted((*world.flight, message))))


def _owns_well(state: OwnerState, world: World, *, on_target: bool) -> bool:
    runs, copy = (world.target_runs, world.target_copy) if on_target else (world.source_runs, world.source_copy)
    return state is OwnerState.OWNER and (runs or copy is Copy.DIED)


def _stuck(worlds: Worlds) -> Iterator[World]:
    """Worlds from which no run of good steps leads to one that is settled."""
    before: dict[World, list[World]] = {world: [] for world in worlds}
    for world, steps in worlds.items():
        for after in steps:
            before[after].append(world)
    reached = {world for world in worlds if is_settled(world)}
    pending = list(reached)
    while pending:
        for world in before[pending.pop()]:
            if world not in reached:
                reached.add(world)
                pending.append(world)
    return (world for world in worlds if world not in reached)


def _can_succeed(worlds: Worlds) -> bool:
    """Whether a migration with nothing against it ends on the target: a table that never hands over is wrong, too."""
    pending, seen = beginnings(), set[World]()
    while pending:
        world = pending.pop()
        if world.target_runs and is_settled(world):
            return True
        if world not in seen:
            seen.add(world)
            pending += worlds[world]
    return False
