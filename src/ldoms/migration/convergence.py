"""Whether the copy is coming to an end: a pure function from what was seen to what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PATIENCE_PASSES = 3
"""Passes without improvement before a longer suspension is allowed."""
STALL_PASSES = 30
STALL_S = 60.0
"""No improvement in so many passes and so much time, with the full allowance: it will not end by itself."""
IMPROVEMENT = 0.95
"""A pass that leaves less than this share of the best one so far is an improvement."""
SILENT_S = 3.0
"""A target whose manager has been silent for so long is not handed anything."""
LOST_S = 30.0
"""A target whose manager has been silent for so long is given up."""


@dataclass(frozen=True, slots=True)
class PassSample:
    """The end of one pass over memory.

    Attributes:
        at_s: when, since the copy began.
        left_s: how long it would take to send what the guest had changed meanwhile.
    """

    at_s: float
    left_s: float


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known when a decision is asked for.

    Attributes:
        passes: those that are over, oldest first.
        now_s: since the copy began.
        limit_s: what QEMU may suspend the guest for right now; 0 = it is held back.
        max_suspend_s: what was promised.
        silence_s: since the target's manager was last heard.
        still_s: for how long the guest has been suspended, if it is for the whole copy.
    """

    passes: Sequence[PassSample]
    now_s: float
    limit_s: float
    max_suspend_s: float
    silence_s: float
    still_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Wait:
    """Go on as it is."""


@dataclass(frozen=True, slots=True)
class SetLimit:
    """Allow a suspension of `seconds`; 0 = hold the end of the copy back."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the migration; the guest stays."""

    reason: str


Decision = Wait | SetLimit | GiveUp


def decide(situation: Situation, first_limit_s: float) -> Decision:
    """What to do about a copy that is still going on.

    Args:
        situation: as of now.
        first_limit_s: the suspension that is tried first.
    """
    if situation.silence_s > LOST_S:
        return GiveUp(f"the manager of the target has not been heard for {situation.silence_s:.0f} s")
    if situation.still_s > situation.max_suspend_s:
        return GiveUp(
            f"the guest has been suspended for {situation.still_s * 1000:.0f} ms, not all of its memory has been sent,"
            f" and {situation.max_suspend_s * 1000:.0f} ms are allowed"
        )
    if situation.silence_s > SILENT_S:
        return Wait() if situation.limit_s == 0 else SetLimit(0.0)
    if situation.limit_s == 0:
        return SetLimit(_earned_limit(situation, first_limit_s))
    stalled = _passes_without_improvement(situation.passes)
    if situation.limit_s < situation.max_suspend_s:
        earned = _earned_limit(situation, first_limit_s)
        return SetLimit(earned) if earned > situation.limit_s else Wait()
    if stalled >= STALL_PASSES and situation.now_s - situation.passes[-1 - stalled].at_s >= STALL_S:
        best = min(sample.left_s for sample in situation.passes)
        return GiveUp(
            f"the guest changes its memory as fast as it can be sent: after {len(situation.passes)} passes it would"
            f" still have to be suspended for {best * 1000:.0f} ms, and {situation.max_suspend_s * 1000:.0f} ms are"
            " allowed"
        )
    return Wait()


def _earned_limit(situation: Situation, first_limit_s: float) -> float:
    """The first limit, doubled for every few passes that brought nothing; never more than was promised."""
    steps = _passes_without_improvement(situation.passes) // PATIENCE_PASSES
    return min(situation.max_suspend_s, first_limit_s * 2.0**steps)


def _passes_without_improvement(passes: Sequence[PassSample]) -> int:
    best, since = float("inf"), 0
    for sample in passes:
        if sample.left_s < best * IMPROVEMENT:
            best, since = sample.left_s, 0
        else:
            since += 1
    return since
