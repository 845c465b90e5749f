"""Names, MAC addresses and host ids."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.model.errors import HostError, RequestError
from ldoms.model.identity import check_mac, check_name, hostid_of, is_automatic_mac, pick_mac


@pytest.mark.parametrize("name", ["ldg1", "1", "a.b-c_d+e#f:g;h~i(j)", "x" * 64])
def test_names_that_ldoms_takes(name: str) -> None:
    """Letters, digits, and what LDoms allows beside them."""
    assert check_name(name, "domain") == name


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "ä", "x" * 65, "../etc", "a\n", "a|b"])
def test_names_that_would_break_something(name: str) -> None:
    """A path, a field of ``-p`` output, a line."""
    with pytest.raises(RequestError, match="cannot name a volume") as caught:
        check_name(name, "volume")
    assert caught.value.code == "bad-name"


@pytest.mark.parametrize(
    ("typed", "mac"),
    [("00:14:4F:FC:00:01", "00:14:4f:fc:00:01"), ("0:14:4f:f9:c1:7d", "00:14:4f:f9:c1:7d")],
)
def test_macs_are_made_uniform(typed: str, mac: str) -> None:
    """Leading zeros may be left out, as Solaris does."""
    assert check_mac(typed) == mac


@pytest.mark.parametrize(
    "typed", ["", "00:14:4f:fc:00", "00:14:4f:fc:00:1g", "00:14:4f:fc:00:01:02", "0x14", "1:2:3:4:5:256"]
)
def test_what_is_no_mac_is_refused(typed: str) -> None:
    """With an example of one."""
    with pytest.raises(RequestError, match="is not a MAC address"):
        check_mac(typed)


def test_a_group_address_is_refused() -> None:
    """No interface can have it."""
    with pytest.raises(RequestError, match="group address"):
        check_mac("01:00:5e:00:00:01")


@given(st.integers())
def test_picked_macs_are_of_the_automatic_range_and_free(seed: int) -> None:
    """00:14:4F:F8 to FB, none that is taken."""
    source = random.Random(seed)
    taken: set[str] = set()
    for _ in range(20):
        mac = pick_mac(taken, source)
        assert is_automatic_mac(mac)
        assert mac not in taken
        assert check_mac(mac) == mac
        taken.add(mac)


def test_a_full_range_ends_in_an_error() -> None:
    """Not in an endless search."""

    class Everything:
        def __contains__(self, mac: object) -> bool:
            return True

    with pytest.raises(HostError, match="no MAC address"):
        pick_mac(Everything(), random.Random(1))


def test_macs_by_hand_are_not_of_the_automatic_range() -> None:
    """FC to FF are free for picking by hand."""
    assert not is_automatic_mac("00:14:4f:fc:00:00")
    assert not is_automatic_mac("52:54:00:f8:00:00")


def test_the_host_id_comes_from_the_mac() -> None:
    """0x84 and its low three bytes, as real ones do."""
    assert hostid_of("00:14:4f:f9:c1:7d") == "0x84f9c17d"
