"""Bridges and taps of the Linux kernel, through netlink."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Set
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ldoms.model.errors import HostError, RequestError
from ldoms.model.netdev import NetDevice
from ldoms.model.services import VirtualSwitch
from ldoms.model.vnet import NetworkAbility
from ldoms.net import guard, links, vlans
from ldoms.net.network import TapSpec, switch_device
from ldoms.net.shaping import put_limit, shaper_name

T = TypeVar("T")
LABEL = "ldoms "
_IS_TAP = "vnet"


class LinuxNetwork:
    """The network of the namespace that this process runs in. See `ldoms.net.network.Network`."""

    async def put_switch(self, switch: VirtualSwitch) -> None:
        """Make the bridge of a switch, or change it."""
        await _in_thread(lambda: _put_switch(switch))

    async def check_uplink(self, device: str) -> None:
        """Make sure that `device` can be the uplink of a switch."""
        await _in_thread(lambda: _check_uplink(device))

    async def remove_switch(self, switch: VirtualSwitch) -> None:
        """Remove the bridge of a switch, and let its uplink go."""
        await _in_thread(lambda: _remove_link(switch_device(switch)))

    async def put_tap(self, tap: TapSpec, switch: VirtualSwitch) -> None:
        """Make a tap, connected to a switch."""
        await _in_thread(lambda: _put_tap(tap, switch))

    async def park_tap(self, tap: TapSpec) -> None:
        """Have a tap lead nowhere."""
        await _in_thread(lambda: _park_tap(tap))

    async def remove_tap(self, name: str) -> None:
        """Remove a tap with its limits and its guard."""
        await _in_thread(lambda: _remove_tap(name))

    async def sweep_taps(self, keep: Set[str]) -> None:
        """Remove every tap of ours that is not to be kept."""
        await _in_thread(lambda: _sweep_taps(keep))

    async def abilities(self, switches: tuple[VirtualSwitch, ...]) -> tuple[NetworkAbility, ...]:
        """What can be enforced here."""
        return await _in_thread(lambda: _abilities(switches))

    async def has_interface(self, device: str) -> bool:
        """Whether an interface is there."""
        return await _in_thread(lambda: _has_interface(device))

    async def has_carrier(self, device: str) -> bool:
        """Whether an interface is there, up, and connected."""
        return await _in_thread(lambda: _has_carrier(device))

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever anything about an interface has changed."""
        try:
            listening = await _in_thread(links.listen)
        except OSError as error:
            raise HostError(f"cannot follow the interfaces of this host: {error}", code="network-refused") from error
        async with links.changes(listening) as event:
            yield event

    async def devices(self) -> tuple[NetDevice, ...]:
        """Every interface of the host with its counters."""
        return await _in_thread(_devices)

    async def mtu_towards(self, address: str) -> int:
        """The MTU of the interface that packets to `address` leave by."""
        return await _in_thread(lambda: _mtu_towards(address))


def _put_switch(switch: VirtualSwitch) -> None:
    with _netlink(f"make virtual switch {switch.name}") as ip:
        if switch.net_dev and _is_bridge(_get(ip, switch.net_dev)):
            _remove_link(switch_device(switch))  # from before it was given the bridge
            return
        name = switch_device(switch)
        index = _index(ip, name)
        if index is None:
            ip.link("add", ifname=name, kind="bridge", br_stp_state=0, br_forward_delay=0)
            index = int(ip.link_lookup(ifname=name)[0])
        elif not _label(ip, index).startswith(LABEL):
            raise HostError(
                f"virtual switch {switch.name} needs the interface name {name}, which something else has",
                code="interface-taken",
            )
        ip.link("set", index=index, address=switch.mac, ifalias=f"{LABEL}{switch.name}")
        ip.link("set", index=index, mtu=switch.mtu, state="up")
        if switch.uses_vlans:
            _tell_vlans_apart(ip, index, switch)
        elif vlans.filters_vlans(ip.get_links(index)[0]):
            vlans.set_members(ip, index, switch.name, vlans.members(switch.pvid, switch.vids), is_bridge=True)
        _set_uplink(ip, index, switch)  # last: its guests reach each other also when the uplink is lost


