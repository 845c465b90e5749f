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
    SetLimit,
    Situation,
    Wait,
    decide,
)

FIRST_S, PROMISE_S = 0.03, 0.3


def situation(
    left: Sequence[float], limit_s: float = FIRST_S, silence_s: float = 0.0, pass_s: float = 1.0
) -> Situation:
    """As of the end of passes that left so much, each of the same length."""
    passes = [PassSample((number + 1) * pass_s, left_s) for number, left_s in enumerate(left)]
    return Situation(passes, len(left) * pass_s, limit_s, PROMISE_S, silence_s)


def test_a_copy_that_gets_shorter_is_let_alone() -> None:
    """Each pass leaves less: the first limit will do."""
    assert decide(situation([3.0, 1.0, 0.4, 0.1, 0.05]), FIRST_S) == Wait()
    assert decide(situation([]), FIRST_S) == Wait()


def test_a_copy_that_does_not_gets_a_longer_suspension() -> None:
    """Doubled for every three passes that brought nothing, and never more than was promised."""
    limits, limit_s = [], FIRST_S
    for count in range(1, 40):
        decision = decide(situation([0.2] * count, limit_s), FIRST_S)
        if isinstance(decision, SetLimit):
            limit_s = decision.seconds
            limits.append((count, round(limit_s, 3)))
    assert limits == [(4, 0.06), (7, 0.12), (10, 0.24), (13, 0.3)]


def test_an_improvement_starts_the_patience_anew() -> None:
    """A busy moment of the guest is no reason to suspend it for longer."""
    assert decide(situation([0.2, 0.2, 0.2, 0.1]), FIRST_S) == Wait()
    assert decide(situation([0.2, 0.2, 0.2, 0.199]), FIRST_S) == SetLimit(0.06)


def test_a_copy_without_end_is_given_up_with_the_figures() -> None:
    """When many passes and much time with the full allowance have brought nothing."""
    stalled = situation([0.8] * (STALL_PASSES + 1), PROMISE_S, pass_s=STALL_S / STALL_PASSES)
    decision = decide(stalled, FIRST_S)
    assert isinstance(decision, GiveUp)
    assert "would still have to be suspended for 800 ms, and 300 ms are allowed" in decision.reason
    assert decide(situation([0.8] * STALL_PASSES, PROMISE_S, pass_s=STALL_S / STALL_PASSES), FIRST_S) == Wait()
    assert decide(situation([0.8] * (STALL_PASSES + 1), PROMISE_S, pass_s=0.1), FIRST_S) == Wait()


def test_a_guest_does_not_stand_still_for_longer_than_was_promised() -> None:
    """Where it is suspended for the whole copy."""
    still = replace(situation([]), still_s=PROMISE_S)
    assert decide(still, FIRST_S) == Wait()
    decision = decide(replace(still, still_s=PROMISE_S + 0.01), FIRST_S)
    assert isinstance(decision, GiveUp)
    assert "suspended for 310 ms, not all of its memory has been sent, and 300 ms are allowed" in decision.reason


def test_a_silent_target_is_handed_nothing() -> None:
    """The end of the copy is held back until it is heard again, and then what was earned counts."""
    left = [0.2] * 4
    assert decide(situation(left, 0.06, silence_s=SILENT_S + 0.1), FIRST_S) == SetLimit(0.0)
    assert decide(situation(left, 0.0, silence_s=SILENT_S + 0.1), FIRST_S) == Wait()
    assert decide(situation(left, 0.0), FIRST_S) == SetLimit(0.06)
    decision = decide(situation(left, 0.0, silence_s=LOST_S + 1), FIRST_S)
    assert isinstance(decision, GiveUp)
    assert "has not been heard for 31 s" in decision.reason


@given(st.lists(st.floats(0.0, 100.0), max_size=60), st.floats(0.0, 60.0), st.sampled_from([0.0, 0.03, 0.12, 0.3]))
def test_no_decision_breaks_the_promise(left: list[float], silence_s: float, limit_s: float) -> None:
    """Whatever is seen, the suspension that is allowed is never longer than promised."""
    decision: Decision = decide(situation(left, limit_s, silence_s), FIRST_S)
    if isinstance(decision, SetLimit):
        assert 0 <= decision.seconds <= PROMISE_S
        assert decision.seconds != limit_s


@pytest.mark.parametrize("promise_s", [0.01, 0.3, 2.0])
def test_a_promise_shorter_than_the_first_try_is_kept(promise_s: float) -> None:
    """The plan starts with the shorter of the two."""
    passes = [PassSample(float(number), 0.2) for number in range(25)]
    decision = decide(Situation(passes, 20.0, min(FIRST_S, promise_s), promise_s, 0.0), min(FIRST_S, promise_s))
    assert decision == (SetLimit(promise_s) if promise_s > FIRST_S else Wait())
