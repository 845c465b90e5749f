"""Whether the copy is coming to an end: a pure function from what was seen to what to do.

What was promised is held against what QEMU would need for the rest. As long as each pass leaves less, nothing is done.
Then, in this order: a longer suspension, up to the promise; what the administrator allows at a stall; the end of the
migration, with the guest where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ldoms.migration.unkept import THROTTLE_AIM, Unkept, sentence
from ldoms.model.migration import MigrationPlan, OnStall

PATIENCE_PASSES = 3
"""Passes without improvement before a longer suspension is allowed."""
STALL_PASSES, STALL_S = 4, 6.0
"""No improvement in so many passes and so much time since the last thing was done: it does not help."""
THROTTLE_PASSES, THROTTLE_S = 2, 3.0
"""The same for a guest that is held back: what that brings shows in the next pass."""
PRESSED_PASSES, PRESSED_S = 2, 1.0
"""The same when the time is short."""
PRESSED_SHARE = 0.5
"""The time is short when so much of what is allowed has gone by."""
IMPROVEMENT = 0.95
"""A pass that leaves less than this share of the best one so far is an improvement."""
RAISE = 1.25
"""By less than this the limit is not raised; it is lowered at once."""
LAST_PASSES = 3
"""So many passes say how much waits in the kernel."""
THROTTLE_SLICE_S = 0.01
"""QEMU lets a guest that is held back run for so long at a time, and then holds it for as long as the share takes."""
THROTTLE_TAKES_S = 20.0
"""QEMU may take so long to hold the guest back by as much as it was told."""
SILENT_S = 3.0
"""A target whose manager has been silent for so long is not handed anything."""
LOST_S = 30.0
"""A target whose manager has been silent for so long is given up."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What was promised, and what may be done to keep it.

    Attributes:
        max_suspend_s: the guest stands still for no longer.
        first_limit_s: the suspension that is tried first.
        most_limit_s: what QEMU may be told at most, as there is something that it does not count.
        max_time_s: from the request to the end; 0 = any.
        on_stall: what is done when the copy does not come to an end.
        throttle_percents: steps by which the guest may be held back.
    """

    max_suspend_s: float
    first_limit_s: float
    most_limit_s: float
    max_time_s: float = 0.0
    on_stall: OnStall = OnStall.ABORT
    throttle_percents: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class PassSample:
    """The end of one pass over memory.

    Attributes:
        at_s: when, since the copy began.
        left_s: how long it would take to send what the guest had changed meanwhile, and what waits before it.
        left_bytes: that, without what waits already.
        dirty_bytes_s: how fast the guest changes memory, by QEMU's count.
        bandwidth_bytes_s: how fast it is sent.
        throttle_percent: that the guest is held back by.
        waiting_s: of `left_s`, for what QEMU has handed to the kernel already, and so does not count.
    """

    at_s: float
    left_s: float
    left_bytes: int = 0
    dirty_bytes_s: float = 0.0
    bandwidth_bytes_s: float = 0.0
    throttle_percent: int = 0
    waiting_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known when a decision is asked for.

    Attributes:
        passes: those that are over, oldest first.
        now_s: since the copy began.
        limit_s: what QEMU may suspend the guest for right now; 0 = it is held back.
        silence_s: since the target's manager was last heard.
        since_s: when something was last changed about the copy, as `now_s`.
        before_s: from the request to the beginning of the copy.
        still_s: for how long the guest has been suspended, if it is for the whole copy.
        throttle_percent: that QEMU was told to hold the guest back by.
        throttled_percent: that it does.
        is_suspended: the guest was suspended because of a stall.
        goes_over: QEMU was told to go over without the rest because of a stall.
    """

    passes: Sequence[PassSample]
    now_s: float
    limit_s: float
    silence_s: float
    since_s: float = 0.0
    before_s: float = 0.0
    still_s: float = 0.0
    throttle_percent: int = 0
    throttled_percent: int = 0
    is_suspended: bool = False
    goes_over: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Go on as it is."""


@dataclass(frozen=True, slots=True)
class SetLimit:
    """Allow a suspension of `seconds`; 0 = hold the end of the copy back."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Throttle:
    """Hold the guest back by `percent` of its CPU time."""

    percent: int


