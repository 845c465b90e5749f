"""The hand-off, explored: whatever happens, in whatever order, the ownership table keeps its promises.

And the exploration sees mistakes: every alteration of the table that makes a difference is found by it.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from ldoms.model import exploration
from ldoms.model.exploration import Bounds, Power, World, explore, flaws
from ldoms.model.ownership import (
    ON_RESTART,
    TRANSITIONS,
    Action,
    IllegalTransition,
    OwnerEvent,
    Ownership,
    OwnerState,
    advance,
    announce,
)

SMALL = (Bounds(messages=1, restarts=1, losses=0), Bounds(messages=1, restarts=1, losses=1))
"""Enough to find every mistake in the table, and quick."""
MISTAKES = (Bounds(messages=1, restarts=1, losses=0, mistakes=True),)


@dataclass(frozen=True)
class Mistake:
    """A table in which one thing is altered; `entry` None = the row is missing."""

    table: MutableMapping[Any, Any]
    row: Any
    entry: Any

    def __str__(self) -> str:
        row = "+".join(str(part) for part in self.row) if isinstance(self.row, tuple) else str(self.row)
        if self.entry is None or isinstance(self.entry, Action):
            return f"{row}: {self.entry}"
        return f"{row}: {self.entry.state} {self.entry.action} {self.entry.epoch:+d}"

    def make(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it into the table that runs."""
        if self.entry is None:
            monkeypatch.delitem(self.table, self.row)
        else:
            monkeypatch.setitem(self.table, self.row, self.entry)

    @property
    def is_without_effect(self) -> bool:
        """What a target does when it is told of a copy is not looked up: it gets ready, or says that it cannot."""
        if self.entry is None or self.table is ON_RESTART or self.row[1] is not OwnerEvent.ANNOUNCED:
            return False
        return bool(self.entry.action is not Action.NOTHING)


def mistakes() -> Iterator[Mistake]:
    """Every alteration of one thing in the table: a row's state, its action, its epoch, or all of it."""
    transitions = cast("MutableMapping[Any, Any]", TRANSITIONS)
    for row, step in TRANSITIONS.items():
        yield Mistake(transitions, row, None)
        yield from (
            Mistake(transitions, row, replace(step, state=state)) for state in OwnerState if state is not step.state
        )
        yield from (
            Mistake(transitions, row, replace(step, action=action)) for action in Action if action is not step.action
        )
        yield from (
            Mistake(transitions, row, replace(step, epoch=epoch)) for epoch in (-1, 0, +1) if epoch != step.epoch
        )
    for state, known in ON_RESTART.items():
        restart = cast("MutableMapping[Any, Any]", ON_RESTART)
        yield from (Mistake(restart, state, action) for action in Action if action is not known)


def first_flaw(*bounds: Bounds) -> str:
    """What the exploration finds first, or nothing."""
    for bound in bounds:
        try:
            for flaw, _ in flaws(explore(bound)):
                return flaw
        except IllegalTransition as error:
            return str(error)
    return ""


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(messages=2, restarts=2, losses=1),
        Bounds(messages=1, restarts=3, losses=2),
        Bounds(messages=3, restarts=1, losses=0),
        Bounds(messages=1, restarts=1, losses=2, postcopy=True),
        Bounds(messages=2, restarts=2, losses=0, postcopy=True),
    ],
    ids=str,
)
def test_one_host_owns_the_domain_and_it_always_settles(bounds: Bounds) -> None:
    """Whatever is lost, doubled, late or dead: never two owners, never none while a copy lives, and an end."""
    worlds = explore(bounds)
    assert len(worlds) > 1000, "the exploration is too small to mean anything"
    found: dict[str, World] = {}
    for flaw, world in flaws(worlds):
        found.setdefault(flaw, world)
    assert not found, "\n".join(f"{flaw}: {world}" for flaw, world in found.items())


