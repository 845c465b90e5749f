"""Sizes and times as `ldm` reads and writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.model.errors import RequestError
from ldoms.model.sizes import align_up, format_size, format_uptime, parse_size_mib


@pytest.mark.parametrize(
    ("text", "mib"),
    [("4G", 4096), ("512m", 512), ("1024K", 1), ("1k", 1), ("1048577", 2), ("0", 0), ("4GB", 4096), ("3Mb", 3)],
)
def test_sizes_are_read(text: str, mib: int) -> None:
    """Any unit in any case; none means bytes; what is no whole MiB is rounded up."""
    assert parse_size_mib(text) == mib


@pytest.mark.parametrize("text", ["", "G", "-1G", "1.5G", "4 G", "4T", "four", "4G\n"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """With the text as it was typed."""
    with pytest.raises(RequestError, match="is not a memory size") as caught:
        parse_size_mib(text)
    assert caught.value.code == "bad-size"
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("size", "text"),
    [(32544 << 20, "32544M"), (32 << 30, "32G"), (512 << 10, "512K"), (1000, "1000"), (0, "0"), (1 << 40, "1024G")],
)
def test_sizes_are_written_in_the_largest_unit_that_divides_them(size: int, text: str) -> None:
    """As ``ldm list`` shows them."""
    assert format_size(size) == text


@given(st.integers(min_value=1, max_value=1 << 30))
def test_what_is_written_is_read_again(mib: int) -> None:
    """Whatever number of MiB it is."""
    assert parse_size_mib(format_size(mib << 20)) == mib


@given(st.integers(min_value=0, max_value=1 << 40), st.integers(min_value=1, max_value=1 << 12))
def test_aligning_gives_the_next_multiple(value: int, alignment: int) -> None:
    """Not less than the value, and by less than one alignment more."""
    aligned = align_up(value, alignment)
    assert aligned % alignment == 0
    assert 0 <= aligned - value < alignment


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (23.9, "23s"), (60, "1m"), (599, "9m"), (8160, "2h 16m"), (3917160, "45d 8h 6m"), (86400, "1d 0h 0m")],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    """In the units of ``ldm list``."""
    assert format_uptime(seconds) == text