@dataclass(frozen=True, slots=True)
class SuspendNow:
    """Suspend the guest for the rest of the copy."""


@dataclass(frozen=True, slots=True)
class StartPostcopy:
    """Have the guest go over now, and fetch the rest of its memory while it runs there."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the migration; the guest stays.

    Attributes:
        unkept: what explains it, if it is because of the promise.
    """

    reason: str
    unkept: Unkept | None = None


Decision = Wait | SetLimit | Throttle | SuspendNow | StartPostcopy | GiveUp


def promise_of(plan: MigrationPlan) -> Promise:
    """What a plan promises."""
    return Promise(
        max_suspend_s=plan.max_suspend_s,
        first_limit_s=plan.downtime_limit_s,
        most_limit_s=plan.downtime_most_s or plan.max_suspend_s,  # 0: made by an older manager
        max_time_s=plan.max_time_s,
        on_stall=plan.on_stall,
        throttle_percents=plan.throttle_percents,
    )


def decide(situation: Situation, promise: Promise) -> Decision:
    """What to do about a copy that is still going on."""
    if situation.silence_s > LOST_S:
        return GiveUp(f"the manager of the target has not been heard for {situation.silence_s:.0f} s")
    if situation.still_s > promise.max_suspend_s:
        return GiveUp(
            f"the guest has been suspended for {situation.still_s * 1000:.0f} ms, not all of its memory has been sent,"
            f" and {promise.max_suspend_s * 1000:.0f} ms are allowed",
            _unkept(situation, promise),
        )
    if promise.max_time_s and _gone_s(situation) > promise.max_time_s - promise.max_suspend_s:
        return _give_up(situation, promise, is_late=True)
    if situation.silence_s > SILENT_S:
        return Wait() if situation.limit_s == 0 else SetLimit(0.0)
    room_s = _room_s(situation, promise)
    earned_s = min(room_s, _earned_limit(situation, promise))
    if situation.limit_s > room_s:
        return SetLimit(room_s)
    if earned_s > situation.limit_s * RAISE:
        return SetLimit(earned_s)
    is_all = situation.limit_s >= room_s / RAISE
    is_helped = situation.is_suspended or situation.goes_over
    if not is_all or is_helped or not _has_stalled(situation, promise):
        return Wait()
    return _next_measure(situation, promise)


def _room_s(situation: Situation, promise: Promise) -> float:
    """What QEMU may be told now: what waits in the kernel has to be sent first."""
    waiting_s = max((one.waiting_s for one in situation.passes[-LAST_PASSES:]), default=0.0)
    return max(0.0, promise.most_limit_s - waiting_s - held_s(situation.throttled_percent))


def held_s(throttle_percent: int) -> float:
    """For how long a guest that is held back stands still at a time.

    It does so just before it is suspended, too: to look at what it has changed, QEMU waits for its virtual CPUs.
    """
    return THROTTLE_SLICE_S * throttle_percent / (100 - throttle_percent)


def _next_measure(situation: Situation, promise: Promise) -> Decision:
    """With the whole allowance it does not end by itself: what is left to be done?"""
    match promise.on_stall:
        case OnStall.SUSPEND:
            return SuspendNow()
        case OnStall.POSTCOPY:
            return StartPostcopy()
        case OnStall.THROTTLE:
            percent = _next_throttle(situation, promise)
            if percent is not None:
                return Throttle(percent)
    return _give_up(situation, promise)


