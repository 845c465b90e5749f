"""What readings mean, and in which order hosts are emptied."""

from __future__ import annotations

import pytest

from ldoms.bench.idle import AT_ONCE, cpu_per_minute, evacuation_order


def test_cpu_time_is_counted_between_readings() -> None:
    """Of windows of any length; what was used before the first one does not count."""
    assert cpu_per_minute([5.0, 5.5, 5.5, 6.0], [100.0, 115.0, 130.0, 190.0]) == [2.0, 0.0, 0.5]


def test_readings_without_their_times_are_a_mistake() -> None:
    """Not a shorter series."""
    with pytest.raises(ValueError, match="shorter"):
        cpu_per_minute([1.0, 2.0], [100.0])


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_each_way_goes_as_often_in_either_direction(rounds: int) -> None:
    """So that hosts which differ do not decide."""
    order = evacuation_order(rounds)
    for at_once in AT_ONCE:
        assert order[::2].count(at_once) == order[1::2].count(at_once) == rounds
