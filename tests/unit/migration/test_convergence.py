"""Does the copy come to an end: decided from what was seen, in a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.migration.convergence import (
    LOST_S,
    SILENT_S,
    STALL_PASSES,
    STALL_S,
    Decision,
    GiveUp,
    PassSample,
    Promise,
    SetLimit,
    Situation,
    StartPostcopy,
    SuspendNow,
    Throttle,
    Wait,
    decide,
)
from ldoms.migration.plan import downtime_most_s, throttle_percents
from ldoms.model.migration import OnStall

FIRST_S, MOST_S, PROMISE_S = 0.03, 0.2, 0.3
MIB = 1 << 20
PROMISE = Promise(PROMISE_S, FIRST_S, MOST_S)
THROTTLING = replace(PROMISE, on_stall=OnStall.THROTTLE, throttle_percents=(50, 70, 85, 90))


def situation(
    left: Sequence[float],
    limit_s: float = FIRST_S,
    silence_s: float = 0.0,
    pass_s: float = 2.0,
    dirty_mib_s: float = 40.0,
) -> Situation:
    """As of the end of passes that left so much, each of the same length; 10 MiB/s are sent."""
    passes = [
        PassSample((number + 1) * pass_s, left_s, int(left_s * 10 * MIB), dirty_mib_s * MIB, 10.0 * MIB)
        for number, left_s in enumerate(left)
    ]
    return Situation(passes, len(left) * pass_s, limit_s, silence_s)


STALLED = situation([0.8] * (STALL_PASSES + 1), MOST_S)
"""With the whole allowance no pass is better than the first."""


def test_a_copy_that_gets_shorter_is_let_alone() -> None:
    """Each pass leaves less: the first limit will do."""
    assert decide(situation([3.0, 1.0, 0.4, 0.1, 0.05]), PROMISE) == Wait()
    assert decide(situation([]), PROMISE) == Wait()


def test_a_copy_that_does_not_gets_a_longer_suspension() -> None:
    """Doubled for every three passes that brought nothing, and never more than QEMU may be told."""
    limits, limit_s = [], FIRST_S
    for count in range(1, 40):
        decision = decide(situation([0.15] * count, limit_s), PROMISE)
        if isinstance(decision, SetLimit):
            limit_s = decision.seconds
            limits.append((count, round(limit_s, 3)))
    assert limits == [(4, 0.06), (7, 0.12), (10, 0.2)]


def test_what_needs_more_than_the_promise_gets_all_of_it_at_once() -> None:
    """There is nothing to be gained by small steps where even the best pass would need more."""
    assert decide(situation([0.8] * 4), PROMISE) == SetLimit(MOST_S)


def test_what_waits_in_the_kernel_is_part_of_the_promise() -> None:
    """QEMU counts it as sent: it may use so much less, and at once; with more than all of it nothing goes over."""

    def waiting(limit_s: float, *waiting_s: float) -> Situation:
        seen = situation([0.15] * len(waiting_s), limit_s)
        return replace(
            seen, passes=[replace(one, waiting_s=more) for one, more in zip(seen.passes, waiting_s, strict=True)]
        )

    assert decide(waiting(0.03, 0.1, 0.12), PROMISE) == Wait()
    assert decide(waiting(MOST_S, 0.15, 0.12, 0.1, 0.1), PROMISE) == SetLimit(pytest.approx(0.08))
    assert decide(waiting(0.06, *[0.12] * 10), PROMISE) == SetLimit(pytest.approx(0.08))
    little = decide(waiting(0.075, *[0.11] * 5), PROMISE)
    assert not isinstance(little, SetLimit), "that little more is not worth it"
    assert decide(waiting(FIRST_S, 0.3), PROMISE) == SetLimit(0.0)
    assert isinstance(decide(waiting(0.0, *[0.3] * 8), PROMISE), GiveUp)


def test_a_guest_that_is_held_back_stands_still_before_it_is_suspended() -> None:
    """For 90 ms at 90 %: QEMU may use so much less."""
    seen = replace(situation([0.15] * 2, MOST_S), throttle_percent=90, throttled_percent=90, since_s=3.0)
    assert decide(seen, THROTTLING) == SetLimit(pytest.approx(0.11))


def test_an_improvement_starts_the_patience_anew() -> None:
    """A busy moment of the guest is no reason to suspend it for longer."""
    assert decide(situation([0.19, 0.19, 0.19, 0.1]), PROMISE) == Wait()
    assert decide(situation([0.19, 0.19, 0.19, 0.189]), PROMISE) == SetLimit(0.06)


def test_a_stall_is_what_lasts_for_passes_and_for_time() -> None:
    """Since something was last done about it, and since the last pass that was better."""
    assert isinstance(decide(STALLED, PROMISE), GiveUp)
    few = situation([0.8] * STALL_PASSES, MOST_S)
    assert decide(few, PROMISE) == Wait()
    quick = situation([0.8] * (STALL_PASSES + 1), MOST_S, pass_s=STALL_S / (STALL_PASSES + 1))
    assert decide(quick, PROMISE) == Wait()
    assert decide(replace(STALLED, since_s=STALLED.now_s - STALL_S + 0.1), PROMISE) == Wait()


def test_a_copy_without_end_is_given_up_with_the_figures() -> None:
    """What was measured, what was tried, what would do; the same as figures for programs."""
    decision = decide(STALLED, PROMISE)
    assert isinstance(decision, GiveUp)
    assert decision.reason == (
        "the copy does not come to an end with a suspension of at most 300ms: in 5 passes and 10.0 s 10.0 MiB/s were"
        " sent, the guest changed 40.0 MiB/s, and would have had to be suspended for 800ms; tried: 200ms for QEMU's"
        " last part; what would do: --max-suspend 1000ms, or a bandwidth of 40.0 MiB/s, or --on-stall=throttle, which"
        " holds the guest back, by 88 % or more, or --on-stall=suspend, which suspends the guest for as long as the"
        " rest takes, for about 0.8 s, or --on-stall=postcopy, which lets it run on the target before all of its memory"
        " is there, and loses it if a host fails meanwhile, or a time when the guest does less"
    )
    assert decision.unkept is not None
    assert (decision.unkept.passes, decision.unkept.left_s, decision.unkept.dirty_bytes_s) == (5, 0.8, 40.0 * MIB)


def test_a_guest_that_may_be_held_back_is_before_the_copy_is_given_up() -> None:
    """By as much as its changes call for, then by more, each step given its time; then the text names the throttle."""
    now, taken = STALLED, []
    for _ in range(10):
        decision = decide(now, THROTTLING)
        if not isinstance(decision, Throttle):
            break
        taken.append(decision.percent)
        told = replace(now, throttle_percent=decision.percent, since_s=now.now_s)
        assert decide(told, THROTTLING) == Wait(), "it has not had its time"
        not_yet = _later(told, passes=STALL_PASSES, held_back=0)
        assert decide(not_yet, THROTTLING) == Wait(), "QEMU does not do it yet"
        now = _later(replace(told, limit_s=0.11), passes=STALL_PASSES, held_back=decision.percent)
    assert taken == [90]  # 40 MiB/s against 10: half of that is an eighth
    assert isinstance(decision, GiveUp)
    assert "110ms for QEMU's last part and 90 % of the guest's CPU time held back" in decision.reason
    assert "--on-stall=throttle" not in decision.reason


def _later(now: Situation, *, passes: int, held_back: int, left_s: float = 0.8) -> Situation:
    """After more passes, 2 s each, that are no better."""
    last = replace(now.passes[-1], left_s=left_s, throttle_percent=held_back)
    more = [replace(last, at_s=now.now_s + 2 * n) for n in range(1, passes + 1)]
    return replace(now, passes=[*now.passes, *more], now_s=now.now_s + 2 * passes, throttled_percent=held_back)


@pytest.mark.parametrize(("dirty_mib_s", "step"), [(0.0, 50), (11.0, 70), (19.0, 85), (400.0, 90)])
def test_the_first_step_follows_from_what_the_guest_changes(dirty_mib_s: float, step: int) -> None:
    """Held back, it should change half of what is sent; where that is not known the first step is tried."""
    stalled = situation([0.8] * 6, MOST_S, dirty_mib_s=dirty_mib_s)
    assert decide(stalled, THROTTLING) == Throttle(step)


def test_a_throttle_that_helps_is_let_alone() -> None:
    """Passes get shorter again."""
    told = replace(STALLED, limit_s=0.11, throttle_percent=90, since_s=STALLED.now_s)
    assert decide(_later(told, passes=2, held_back=90, left_s=0.5), THROTTLING) == Wait()
    assert isinstance(decide(_later(told, passes=3, held_back=90, left_s=0.5), THROTTLING), GiveUp)


def test_a_guest_may_be_suspended_for_the_rest_if_that_is_allowed() -> None:
    """Once, and then nothing but the time counts."""
    allowed = replace(PROMISE, on_stall=OnStall.SUSPEND)
    assert decide(STALLED, allowed) == SuspendNow()
    suspended = replace(_later(STALLED, passes=9, held_back=0), is_suspended=True)
    assert decide(suspended, allowed) == Wait()
    assert isinstance(decide(suspended, replace(allowed, max_time_s=5.0)), GiveUp)


def test_a_copy_that_is_late_is_given_up() -> None:
    """What was promised counts from the request, and leaves the time for the suspension."""
    timed = replace(PROMISE, max_time_s=20.0)
    begun = situation([], FIRST_S)
    assert decide(replace(begun, now_s=19.6), timed) == Wait()
    for late in (replace(begun, now_s=19.8), replace(begun, now_s=10.0, before_s=9.8)):
        decision = decide(late, timed)
        assert isinstance(decision, GiveUp)
        assert decision.reason.startswith(
            "the copy does not come to an end within 20.0 s with a suspension of at most 300ms: the first pass over its"
            " memory is not over after"
        )
        assert "a --max-time of more than 20.0 s" in decision.reason


def test_when_half_of_the_time_is_gone_everything_goes_faster() -> None:
    """The whole allowance at once, and less patience."""
    timed = replace(THROTTLING, max_time_s=20.0)
    late = situation([0.8] * 2, pass_s=6.0)
    assert decide(late, replace(timed, max_time_s=0.0)) == Wait()
    assert decide(late, timed) == SetLimit(MOST_S)
    assert isinstance(decide(_later(replace(late, limit_s=MOST_S), passes=2, held_back=0), timed), Throttle)


def test_a_guest_does_not_stand_still_for_longer_than_was_promised() -> None:
    """Where it is suspended for the whole copy."""
    still = replace(situation([]), still_s=PROMISE_S)
    assert decide(still, PROMISE) == Wait()
    decision = decide(replace(still, still_s=PROMISE_S + 0.01), PROMISE)
    assert isinstance(decision, GiveUp)
    assert "suspended for 310 ms, not all of its memory has been sent, and 300 ms are allowed" in decision.reason


def test_a_silent_target_is_handed_nothing() -> None:
    """The end of the copy is held back until it is heard again, and then what was earned counts."""
    left = [0.15] * 4
    assert decide(situation(left, 0.06, silence_s=SILENT_S + 0.1), PROMISE) == SetLimit(0.0)
    assert decide(situation(left, 0.0, silence_s=SILENT_S + 0.1), PROMISE) == Wait()
    assert decide(situation(left, 0.0), PROMISE) == SetLimit(0.06)
    decision = decide(situation(left, 0.0, silence_s=LOST_S + 1), PROMISE)
    assert isinstance(decision, GiveUp)
    assert decision.unkept is None
    assert "has not been heard for 31 s" in decision.reason


def test_a_guest_may_go_over_before_the_rest_if_that_is_allowed() -> None:
    """Once, and never without a stall; a target that is silent is not handed anything."""
    allowed = replace(PROMISE, on_stall=OnStall.POSTCOPY)
    assert decide(STALLED, allowed) == StartPostcopy()
    assert decide(replace(STALLED, silence_s=SILENT_S + 1), allowed) == SetLimit(0.0)
    gone = replace(_later(STALLED, passes=9, held_back=0), goes_over=True)
    assert decide(gone, allowed) == Wait()
    assert isinstance(decide(replace(gone, silence_s=LOST_S + 1), allowed), GiveUp)
    late = decide(gone, replace(allowed, max_time_s=5.0))
    assert isinstance(late, GiveUp)
    assert "--on-stall=postcopy" not in late.reason


# What holds whatever is seen

PROMISES = st.builds(
    lambda suspend_s, time_s, on_stall: Promise(
        suspend_s,
        min(FIRST_S, downtime_most_s(suspend_s)),
        downtime_most_s(suspend_s),
        time_s,
        on_stall,
        throttle_percents(suspend_s) if on_stall is OnStall.THROTTLE else (),
    ),
    st.sampled_from([0.01, 0.05, 0.3, 2.0, 60.0]),
    st.sampled_from([0.0, 1.0, 30.0, 600.0]),
    st.sampled_from(list(OnStall)),
)
LEFT = st.lists(st.floats(0.0, 100.0), max_size=60)


def walk(promise: Promise, left: Sequence[float], pass_s: float, silence_s: float = 0.0) -> list[Decision]:
    """Every decision on a way through passes of that length, each carried out, up to the end of it."""
    now = Situation([], 0.0, promise.first_limit_s, silence_s)
    made: list[Decision] = []
    for number, left_s in enumerate(left):
        at_s = (number + 1) * pass_s
        sample = PassSample(at_s, left_s, int(left_s * 10 * MIB), 20.0 * MIB, 10.0 * MIB, now.throttle_percent)
        now = replace(now, passes=[*now.passes, sample], now_s=at_s, throttled_percent=now.throttle_percent)
        made.append(decide(now, promise))
        match made[-1]:
            case SetLimit(seconds):
                now = replace(now, limit_s=seconds, since_s=at_s)
            case Throttle(percent):
                now = replace(now, throttle_percent=percent, since_s=at_s)
            case SuspendNow():
                now = replace(now, is_suspended=True, since_s=at_s)
            case StartPostcopy():
                now = replace(now, goes_over=True, since_s=at_s)
            case GiveUp():
                break
    return made


@given(PROMISES, LEFT, st.floats(0.05, 20.0), st.floats(0.0, 29.0))
def test_the_limit_never_exceeds_the_promise(
    promise: Promise, left: list[float], pass_s: float, silence_s: float
) -> None:
    """Nor does the share that the guest is held back by exceed the last step; no step is taken twice."""
    made = walk(promise, left, pass_s, silence_s)
    assert all(
        0 <= one.seconds <= promise.most_limit_s < promise.max_suspend_s for one in made if isinstance(one, SetLimit)
    )
    steps = [one.percent for one in made if isinstance(one, Throttle)]
    assert steps == sorted(set(steps))
    assert set(steps) <= set(promise.throttle_percents)


@given(PROMISES, LEFT, st.floats(0.05, 20.0))
def test_a_measure_is_taken_only_if_it_is_allowed(promise: Promise, left: list[float], pass_s: float) -> None:
    """And at most once suspended, or handed over before the rest."""
    made = walk(promise, left, pass_s)
    assert not any(isinstance(one, Throttle) for one in made) or promise.on_stall is OnStall.THROTTLE
    assert sum(isinstance(one, SuspendNow) for one in made) <= (promise.on_stall is OnStall.SUSPEND)
    assert sum(isinstance(one, StartPostcopy) for one in made) <= (promise.on_stall is OnStall.POSTCOPY)


@given(PROMISES, st.lists(st.floats(0.0, 100.0), min_size=2, max_size=40), st.floats(0.0, 29.0))
def test_it_always_ends_within_the_time(promise: Promise, left: list[float], silence_s: float) -> None:
    """Whatever the passes leave, as long as QEMU does not go over: given up, and not a pass later."""
    max_time_s = promise.max_time_s or 100.0
    pass_s = max_time_s / (len(left) - 1)
    made = walk(replace(promise, max_time_s=max_time_s), left, pass_s, silence_s)
    assert isinstance(made[-1], GiveUp)
    assert len(made) == 1 or (len(made) - 1) * pass_s <= max_time_s - promise.max_suspend_s


@given(PROMISES, st.floats(0.5, 20.0), st.floats(0.0, 100.0))
def test_a_copy_that_gets_no_better_ends_without_a_time_limit(promise: Promise, pass_s: float, left_s: float) -> None:
    """After every measure that is allowed; a guest that is suspended for the rest, or does without it, goes over."""
    made = walk(replace(promise, max_time_s=0.0), [left_s] * 150, pass_s)
    assert isinstance(made[-1], GiveUp) or any(isinstance(one, SuspendNow | StartPostcopy) for one in made)


@given(st.floats(0.001, 2000.0))
def test_what_qemu_may_be_told_leaves_room_for_what_it_does_not_count(promise_s: float) -> None:
    """At most a third of it; and a guest that is held back stands still for no more than a third of it."""
    most_s = downtime_most_s(promise_s)
    assert promise_s * 0.66 <= most_s < promise_s
    steps = throttle_percents(promise_s)
    assert list(steps) == sorted(set(steps))
    assert 0 <= steps[-1] <= 99
    assert 0.01 * steps[-1] / (100 - steps[-1]) <= promise_s / 3


@pytest.mark.parametrize(("promise_s", "most_s"), [(0.03, 0.02), (0.3, 0.2), (1.0, 0.8), (30.0, 26.9)])
def test_the_room_in_figures(promise_s: float, most_s: float) -> None:
    """A third of short promises, a tenth and 100 ms of long ones."""
    assert downtime_most_s(promise_s) == pytest.approx(most_s)