def _next_throttle(situation: Situation, promise: Promise) -> int | None:
    """The first step that may do, by what the guest changes now; None = all of them were tried."""
    steps = [step for step in promise.throttle_percents if step > situation.throttle_percent]
    if not steps:
        return None
    last = situation.passes[-1]
    wanted = 0.0
    if last.dirty_bytes_s > 0 and last.bandwidth_bytes_s > 0:
        share = min(1.0, THROTTLE_AIM * last.bandwidth_bytes_s / last.dirty_bytes_s)
        wanted = 100 - (100 - last.throttle_percent) * share
    return next((step for step in steps if step >= wanted), steps[-1])


def _earned_limit(situation: Situation, promise: Promise) -> float:
    """The first limit, doubled for every few passes that brought nothing; never more than QEMU may be told.

    All of it at once where even the best pass would need more, and for a guest that is held back, stands still or is
    late.
    """
    passes = situation.passes
    steps = _passes_without_improvement(passes) // PATIENCE_PASSES
    best_s = min((sample.left_s for sample in passes), default=0.0)
    is_pressed = _is_pressed(situation, promise) and bool(passes)
    is_helped = situation.throttle_percent > 0 or situation.is_suspended
    if is_helped or is_pressed or (steps > 0 and best_s > promise.most_limit_s):
        return promise.most_limit_s
    return min(promise.most_limit_s, promise.first_limit_s * 2.0**steps)


def _has_stalled(situation: Situation, promise: Promise) -> bool:
    """Whether what was done last has been given its time, and has brought nothing."""
    patience = (THROTTLE_PASSES, THROTTLE_S) if situation.throttle_percent else (STALL_PASSES, STALL_S)
    if _is_pressed(situation, promise):
        patience = (PRESSED_PASSES, PRESSED_S)
    since_s = max(situation.since_s, _last_improvement_s(situation.passes))
    waited_s = situation.now_s - since_s
    told = situation.throttle_percent if waited_s < THROTTLE_TAKES_S else 0
    count = sum(1 for sample in situation.passes if sample.at_s > since_s and sample.throttle_percent >= told)
    return count >= patience[0] and waited_s >= patience[1]


def _is_pressed(situation: Situation, promise: Promise) -> bool:
    return 0 < promise.max_time_s * PRESSED_SHARE < _gone_s(situation)


def _gone_s(situation: Situation) -> float:
    return situation.before_s + situation.now_s


def _improvements(passes: Sequence[PassSample]) -> list[bool]:
    """Of each pass, whether it left less than the best one before it."""
    best, found = float("inf"), []
    for sample in passes:
        found.append(sample.left_s < best * IMPROVEMENT)
        best = sample.left_s if found[-1] else best
    return found


def _passes_without_improvement(passes: Sequence[PassSample]) -> int:
    since = 0
    for is_better in _improvements(passes):
        since = 0 if is_better else since + 1
    return since


def _last_improvement_s(passes: Sequence[PassSample]) -> float:
    better = [sample.at_s for sample, is_better in zip(passes, _improvements(passes), strict=True) if is_better]
    return better[-1] if better else 0.0


def _give_up(situation: Situation, promise: Promise, *, is_late: bool = False) -> GiveUp:
    unkept = _unkept(situation, promise, is_late=is_late)
    return GiveUp(sentence(unkept), unkept)


def _unkept(situation: Situation, promise: Promise, *, is_late: bool = False) -> Unkept:
    passes = situation.passes
    best = min(passes, key=lambda sample: sample.left_s, default=None)
    last = passes[-1] if passes else None
    return Unkept(
        max_suspend_s=promise.max_suspend_s,
        most_limit_s=max(0.0, promise.most_limit_s - held_s(situation.throttled_percent)),
        max_time_s=promise.max_time_s,
        is_late=is_late,
        on_stall=promise.on_stall,
        passes=len(passes),
        seconds=situation.now_s,
        left_s=best.left_s if best else None,
        left_bytes=best.left_bytes if best else 0,
        dirty_bytes_s=last.dirty_bytes_s if last else 0.0,
        bandwidth_bytes_s=last.bandwidth_bytes_s if last else 0.0,
        throttle_percent=situation.throttled_percent,
        throttle_most_percent=max(promise.throttle_percents, default=0),
    )
