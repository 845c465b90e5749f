"""Resource management policies: which one counts, and what it asks for."""

from __future__ import annotations

from datetime import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.model.policy import Policy, active_policy, decide

NOON = time(12, 0)


def test_the_policy_that_counts() -> None:
    """Enabled, at its time of day; the lowest number wins, then the name."""
    off = Policy("off", priority=1)
    night = Policy("night", enabled=True, priority=2, begin="22:00:00", end="06:00:00")
    late, early = Policy("late", enabled=True, priority=9), Policy("early", enabled=True, priority=5)
    alike = Policy("alike", enabled=True, priority=5)
    assert active_policy([], NOON) is None
    assert active_policy([off], NOON) is None
    assert active_policy([late, night, early, off], NOON) is early
    assert active_policy([early, alike], NOON) is alike
    assert active_policy([late, night], time(23, 0)) is night
    assert active_policy([late, night], time(5, 59)) is night
    assert active_policy([late, night], time(6, 1)) is late


def test_the_whole_day_has_no_gap() -> None:
    """The default times count in the last second of the day, too."""
    assert Policy("always", enabled=True).counts_at(time(23, 59, 59, 999_999))


@pytest.mark.parametrize(
    ("policy", "vcpus", "utilisation", "wanted"),
    [
        (Policy("p"), 4, 70.0, 4),
        (Policy("p"), 4, 85.0, 4),
        (Policy("p"), 4, 100.0, 5),
        (Policy("p", util_upper=50, util_lower=20), 4, 100.0, 8),
        (Policy("p", util_upper=50, util_lower=20, attack=2), 4, 100.0, 6),
        (Policy("p", util_upper=50, util_lower=20, vcpu_max=7), 4, 100.0, 7),
        (Policy("p"), 4, 10.0, 3),
        (Policy("p", decay=None), 8, 20.0, 2),
        (Policy("p", decay=None, vcpu_min=1), 8, 5.0, 1),
        (Policy("p", decay=3), 8, 20.0, 5),
        (Policy("p"), 2, 0.0, 2),
        (Policy("p"), 1, 0.0, 2),
        (Policy("p", vcpu_max=3), 5, 70.0, 4),
        (Policy("p", vcpu_min=1, elastic_margin=0), 2, 42.0, 1),
        (Policy("p", vcpu_min=1, elastic_margin=5), 2, 42.0, 2),
    ],
)
def test_what_a_policy_asks_for(policy: Policy, vcpus: int, utilisation: float, wanted: int) -> None:
    """Nothing inside the band; attack, decay, the limits and the margin are kept."""
    assert decide(policy, vcpus, utilisation) == wanted


@given(
    vcpus=st.integers(1, 64),
    utilisation=st.floats(0, 100),
    attack=st.none() | st.integers(1, 8),
    decay=st.none() | st.integers(1, 8),
    low=st.integers(1, 8),
    span=st.none() | st.integers(0, 16),
    margin=st.integers(0, 100),
)
def test_a_policy_never_swings(
    vcpus: int, utilisation: float, attack: int | None, decay: int | None, low: int, span: int | None, margin: int
) -> None:
    """With the same load it never takes back at once what it has just given, nor gives what it has just taken."""
    high = None if span is None else low + span
    policy = Policy("p", True, vcpu_min=low, vcpu_max=high, attack=attack, decay=decay, elastic_margin=margin)
    first = decide(policy, vcpus, utilisation)
    assert first >= 1
    assert attack is None or first - vcpus <= attack
    assert decay is None or vcpus - first <= decay
    second = decide(policy, first, min(100.0, utilisation * vcpus / first))
    assert (second - first) * (first - vcpus) >= 0 or utilisation >= 99.9
