"""The contract of `ldoms.net.network`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

import pytest

from ldoms.model.errors import HostError, RequestError
from ldoms.model.netdev import NetClass
from ldoms.model.services import VirtualSwitch
from ldoms.model.vnet import Protection
from ldoms.net.network import Guard, Network, TapSpec

SWITCH = VirtualSwitch("primary-vsw0", 0, "00:14:4f:f8:00:01", net_dev="")
TAP = TapSpec("vnet1.0", "vnet0 of ldg1", 1500)
GUARD = Guard(("00:14:4f:f8:00:02",), ("192.0.2.7",), (Protection.MAC_NOSPOOF, Protection.IP_NOSPOOF))


class NetworkBench(Protocol):
    """A network that nothing else uses, with one interface ``up0`` that can be an uplink."""

    network: Network

    def taps_of(self, switch: VirtualSwitch) -> set[str]:
        """The names of the taps that are connected to a switch."""

    def has_switch(self, switch: VirtualSwitch) -> bool:
        """Whether it is there, and up."""

    def way(self, mtu: int) -> str:
        """Make a way to an address, by an interface with that MTU."""

    def limits(self, tap: str) -> tuple[int, int]:
        """What a tap is limited to, in bits a second, towards the guest and from it; 0 = nothing."""

    def guarded(self) -> set[str]:
        """The names of the taps that have rules."""

    def plug(self, *, plugged: bool) -> None:
        """Plug the cable of ``up0`` in, or pull it out; at first it is in."""

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


async def check_limits_and_guard_go_with_the_tap(bench: NetworkBench) -> None:
    """Set, changed, and taken away on a tap that is there, and removed with it."""
    await bench.network.put_switch(SWITCH)
    for rate in (20_000_000, 1_000_000_000):
        for _ in range(2):
            await bench.network.put_tap(replace(TAP, limit_bits_s=rate, guard=GUARD), SWITCH)
            assert bench.limits(TAP.name) == (rate, rate)
            assert bench.guarded() == {TAP.name}
    other = replace(TAP, name="vnet2.0", guard=GUARD)
    await bench.network.put_tap(other, SWITCH)
    await bench.network.put_tap(TAP, SWITCH)
    assert bench.limits(TAP.name) == (0, 0)
    assert bench.guarded() == {other.name}
    await bench.network.put_tap(replace(TAP, limit_bits_s=64_000, guard=GUARD), SWITCH)
    for tap in (TAP, other):
        await bench.network.remove_tap(tap.name)
    assert bench.guarded() == set()
    assert not [device.name for device in await bench.network.devices() if device.name.startswith(("vnet", "vifb"))]


async def check_a_parked_tap_leads_nowhere(bench: NetworkBench) -> None:
    """Without limits and guard; one that was not there is made, and both can be connected and removed again."""
    await bench.network.put_switch(SWITCH)
    await bench.network.put_tap(replace(TAP, limit_bits_s=1_000_000, guard=GUARD), SWITCH)
    for name in (TAP.name, "vnet2.0"):
        await bench.network.park_tap(replace(TAP, name=name))
    assert bench.taps_of(SWITCH) == set()
    assert bench.limits(TAP.name) == (0, 0)
    assert bench.guarded() == set()
    assert {TAP.name, "vnet2.0"} <= {device.name for device in await bench.network.devices()}
    await bench.network.put_tap(TAP, SWITCH)
    assert bench.taps_of(SWITCH) == {TAP.name}
    await bench.network.remove_tap("vnet2.0")
    assert "vnet2.0" not in {device.name for device in await bench.network.devices()}


async def check_taps_that_nobody_uses_are_swept(bench: NetworkBench) -> None:
    """With all that belongs to them; those to be kept have theirs."""
    await bench.network.put_switch(SWITCH)
    for name in ("vnet1.0", "vnet2.0", "vnet3.1"):
        await bench.network.put_tap(replace(TAP, name=name, limit_bits_s=1_000_000, guard=GUARD), SWITCH)
    await bench.network.sweep_taps({"vnet2.0"})
    assert bench.taps_of(SWITCH) == {"vnet2.0"}
    assert bench.guarded() == {"vnet2.0"}
    assert bench.limits("vnet2.0") == (1_000_000, 1_000_000)
    assert bench.has_switch(SWITCH)


async def check_the_carrier_is_followed(bench: NetworkBench) -> None:
    """A cable that is pulled out is noticed without looking all the time."""
    assert await bench.network.has_carrier("up0")
    assert not await bench.network.has_carrier("nodev0")
    assert not await bench.network.has_interface("nodev0")
    async with bench.network.changes() as news:
        for plugged in (False, True):
            news.clear()
            bench.plug(plugged=plugged)
            async with asyncio.timeout(5):
                while await bench.network.has_carrier("up0") is not plugged:
                    await news.wait()
                    news.clear()
            assert await bench.network.has_interface("up0")


async def check_interfaces_are_listed(bench: NetworkBench) -> None:
    """Each with its kind and its MTU."""
    await bench.network.put_switch(replace(SWITCH, mtu=9000))
    await bench.network.put_tap(replace(TAP, mtu=1600), SWITCH)
    found = {device.name: device for device in await bench.network.devices()}
    kinds = {name: found[name].kind for name in ("up0", "vsw0", TAP.name)}
    assert kinds == {"up0": NetClass.PHYS, "vsw0": NetClass.VSW, TAP.name: NetClass.VNET}
    assert found[TAP.name].mtu == 1600
    assert found["up0"].state == "up"


CHECKS: tuple[Callable[[NetworkBench], Awaitable[None]], ...] = tuple(
    check for name, check in list(globals().items()) if name.startswith("check_")
)
