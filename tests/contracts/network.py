"""The contract of `ldoms.net.network`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

import pytest

from ldoms.model.errors import HostError, RequestError
from ldoms.model.services import VirtualSwitch
from ldoms.net.network import Network, TapSpec

SWITCH = VirtualSwitch("primary-vsw0", 0, "00:14:4f:f8:00:01", net_dev="")
TAP = TapSpec("vnet1.0", "vnet0 of ldg1", 1500)


class NetworkBench(Protocol):
    """A network that nothing else uses, with one interface ``up0`` that can be an uplink."""

    network: Network

    def taps_of(self, switch: VirtualSwitch) -> set[str]:
        """The names of the taps that are connected to a switch."""

    def has_switch(self, switch: VirtualSwitch) -> bool:
        """Whether it is there, and up."""

    def way(self, mtu: int) -> str:
        """Make a way to an address, by an interface with that MTU."""

    def no_way(self) -> str:
        """An address that nothing leads to."""


async def check_a_tap_is_connected_to_its_switch(bench: NetworkBench) -> None:
    """Made again, it is the same; a switch that is changed keeps it."""
    for _ in range(2):
        await bench.network.put_switch(SWITCH)
        await bench.network.put_tap(TAP, SWITCH)
    await bench.network.put_switch(replace(SWITCH, mtu=9000))
    assert bench.taps_of(SWITCH) == {TAP.name}


async def check_what_is_removed_is_gone(bench: NetworkBench) -> None:
    """And removing what is not there does no harm."""
    await bench.network.put_switch(SWITCH)
    await bench.network.put_tap(TAP, SWITCH)
    for _ in range(2):
        await bench.network.remove_tap(TAP.name)
        assert bench.taps_of(SWITCH) == set()
    for _ in range(2):
        await bench.network.remove_switch(SWITCH)
        assert not bench.has_switch(SWITCH)


async def check_a_tap_needs_its_switch(bench: NetworkBench) -> None:
    """It is refused with the name of the switch."""
    with pytest.raises(HostError, match=r"primary-vsw0 has no bridge"):
        await bench.network.put_tap(TAP, SWITCH)


async def check_an_uplink_must_exist(bench: NetworkBench) -> None:
    """One that does not is named."""
    await bench.network.check_uplink("up0")
    with pytest.raises(RequestError, match="no network interface nodev0") as caught:
        await bench.network.check_uplink("nodev0")
    assert caught.value.code == "no-interface"


async def check_a_lost_uplink_is_told(bench: NetworkBench) -> None:
    """The switch is there all the same: its guests reach each other."""
    with pytest.raises(HostError, match=r"primary-vsw0 has lost its uplink: there is no interface nodev0") as caught:
        await bench.network.put_switch(replace(SWITCH, net_dev="nodev0"))
    assert caught.value.code == "no-interface"
    assert bench.has_switch(SWITCH)
    await bench.network.put_tap(TAP, SWITCH)
    assert bench.taps_of(SWITCH) == {TAP.name}


async def check_the_mtu_is_that_of_the_way(bench: NetworkBench) -> None:
    """0 where there is none."""
    assert await bench.network.mtu_towards(bench.way(9000)) == 9000
    assert await bench.network.mtu_towards(bench.no_way()) == 0


CHECKS: tuple[Callable[[NetworkBench], Awaitable[None]], ...] = tuple(
    check for name, check in list(globals().items()) if name.startswith("check_")
)
