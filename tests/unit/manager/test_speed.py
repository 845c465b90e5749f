"""NORM: the use of CPU in percent of full speed."""

from __future__ import annotations

import time

import pytest

from ldoms.manager.speed import KEPT_S, Speedometer, read_frequencies


def test_a_cpu_that_is_slowed_down_counts_for_less() -> None:
    """Half its speed is a half; faster than its nominal speed, or not told, is all."""
    speed = Speedometer(lambda: [(1500.0, 3000.0), (3200.0, 3000.0), (2400.0, 0.0)])
    assert [speed.share(cpu) for cpu in range(4)] == [0.5, 1.0, 1.0, 1.0]


def test_it_is_read_anew_after_a_while() -> None:
    """Not for each virtual CPU of a listing."""
    now, readings = [100.0], [[(1000.0, 2000.0)], [(2000.0, 2000.0)]]
    speed = Speedometer(lambda: readings.pop(0), lambda: now[0])
    assert (speed.share(0), speed.share(0)) == (0.5, 0.5)
    now[0] += KEPT_S
    assert speed.share(0) == 1.0


def test_this_machine_says_something_sensible() -> None:
    """Or nothing: no frequency is negative."""
    begun = time.monotonic()
    assert all(now >= 0 and most >= 0 for now, most in read_frequencies())
    assert time.monotonic() - begun < 5.0
    assert Speedometer().share(0) == pytest.approx(0.5, abs=0.5)
