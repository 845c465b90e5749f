"""Bridges and taps of the Linux kernel, through netlink."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ldoms.model.errors import HostError, RequestError
from ldoms.model.services import VirtualSwitch
from ldoms.net.network import TapSpec, switch_device

T = TypeVar("T")
LABEL = "ldoms "


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

    async def remove_tap(self, name: str) -> None:
        """Remove a tap."""
        await _in_thread(lambda: _remove_link(name))

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
        _set_uplink(ip, index, switch)  # last: its guests reach each other also when the uplink is lost


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
        if _index(ip, tap.name) is None:
            ip.link("add", ifname=tap.name, kind="tuntap", mode="tap")
        index = _index(ip, tap.name)
        ip.link("set", index=index, ifalias=f"{LABEL}{tap.label}", mtu=tap.mtu, master=bridge, state="up")


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
