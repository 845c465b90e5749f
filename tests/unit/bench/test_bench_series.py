"""What values mean: medians, spreads, promises, and the order in which cases take turns."""

from __future__ import annotations

import pytest

from ldoms.bench.series import Promise, Unit, judge, spread, turns


def test_the_median_and_the_spread() -> None:
    """Of all values, which are kept in their order."""
    found = spread([3.0, 1.0, 10.0, 2.0], Unit.SECONDS)
    assert (found.median, found.least, found.most, found.values) == (2.5, 1.0, 10.0, (3.0, 1.0, 10.0, 2.0))
    assert str(found) == "2.5 s [1 .. 10]"


def test_no_values_are_no_figure() -> None:
    """Nothing is made up."""
    with pytest.raises(ValueError, match="nothing was measured"):
        spread([], Unit.SECONDS)


CASES = {
    "ours": spread([40.0, 20.0, 30.0], Unit.MILLISECONDS),
    "theirs": spread([9.0, 10.0, 12.0], Unit.MILLISECONDS),
}


@pytest.mark.parametrize(("limit", "kept"), [(30, True), (29.9, False)])
def test_a_limit_is_kept_up_to_itself(limit: float, kept: bool) -> None:
    """In the unit of the case."""
    (verdict,) = judge([Promise("ours", limit)], CASES)
    assert (verdict.measured, verdict.unit, verdict.kept) == (30.0, "ms", kept)


@pytest.mark.parametrize(("limit", "kept"), [(3, True), (2.9, False)])
def test_a_ratio_is_one_of_medians(limit: float, kept: bool) -> None:
    """Of the same run."""
    (verdict,) = judge([Promise("ours", limit, "theirs")], CASES)
    assert (verdict.measured, verdict.unit, verdict.kept) == (3.0, "times", kept)
    said = "kept" if kept else "NOT KEPT"
    assert str(verdict) == f"ours: 3 times theirs, at most {limit:g}: {said}"


@pytest.mark.parametrize("promise", [Promise("absent", 3), Promise("ours", 3, "absent")])
def test_what_was_not_measured_is_not_judged(promise: Promise) -> None:
    """As where the peer is not installed."""
    assert judge([promise], CASES) == []


def test_each_round_has_every_case_once_and_the_order_changes() -> None:
    """So that none always follows the same one; with the same seed it is the same."""
    cases = ["a", "b", "c"]
    order = list(turns(cases, 20))
    rounds = [tuple(order[at : at + 3]) for at in range(0, len(order), 3)]
    assert len(rounds) == 20
    assert all(sorted(one) == cases for one in rounds)
    assert len(set(rounds)) > 3
    assert order == list(turns(cases, 20))
    assert order != list(turns(cases, 20, seed=2))
