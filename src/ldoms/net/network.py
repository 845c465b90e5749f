"""What the rest of ldoms asks of the host's network."""

from __future__ import annotations

import asyncio
from collections.abc import Set
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from ldoms.model.netdev import NetDevice
from ldoms.model.services import DEFAULT_VLAN, VirtualSwitch
from ldoms.model.vnet import NetworkAbility, Protection, Pvlan


@dataclass(frozen=True, slots=True)
class Guard:
    """What a guest may send through a tap, and what comes through to it.

    Attributes:
        macs: that it may use.
        addresses: IP addresses and networks that it may use.
    """

    macs: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    protection: tuple[Protection, ...] = ()
    pvlan: Pvlan | None = None

    @property
    def is_open(self) -> bool:
        """Whether everything may pass."""
        return not self.protection and self.pvlan is None


@dataclass(frozen=True, slots=True)
class TapSpec:
    """The host's end of a guest's network interface.

    Attributes:
        name: of the interface, at most 15 characters.
        label: what it is for, shown by ``ip link``.
        mtu: bytes.
        pvid: VLAN of untagged frames.
        vids: VLANs whose frames pass with their tag.
        limit_bits_s: of each direction; 0 = none.
        is_isolated: it reaches no other isolated tap of its switch.
    """

    name: str
    label: str
    mtu: int
    pvid: int = DEFAULT_VLAN
    vids: tuple[int, ...] = ()
    limit_bits_s: int = 0
    is_isolated: bool = False
    guard: Guard = field(default_factory=Guard)

    def uses_vlans(self, switch: VirtualSwitch) -> bool:
        """Whether the bridge must tell VLANs apart for it."""
        return switch.uses_vlans or bool(self.vids) or self.pvid != switch.default_vlan_id


class Network(Protocol):
    """Bridges and taps of this host. Every call raises `HostError` when the kernel refuses."""

    async def put_switch(self, switch: VirtualSwitch) -> None:
        """Make the bridge of a switch, or change it to what `switch` says; existing taps stay connected.

        Raises:
            HostError: code ``no-interface``: its uplink is not there; the bridge is, without it. Code
                ``no-vlan-filtering``: it uses VLANs, and the kernel's bridges know none.
        """

    async def check_uplink(self, device: str) -> None:
        """Make sure that `device` can be the uplink of a switch.

        Raises:
            RequestError: it is not there, or taking it would cut the host off.
        """

    async def remove_switch(self, switch: VirtualSwitch) -> None:
        """Remove the bridge of a switch, and let its uplink go; nothing happens if it is not there."""

    async def put_tap(self, tap: TapSpec, switch: VirtualSwitch) -> None:
        """Make a tap, connected to a switch, or change it to what `tap` says: VLANs, limits and guard included.

        Raises:
            HostError: code ``no-vlan-filtering`` as above; code ``no-packet-filter``: its guard needs nftables.
        """

    async def park_tap(self, tap: TapSpec) -> None:
        """Have a tap lead nowhere: connected to no switch, without limits and guard; it is made if it is not there."""

    async def remove_tap(self, name: str) -> None:
        """Remove a tap with its limits and its guard; nothing happens if it is not there."""

    async def sweep_taps(self, keep: Set[str]) -> None:
        """Remove every tap that this manager has made and that is not to be kept."""

    async def abilities(self, switches: tuple[VirtualSwitch, ...]) -> tuple[NetworkAbility, ...]:
        """What can be enforced on this host; VLANs: on all of these switches."""

    async def has_interface(self, device: str) -> bool:
        """Whether an interface is there, connected or not."""

    async def has_carrier(self, device: str) -> bool:
        """Whether an interface is there, up, and connected."""

    def changes(self) -> AbstractAsyncContextManager[asyncio.Event]:
        """An event that is set whenever anything about an interface of this host has changed."""

    async def devices(self) -> tuple[NetDevice, ...]:
        """Every interface of the host with its counters, in the order in which they were made."""

    async def mtu_towards(self, address: str) -> int:
        """The MTU of the interface that packets to `address` leave by; 0 = there is no way."""


def switch_device(switch: VirtualSwitch) -> str:
    """The name of the bridge that a switch makes for itself."""
    return f"vsw{switch.id}"


def tap_name(domain_order: int, network_id: int) -> str:
    """The name of the tap of ``network@ID`` of a domain; unique on a host, because `Domain.order` is."""
    return f"vnet{domain_order}.{network_id}"
