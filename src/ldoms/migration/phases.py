"""The five phases as a table: what follows what, what undoes a phase, and what a restart of the manager does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ldoms.model.phases import Phase


class Undo(StrEnum):
    """How the source takes a phase back when it fails, or is cancelled."""

    NOTHING = "nothing"
    ABORT_TARGET = "abort-target"
    """The target discards what it has prepared."""
    STOP_COPY = "stop-copy"
    """QEMU ends the copy, the guest runs on here, and the target discards."""
    IMPOSSIBLE = "impossible"
    """Only forward: `model.ownership` decides."""


class Restart(StrEnum):
    """What the source does in this phase when its manager has been restarted."""

    ROLL_BACK = "roll-back"
    LOOK = "look"
    """Ask QEMU, and the target, how far they have come meanwhile, and go on from there."""
    GO_ON = "go-on"


@dataclass(frozen=True, slots=True)
class PhaseRule:
    """One row of the table.

    Attributes:
        active_only: a domain that is bound or inactive skips the phase.
        journalled: it is on disk before the phase begins. Not so where a write would lengthen the suspension: a
            restart treats `Phase.SUSPEND` like `Phase.COPY`, and `Phase.HAND_OFF` goes to disk together with the
            first step of the ownership table.
    """

    undo: Undo
    restart: Restart
    active_only: bool = False
    journalled: bool = True


PHASES: Mapping[Phase, PhaseRule] = {
    Phase.CHECK: PhaseRule(Undo.NOTHING, Restart.ROLL_BACK, journalled=False),
    Phase.PREPARE: PhaseRule(Undo.ABORT_TARGET, Restart.ROLL_BACK),
    Phase.COPY: PhaseRule(Undo.STOP_COPY, Restart.LOOK, active_only=True),
    Phase.SUSPEND: PhaseRule(Undo.STOP_COPY, Restart.LOOK, active_only=True, journalled=False),
    Phase.HAND_OFF: PhaseRule(Undo.IMPOSSIBLE, Restart.GO_ON, journalled=False),
}


def phases_of(active: bool) -> tuple[Phase, ...]:
    """The phases that a domain goes through, in order: five if its guest runs, else 1, 2 and 5."""
    return tuple(phase for phase, rule in PHASES.items() if active or not rule.active_only)