def _tell_vlans_apart(ip: Any, bridge: int, switch: VirtualSwitch) -> None:
    """Have a bridge of ours filter VLANs; its own interface and its uplink get theirs."""
    vlans.turn_on(ip, bridge, switch.name, switch.default_vlan_id)
    vlans.set_members(ip, bridge, switch.name, vlans.members(switch.pvid, switch.vids), is_bridge=True)
    uplink = _index(ip, switch.net_dev) if switch.net_dev else None
    if uplink is not None and ip.get_links(uplink)[0].get_attr("IFLA_MASTER") == bridge:
        vlans.set_members(ip, uplink, switch.name, vlans.uplink_members(switch.default_vlan_id))


def _set_uplink(ip: Any, bridge: int, switch: VirtualSwitch) -> None:
    wanted = _index(ip, switch.net_dev) if switch.net_dev else None
    for port in ip.get_links(master=bridge):
        if not _label_of(port).startswith(LABEL) and port["index"] != wanted:
            ip.link("set", index=port["index"], master=0)
    if switch.net_dev and wanted is None:
        raise HostError(
            f"virtual switch {switch.name} has lost its uplink: there is no interface {switch.net_dev}",
            code="no-interface",
        )
    if wanted is not None:
        ip.link("set", index=wanted, mtu=switch.mtu, master=bridge, state="up")
        if vlans.filters_vlans(ip.get_links(bridge)[0]):
            vlans.set_members(ip, wanted, switch.name, vlans.uplink_members(switch.default_vlan_id))


def _check_uplink(device: str) -> None:
    with _netlink(f"look at interface {device}") as ip:
        link = _get(ip, device)
        if link is None:
            raise RequestError(
                f"there is no network interface {device} on this host: 'ip link' lists them", code="no-interface"
            )
        if _is_bridge(link):
            return
        if link.get_attr("IFLA_MASTER"):
            raise RequestError(f"interface {device} belongs to another bridge or bond already", code="uplink-taken")
        addresses = [
            f"{entry.get_attr('IFA_ADDRESS')}"
            for entry in ip.get_addr(index=link["index"])
            if not str(entry.get_attr("IFA_ADDRESS")).startswith("fe80:")
        ]
        if addresses:
            raise RequestError(
                f"interface {device} has the address {addresses[0]}, which this host would lose: make a bridge of it"
                " that carries the address, and give that bridge as net-dev",
                code="uplink-in-use",
            )


def _put_tap(tap: TapSpec, switch: VirtualSwitch) -> None:
    with _netlink(f"make tap {tap.name}") as ip:
        bridge_name = switch_device(switch)
        if switch.net_dev and _is_bridge(_get(ip, switch.net_dev)):
            bridge_name = switch.net_dev
        bridge = _index(ip, bridge_name)
        if bridge is None:
            raise HostError(f"virtual switch {switch.name} has no bridge {bridge_name}", code="no-interface")
        guard.put(tap.name, tap.guard)  # before anything can pass
        index = _make_tap(ip, tap)
        put_limit(ip, index, shaper_name(tap.name), f"{LABEL}{tap.label}", tap.limit_bits_s)
        ip.link("set", index=index, master=bridge)
        ip.brport("set", index=index, isolated=int(tap.is_isolated))
        _put_tap_vlans(ip, bridge, index, tap, switch)
        ip.link("set", index=index, state="up")


def _park_tap(tap: TapSpec) -> None:
    with _netlink(f"take tap {tap.name} from its switch") as ip:
        index = _make_tap(ip, tap)
        ip.link("set", index=index, master=0, state="down")
        put_limit(ip, index, shaper_name(tap.name), "", 0)
    guard.remove(tap.name)


def _make_tap(ip: Any, tap: TapSpec) -> int:
    """The index of a tap, which is made if it is not there."""
    if _index(ip, tap.name) is None:
        ip.link("add", ifname=tap.name, kind="tuntap", mode="tap")
    index = int(ip.link_lookup(ifname=tap.name)[0])
    ip.link("set", index=index, ifalias=f"{LABEL}{tap.label}", mtu=tap.mtu)
    return index


def _put_tap_vlans(ip: Any, bridge: int, index: int, tap: TapSpec, switch: VirtualSwitch) -> None:
    filters = vlans.filters_vlans(ip.get_links(bridge)[0])
    if tap.uses_vlans(switch) and not filters:
        if switch.net_dev and _index(ip, switch.net_dev) == bridge:
            raise HostError(
                f"virtual switch {switch.name} is the bridge {switch.net_dev} of this host, which does not tell VLANs"
                f" apart: 'ip link set {switch.net_dev} type bridge vlan_filtering 1' has it do so",
                code="no-vlan-filtering",
            )
        _tell_vlans_apart(ip, bridge, switch)
        filters = True
    if filters:
        vlans.set_members(ip, index, switch.name, vlans.members(tap.pvid, tap.vids))


