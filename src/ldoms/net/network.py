"""What the rest of ldoms asks of the host's network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ldoms.model.services import VirtualSwitch


@dataclass(frozen=True, slots=True)
class TapSpec:
    """The host's end of a guest's network interface.

    Attributes:
        name: of the interface, at most 15 characters.
        label: what it is for, shown by ``ip link``.
        mtu: bytes.
    """

    name: str
    label: str
    mtu: int


class Network(Protocol):
    """Bridges and taps of this host. Every call raises `HostError` when the kernel refuses."""

    async def put_switch(self, switch: VirtualSwitch) -> None:
        """Make the bridge of a switch, or change it to what `switch` says; existing taps stay connected.

        Raises:
            HostError: code ``no-interface``: its uplink is not there; the bridge is, without it.
        """

    async def check_uplink(self, device: str) -> None:
        """Make sure that `device` can be the uplink of a switch.

        Raises:
            RequestError: it is not there, or taking it would cut the host off.
        """

    async def remove_switch(self, switch: VirtualSwitch) -> None:
        """Remove the bridge of a switch, and let its uplink go; nothing happens if it is not there."""

    async def put_tap(self, tap: TapSpec, switch: VirtualSwitch) -> None:
        """Make a tap, connected to a switch."""

    async def remove_tap(self, name: str) -> None:
        """Remove a tap; nothing happens if it is not there."""

    async def mtu_towards(self, address: str) -> int:
        """The MTU of the interface that packets to `address` leave by; 0 = there is no way."""


def switch_device(switch: VirtualSwitch) -> str:
    """The name of the bridge that a switch makes for itself."""
    return f"vsw{switch.id}"


def tap_name(domain_order: int, network_id: int) -> str:
    """The name of the tap of ``network@ID`` of a domain; unique on a host, because `Domain.order` is."""
    return f"vnet{domain_order}.{network_id}"
