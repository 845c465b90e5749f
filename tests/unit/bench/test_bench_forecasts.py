"""What is made of forecasts and facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ldoms.bench.forecasts import LOADS, WAYS, Case, Comparison, Load, Way, summary
from ldoms.model.migration import Outcome
from unit.cli.office import DONE, FORECAST


def case(total_s: float, way: Way = Way(), outcome: Outcome = Outcome.DONE) -> Case:  # noqa: B008
    """A move that was expected to take 2.25 s, and took `total_s`."""
    report = replace(DONE, ended_at=DONE.started_at + total_s, outcome=outcome)
    return Case(Load(96), way, FORECAST, report, 1.0)


def test_the_matrix_is_as_large_as_it_should_be() -> None:
    """Links from 200 Mbit/s to unlimited, with delay, with and without encryption, three sizes of control domains."""
    assert len(LOADS) * len(WAYS) >= 24
    assert {way.rate for way in WAYS} >= {"", "1gbit", "200mbit"}
    assert {way.encrypted for way in WAYS} == {True, False}
    assert len({way.control_strands for way in WAYS}) == 3
    assert any(way.delay for way in WAYS)


def test_an_error_is_a_share_of_the_fact() -> None:
    """And a factor looks at both sides in the same way."""
    more, less = Comparison(3.0, 1.0, 4.0, 2.0), Comparison(2.0, 1.0, 2.5, 4.0)
    assert (more.error, more.factor, more.is_within) == (0.5, 1.5, True)
    assert (less.error, less.factor, less.is_within) == (0.5, 2.0, False)


def test_the_summary_names_what_is_off_by_too_much() -> None:
    """A move that has failed has no facts."""
    slow = case(9.0, Way(rate="200mbit"))
    found = summary([case(2.25), case(2.5), slow, case(1.0, outcome=Outcome.FAILED)])["total"]
    assert found["cases"] == 3
    assert found["median_error"] == pytest.approx(0.1)
    assert found["worst_factor"] == pytest.approx(4.0)
    assert found["off_by_more_than_a_factor_of_two"] == [slow.name]
    assert found["within_range"] == pytest.approx(2 / 3, abs=0.001)
    assert summary([]) == {}


def test_cases_are_named_in_words() -> None:
    """Whoever reads the table knows what was done."""
    named = Case(Load(192, 48, 24), Way("1gbit", "5ms", encrypted=False, control_strands=4), FORECAST, DONE, 1.0).name
    assert named == "192 MiB, 48 at 24/s; 1gbit 5ms, clear, 0.5 CPU"