def test_everything_that_may_happen_does_happen() -> None:
    """An exploration that never gets to a state proves nothing about it."""
    worlds = explore(Bounds(messages=1, restarts=1, losses=2))
    assert {world.source[0] for world in worlds} == {OwnerState.OWNER, OwnerState.HANDING_OFF, OwnerState.GONE}
    assert {world.target[0] for world in worlds} == {OwnerState.INCOMING, OwnerState.OWNER, OwnerState.REFUSED}
    assert {world.source_power for world in worlds} == {world.target_power for world in worlds} == {*Power}
    assert {world.forced for world in worlds} == {None, OwnerEvent.RECLAIMED, OwnerEvent.TAKE_OVER}
    assert any(world.complete and world.called_off and world.source_runs for world in worlds), "no late bytes"


def test_postcopy_is_explored_as_well() -> None:
    """A guest that runs on the target and lacks memory; it gets all of it, or either QEMU dies before."""
    worlds = [world for world in explore(Bounds(messages=1, restarts=1, losses=0, postcopy=True)) if world.in_parts]
    assert any(world.target_runs and world.lacking for world in worlds)
    assert any(world.target_runs and not world.lacking and exploration.is_settled(world) for world in worlds)
    assert {world.source_copy for world in worlds if world.lacking} == {*exploration.Copy}
    assert {world.target_copy for world in worlds if world.lacking} == {*exploration.Copy}


def test_a_source_that_leaves_before_the_rest_has_come_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its QEMU has pages that the guest needs."""
    deliver = exploration._deliver

    def hasty(message: str, world: World, bounds: Bounds) -> exploration.Steps:
        for label, after in deliver(message, world, bounds):
            leaves = label.endswith("serves pages")
            yield label, exploration._advance_source(world, OwnerEvent.PEER_TOOK) if leaves else after

    monkeypatch.setattr(exploration, "_deliver", hasty)
    assert first_flaw(Bounds(messages=1, restarts=1, losses=0, postcopy=True))


@pytest.mark.parametrize("mistake", [one for one in mistakes() if not one.is_without_effect], ids=str)
def test_every_mistake_in_the_table_is_found(monkeypatch: pytest.MonkeyPatch, mistake: Mistake) -> None:
    """One state, action, epoch or row is another: the exploration says so."""
    mistake.make(monkeypatch)
    assert first_flaw(*SMALL)


def test_few_mistakes_are_without_effect() -> None:
    """The rest makes no difference, and is the one case that is known for it."""
    without = [one for one in mistakes() if one.is_without_effect]
    assert {one.row[1] for one in without} == {OwnerEvent.ANNOUNCED}
    assert len(without) == 3 * (len(Action) - 1)


def test_a_person_who_is_mistaken_can_break_the_promise() -> None:
    """Force is for hosts that are lost: used on one that lives, two guests may run. That is why it takes a person."""
    assert any(world.source_runs and world.target_runs for world in explore(*MISTAKES))


def test_a_decision_that_is_not_written_down_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that resumes its guest before it has written down why would hand it over after a restart."""
    steps = exploration.bad_steps

    def forgetful(world: World, bounds: Bounds) -> exploration.Steps:
        for label, after in steps(world, bounds):
            yield label, after._replace(called_off=False) if label == "the source's manager restarts" else after

    monkeypatch.setattr(exploration, "bad_steps", forgetful)
    assert any(world.source_runs and world.target_runs for world in explore(SMALL[0]))


def test_a_verdict_that_changes_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that has told that it took the domain, and discards it later, would lose it."""
    steps = exploration.bad_steps

    def fickle(world: World, bounds: Bounds) -> exploration.Steps:
        yield from steps(world, bounds)
        if world.told and world.target[0] is OwnerState.OWNER and world.target_power is Power.ON:
            yield "it thinks again", exploration._decide(world, OwnerEvent.CANNOT_RUN)

    monkeypatch.setattr(exploration, "bad_steps", fickle)
    assert first_flaw(*SMALL)


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
