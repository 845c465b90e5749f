"""Who owns a domain: the table that both hosts follow, so that a guest runs on at most one of them.

Each host keeps one `Ownership` per domain, and the target of a migration keeps one `Verdict` per migration. Both
are made durable *before* the action that the table names is carried out, and the action is repeated after a restart.

::

    source                                              target
    OWNER                                               (none), GONE or REFUSED
      |                                                   | announced
      |                                                 INCOMING    guest stopped, copy arriving
      | sent-all                                          |
    HANDING_OFF      ---- take over ------------------->  | take-over, if the copy is complete
      |                                                 OWNER       then the guest runs
      | peer-took        <--- verdict: taken ------------
    GONE             then the copy here is removed

A target that cannot take over records REFUSED before it says so, and never runs that copy afterwards; the source
then resumes (peer-refused). A verdict that was told is never changed: asked again, even years and several moves
later, the target gives the same answer. ``docs/explanation/hand-off.md`` tells why; this table is what runs, and
`ldoms.model.exploration` walks through everything that can happen to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class OwnerState(StrEnum):
    """What a host is to a domain."""

    OWNER = "owner"
    """The domain is here. Without a record, a host that has the domain is its owner."""
    HANDING_OFF = "handing-off"
    """Source: everything was sent, the guest is stopped here, and the target may have it running."""
    GONE = "gone"
    """Source: the target has it; what is left here is to be removed."""
    INCOMING = "incoming"
    """Target: a copy is arriving, stopped."""
    REFUSED = "refused"
    """Target: the copy was given up and will never run here."""


class Verdict(StrEnum):
    """How a target decided one migration; once told, it never changes."""

    TAKEN = "taken"
    REFUSED = "refused"


class OwnerEvent(StrEnum):
    """What moves a host from one state to the next."""

    SENT_ALL = "sent-all"
    """Source: QEMU has handed every byte over, and the guest is stopped here."""
    PEER_TOOK = "peer-took"
    """Source: the target says, durably, that it has taken over."""
    PEER_REFUSED = "peer-refused"
    """Source: the target says, durably, that it never will."""
    RECLAIMED = "reclaimed"
    """Source: the administrator has decided that the target is lost for good."""
    ANNOUNCED = "announced"
    """Target: the source asks to prepare for a copy."""
    TAKE_OVER = "take-over"
    """Target: the copy is complete, and the source has let go (or the administrator says it is lost for good)."""
    GIVE_UP = "give-up"
    """Target: the copy cannot be completed, or the source has called it off."""
    CANNOT_RUN = "cannot-run"
    """Target: QEMU has definitely refused to let the copy run, and nobody has been told that it was taken."""


class Action(StrEnum):
    """What a host does once its new state is durable, and again after a restart."""

    NOTHING = "nothing"
    ASK_TARGET = "ask-target"
    """Ask the target to take over, until it gives a verdict."""
    REMOVE = "remove"
    """Remove the domain here: the target has it."""
    RESUME = "resume"
    """Let the guest run again, if it was running."""
    RUN = "run"
    """Let the copy run, if the guest was running; free to be repeated."""
    DISCARD = "discard"
    """Remove the copy."""


class IllegalTransition(AssertionError):
    """The table has no such step: a broken invariant, never a user's mistake."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """A host's durable record of a domain.

    Attributes:
        uuid: of the domain.
        epoch: grows by one with every migration that succeeds or is settled by force; the higher one is right.
        migration: the id of the migration that led here.
    """

    uuid: str
    epoch: int
    state: OwnerState
    migration: str


_S, _E, _A = OwnerState, OwnerEvent, Action


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the table: the state that follows, what to do then, and what it does to the epoch."""

    state: OwnerState
    action: Action
    epoch: int = 0


TRANSITIONS: Mapping[tuple[OwnerState | None, OwnerEvent], Step] = {
    (_S.OWNER, _E.SENT_ALL): Step(_S.HANDING_OFF, _A.ASK_TARGET, epoch=+1),
    (_S.HANDING_OFF, _E.PEER_TOOK): Step(_S.GONE, _A.REMOVE),
    (_S.HANDING_OFF, _E.PEER_REFUSED): Step(_S.OWNER, _A.RESUME, epoch=-1),
    (_S.HANDING_OFF, _E.RECLAIMED): Step(_S.OWNER, _A.RESUME, epoch=+1),
    # The target took over by force while this host was lost.
    (_S.OWNER, _E.PEER_TOOK): Step(_S.GONE, _A.REMOVE, epoch=+1),
    (None, _E.ANNOUNCED): Step(_S.INCOMING, _A.NOTHING),
    (_S.GONE, _E.ANNOUNCED): Step(_S.INCOMING, _A.NOTHING),
    (_S.REFUSED, _E.ANNOUNCED): Step(_S.INCOMING, _A.NOTHING),
    (_S.INCOMING, _E.TAKE_OVER): Step(_S.OWNER, _A.RUN),
    (_S.INCOMING, _E.GIVE_UP): Step(_S.REFUSED, _A.DISCARD),
    (_S.OWNER, _E.CANNOT_RUN): Step(_S.REFUSED, _A.DISCARD),
}

ON_RESTART: Mapping[OwnerState, Action] = {
    _S.OWNER: _A.NOTHING,
    _S.HANDING_OFF: _A.ASK_TARGET,
    _S.GONE: _A.REMOVE,
    _S.INCOMING: _A.NOTHING,
    _S.REFUSED: _A.DISCARD,
}
"""What to repeat after a restart. An owner whose latest verdict is TAKEN repeats `Action.RUN` as well."""


def advance(ownership: Ownership, event: OwnerEvent) -> tuple[Ownership, Action]:
    """The record that follows an event, and the action to carry out once it is durable.

    Raises:
        IllegalTransition: the table has no such step.
    """
    step = TRANSITIONS.get((ownership.state, event))
    if step is None:
        raise IllegalTransition(f"{event} in state {ownership.state} (domain {ownership.uuid})")
    after = Ownership(ownership.uuid, ownership.epoch + step.epoch, step.state, ownership.migration)
    return after, step.action


def announce(before: Ownership | None, uuid: str, epoch: int, migration: str) -> Ownership:
    """The record of a target that gets ready for a copy of epoch `epoch`.

    Raises:
        IllegalTransition: the domain is here already, or on its way.
    """
    state = before.state if before else None
    step = TRANSITIONS.get((state, OwnerEvent.ANNOUNCED))
    if step is None:
        raise IllegalTransition(f"announced in state {state} (domain {uuid})")
    return Ownership(uuid, epoch + step.epoch, step.state, migration)


def verdict_of(event: OwnerEvent) -> Verdict:
    """The verdict that a target records together with its new state."""
    return Verdict.TAKEN if event is OwnerEvent.TAKE_OVER else Verdict.REFUSED
