"""Network interfaces of the host and of guests, with what has passed through them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ldoms.manager.host import Host
from ldoms.model.domain import Domain, VirtualNetwork
from ldoms.model.netdev import NetClass, NetCounters, NetDevice, NetDevices
from ldoms.model.services import Services
from ldoms.net.network import switch_device, tap_name

_OF_GUESTS = re.compile(r"v(net|ifb)\d+\.\d+")
"""Taps, and what belongs to them: shown with the domain that they are the host's end of."""


class NetworkDevices:
    """What ``list-netdev`` and ``list-netstat`` show."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def of(self, names: Iterable[str] = ()) -> tuple[NetDevices, ...]:
        """The interfaces of the domains named, or of all, the control domain first.

        Raises:
            NotFound: one that is named does not exist.
            HostError: the kernel does not say.
        """
        domains = [self._host.store.domain(name) for name in names] or sorted(
            self._host.store.domains(), key=lambda domain: (not domain.is_control, domain.order)
        )
        found = await self._host.network.devices()
        by_name = {device.name: device for device in found}
        at, services = time.time(), self._host.store.services()
        return tuple(
            NetDevices(
                domain.name,
                at,
                _of_host(found, services)
                if domain.is_control
                else tuple(_of_guest(domain, network, by_name, services) for network in domain.networks),
            )
            for domain in domains
        )


def _of_host(found: Iterable[NetDevice], services: Services) -> tuple[NetDevice, ...]:
    """The host's interfaces without those of guests; an uplink says of which switch."""
    uses = {switch.net_dev or switch_device(switch): f"{switch.name}@{switch.domain}" for switch in services.switches}
    uses |= {switch_device(switch): f"{switch.name}@{switch.domain}" for switch in services.switches}
    return tuple(
        replace(device, location=uses.get(device.name, "")) for device in found if not _OF_GUESTS.fullmatch(device.name)
    )


def _of_guest(
    domain: Domain, network: VirtualNetwork, by_name: Mapping[str, NetDevice], services: Services
) -> NetDevice:
    """A guest's interface: its tap, seen from the other side."""
    switch = next((known for known in services.switches if known.name == network.switch), None)
    tap = by_name.get(tap_name(domain.order, network.id))
    mtu = network.mtu or (switch.mtu if switch else 0)
    return NetDevice(
        name=network.name,
        kind=NetClass.VNET,
        state=tap.state if tap else "unknown",
        mtu=mtu,
        macs=network.macs,
        over=f"{network.switch}@{switch.domain}" if switch else network.switch,
        location=tap.name if tap else "",
        min_mtu=mtu and 68,
        max_mtu=mtu,
        counters=_seen_from_the_guest(tap.counters) if tap else NetCounters(),
    )


def _seen_from_the_guest(counters: NetCounters) -> NetCounters:
    return NetCounters(
        received_packets=counters.sent_packets,
        received_bytes=counters.sent_bytes,
        sent_packets=counters.received_packets,
        sent_bytes=counters.received_bytes,
        received_errors=counters.sent_errors,
        sent_errors=counters.received_errors,
        received_drops=counters.sent_drops,
        sent_drops=counters.received_drops,
    )
