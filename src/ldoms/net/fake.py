"""A network that is only remembered, for unit tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from ldoms.model.errors import HostError, RequestError
from ldoms.model.services import VirtualSwitch
from ldoms.net.network import TapSpec, switch_device


@dataclass
class FakeNetwork:
    """Bridges and taps as entries of dictionaries. See `ldoms.net.network.Network`.

    Attributes:
        interfaces: of the host, that can be uplinks.
        bridges: by device name.
        taps: by name, with the bridge that each is connected to.
        mtu: of the way to every address.
    """

    interfaces: set[str] = field(default_factory=set)
    bridges: dict[str, VirtualSwitch] = field(default_factory=dict)
    taps: dict[str, tuple[TapSpec, str]] = field(default_factory=dict)
    mtu: int = 1500

    async def put_switch(self, switch: VirtualSwitch) -> None:
        """Make or change a bridge."""
        self.bridges[switch_device(switch)] = switch
        if switch.net_dev and switch.net_dev not in self.interfaces:
            raise HostError(
                f"virtual switch {switch.name} has lost its uplink: there is no interface {switch.net_dev}",
                code="no-interface",
            )

    async def check_uplink(self, device: str) -> None:
        """Make sure that the uplink is there."""
        if device not in self.interfaces:
            raise RequestError(f"there is no network interface {device} on this host", code="no-interface")

    async def remove_switch(self, switch: VirtualSwitch) -> None:
        """Remove a bridge."""
        self.bridges.pop(switch_device(switch), None)

    async def put_tap(self, tap: TapSpec, switch: VirtualSwitch) -> None:
        """Make a tap."""
        if switch_device(switch) not in self.bridges:
            raise HostError(f"virtual switch {switch.name} has no bridge", code="no-interface")
        self.taps[tap.name] = (tap, switch_device(switch))

    async def remove_tap(self, name: str) -> None:
        """Remove a tap."""
        self.taps.pop(name, None)

    async def mtu_towards(self, address: str) -> int:
        """The same everywhere."""
        return self.mtu


@dataclass
class FakeNeighbours:
    """Other managers that always answer. See `ldoms.net.neighbours.Neighbours`.

    Attributes:
        holders: MAC addresses that are in use elsewhere, with the host.
    """

    holders: dict[str, str] = field(default_factory=dict)

    async def holder_of(self, mac: str) -> str:
        """Who has it."""
        return self.holders.get(mac, "")
