"""A network that is only remembered, for unit tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ldoms.model.errors import HostError, RequestError
from ldoms.model.netdev import NetClass, NetCounters, NetDevice
from ldoms.model.services import VirtualSwitch
from ldoms.model.vnet import NetworkAbility
from ldoms.net.network import TapSpec, switch_device


@dataclass
class FakeNetwork:
    """Bridges and taps as entries of dictionaries. See `ldoms.net.network.Network`.

    Attributes:
        interfaces: of the host, that can be uplinks.
        bridges: by device name.
        taps: by name, with the bridge that each is connected to.
        mtu: of the way to every address.
        able: what can be enforced.
        unplugged: interfaces without a carrier; change it with `set_carrier`.
        counters: of interfaces, by name.
    """

    interfaces: set[str] = field(default_factory=set)
    bridges: dict[str, VirtualSwitch] = field(default_factory=dict)
    taps: dict[str, tuple[TapSpec, str]] = field(default_factory=dict)
    mtu: int = 1500
    able: tuple[NetworkAbility, ...] = tuple(NetworkAbility)
    unplugged: set[str] = field(default_factory=set)
    counters: dict[str, NetCounters] = field(default_factory=dict)
    _listeners: list[asyncio.Event] = field(default_factory=list)

    async def put_switch(self, switch: VirtualSwitch) -> None:
        """Make or change a bridge."""
        if switch.uses_vlans:
            self._need(NetworkAbility.VLAN_FILTERING, f"virtual switch {switch.name} cannot tell VLANs apart")
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
        if tap.uses_vlans(switch):
            self._need(NetworkAbility.VLAN_FILTERING, f"virtual switch {switch.name} cannot tell VLANs apart")
        if not tap.guard.is_open:
            self._need(NetworkAbility.PACKET_FILTER, f"cannot guard {tap.name}: there is no program nft on this host")
        self.taps[tap.name] = (tap, switch_device(switch))

    async def park_tap(self, tap: TapSpec) -> None:
        """Connect it to nothing."""
        self.taps[tap.name] = (tap, "")

    async def remove_tap(self, name: str) -> None:
        """Remove a tap."""
        self.taps.pop(name, None)

    async def sweep_taps(self, keep: Set[str]) -> None:
        """Remove the others."""
        self.taps = {name: tap for name, tap in self.taps.items() if name in keep}

    async def abilities(self, switches: tuple[VirtualSwitch, ...]) -> tuple[NetworkAbility, ...]:
        """What a test says."""
        return self.able

    async def has_interface(self, device: str) -> bool:
        """One of those that a test has put there."""
        return device in self.interfaces

    async def has_carrier(self, device: str) -> bool:
        """Unless it is unplugged."""
        return device in self.interfaces and device not in self.unplugged

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[asyncio.Event]:
        """An event that `set_carrier` sets."""
        event = asyncio.Event()
        self._listeners.append(event)
        try:
            yield event
        finally:
            self._listeners.remove(event)

    def set_carrier(self, device: str, plugged: bool) -> None:
        """Plug in a cable, or pull it out."""
        (self.unplugged.discard if plugged else self.unplugged.add)(device)
        self.tell()

    def tell(self) -> None:
        """Tell everybody that something about an interface has changed."""
        for event in self._listeners:
            event.set()

    async def devices(self) -> tuple[NetDevice, ...]:
        """Uplinks, bridges and taps."""
        kinds = dict.fromkeys(sorted(self.interfaces), NetClass.PHYS)
        kinds |= dict.fromkeys(self.bridges, NetClass.VSW)
        kinds |= dict.fromkeys(self.taps, NetClass.VNET)
        return tuple(
            NetDevice(
                name,
                kind,
                "down" if name in self.unplugged else "up",
                self.taps[name][0].mtu if name in self.taps else self.mtu,
                counters=self.counters.get(name, NetCounters()),
            )
            for name, kind in kinds.items()
        )

    async def mtu_towards(self, address: str) -> int:
        """The same everywhere."""
        return self.mtu

    def _need(self, ability: NetworkAbility, complaint: str) -> None:
        if ability not in self.able:
            raise HostError(complaint, code=f"no-{ability}")


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