def _remove_tap(name: str) -> None:
    for link in (name, shaper_name(name)):
        _remove_link(link)
    guard.remove(name)


def _sweep_taps(keep: Set[str]) -> None:
    kept = keep | {shaper_name(name) for name in keep}
    with _netlink("look for taps that nobody uses") as ip:
        ours = {str(link.get_attr("IFLA_IFNAME")) for link in ip.get_links() if _label_of(link).startswith(LABEL)}
    for name in ours - kept:
        if name.startswith((_IS_TAP, shaper_name(_IS_TAP))):
            _remove_link(name)
    guard.sweep(keep)


def _abilities(switches: tuple[VirtualSwitch, ...]) -> tuple[NetworkAbility, ...]:
    with _netlink("look at the bridges of this host") as ip:
        able = [_can_tell_vlans_apart(ip, switch) for switch in switches]
    return (
        *([NetworkAbility.VLAN_FILTERING] if able and all(able) else []),
        *([NetworkAbility.PACKET_FILTER] if guard.is_possible() else []),
    )


def _can_tell_vlans_apart(ip: Any, switch: VirtualSwitch) -> bool:
    joined = _get(ip, switch.net_dev) if switch.net_dev else None
    if joined is not None and _is_bridge(joined):
        return vlans.filters_vlans(joined)
    bridge = _get(ip, switch_device(switch))
    return bridge is not None and vlans.can_filter_vlans(bridge)


def _has_interface(device: str) -> bool:
    with _netlink(f"look for interface {device}") as ip:
        return _index(ip, device) is not None


def _has_carrier(device: str) -> bool:
    with _netlink(f"look at interface {device}") as ip:
        link = _get(ip, device)
        return link is not None and links.has_carrier(link)


def _devices() -> tuple[NetDevice, ...]:
    with _netlink("list the interfaces of this host") as ip:
        found = list(ip.get_links())
        names = [str(link.get_attr("IFLA_IFNAME")) for link in found]
        return links.net_devices(found, ip.get_addr(), {name: _speed(name) for name in names})


def _speed(name: str) -> int:
    """Of an interface in Mbit/s; 0 where there is none."""
    with suppress(OSError, ValueError):
        return max(0, int(Path(f"/sys/class/net/{name}/speed").read_text()))
    return 0


def _remove_link(name: str) -> None:
    with _netlink(f"remove interface {name}") as ip:
        index = _index(ip, name)
        if index is not None and _label(ip, index).startswith(LABEL):
            ip.link("del", index=index)


def _mtu_towards(address: str) -> int:
    with _netlink(f"look for the way to {address}") as ip:
        try:
            routes = ip.route("get", dst=address)
        except NetlinkError:
            return 0
        index = routes[0].get_attr("RTA_OIF")
        return int(ip.get_links(index)[0].get_attr("IFLA_MTU"))


def _get(ip: Any, name: str) -> Any:
    index = _index(ip, name)
    return ip.get_links(index)[0] if index is not None else None


def _index(ip: Any, name: str) -> int | None:
    found = ip.link_lookup(ifname=name)
    return int(found[0]) if found else None


def _is_bridge(link: Any) -> bool:
    if link is None:
        return False
    info = link.get_attr("IFLA_LINKINFO")
    return info is not None and info.get_attr("IFLA_INFO_KIND") == "bridge"


def _label(ip: Any, index: int) -> str:
    return _label_of(ip.get_links(index)[0])


def _label_of(link: Any) -> str:
    return str(link.get_attr("IFLA_IFALIAS") or "")


@contextmanager
def _netlink(what: str) -> Iterator[Any]:
    """A netlink socket; whatever the kernel says against it becomes a `HostError` that tells what was tried."""
    try:
        with IPRoute() as ip:
            yield ip
    except NetlinkError as error:
        raise HostError(f"cannot {what}: the kernel says: {error.args[-1]}", code="network-refused") from error
    except OSError as error:
        raise HostError(f"cannot {what}: {error}", code="network-refused") from error


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)
