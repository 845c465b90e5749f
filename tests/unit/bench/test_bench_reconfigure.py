"""What a guest says of itself decides whether a change has been measured."""

from __future__ import annotations

import pytest

from ldoms.bench.reconfigure import CHANGES, count_cpus, guest_counter
from ldoms.model.errors import HostError


def test_the_counter_is_read() -> None:
    """By its whole name."""
    assert guest_counter("hello count=12 errors=0 memory=2544\n", "memory") == 2544


def test_a_guest_that_does_not_say_it_is_an_error() -> None:
    """Not a figure."""
    with pytest.raises(HostError, match="does not say its memory"):
        guest_counter("hello count=12 errors=0 othermemory=5\n", "memory")


def test_a_round_leaves_the_guest_as_it_was() -> None:
    """So that the next one measures the same."""
    for counter in {change.counter for change in CHANGES}:
        assert sum(change.by for change in CHANGES if change.counter == counter) == 0


def test_the_cpus_that_the_kernel_names_are_counted() -> None:
    """Single ones and ranges."""
    assert [count_cpus(text) for text in ("0\n", "0-1\n", "0-2,5,7-8")] == [1, 2, 6]
