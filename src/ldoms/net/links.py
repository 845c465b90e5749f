"""Interfaces of the host as listings show them, and news about them, from netlink."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from ldoms.model.netdev import NetClass, NetCounters, NetDevice

_CLASSES = {
    "bridge": NetClass.VSW,
    "bond": NetClass.AGGR,
    "team": NetClass.AGGR,
    "vlan": NetClass.VLAN,
    "tun": NetClass.VNET,
    "dummy": NetClass.ETHERSTUB,
}
_LOOPBACK = 772
"""ARPHRD_LOOPBACK of linux/if_arp.h."""
_UP = 1
_LINK_GROUP = 1
"""RTMGRP_LINK of linux/rtnetlink.h."""
_READ = 1 << 16


def net_devices(links: Iterable[Any], addresses: Iterable[Any], speeds: dict[str, int]) -> tuple[NetDevice, ...]:
    """Interfaces from what the kernel says of links and addresses."""
    known = list(links)
    names = {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in known}
    of_index: dict[int, list[str]] = {}
    for entry in addresses:
        of_index.setdefault(entry["index"], []).append(f"{entry.get_attr('IFA_ADDRESS')}/{entry['prefixlen']}")
    return tuple(_net_device(link, names, of_index.get(link["index"], []), speeds) for link in known)


def _net_device(link: Any, names: dict[int, str], addresses: list[str], speeds: dict[str, int]) -> NetDevice:
    name = names[link["index"]]
    mac = str(link.get_attr("IFLA_ADDRESS") or "")
    return NetDevice(
        name=name,
        kind=_class(link),
        state="up" if has_carrier(link) else "down",
        mtu=int(link.get_attr("IFLA_MTU") or 0),
        macs=(mac,) if mac else (),
        speed_mbit_s=speeds.get(name, 0),
        over=names.get(link.get_attr("IFLA_MASTER") or 0, ""),
        min_mtu=int(link.get_attr("IFLA_MIN_MTU") or 0),
        max_mtu=int(link.get_attr("IFLA_MAX_MTU") or 0),
        addresses=tuple(addresses),
        counters=_counters(link.get_attr("IFLA_STATS64") or {}),
    )


def has_carrier(link: Any) -> bool:
    """Whether an interface is up, and connected to something."""
    return bool(link["flags"] & _UP) and bool(link.get_attr("IFLA_CARRIER"))


def _class(link: Any) -> NetClass:
    info = link.get_attr("IFLA_LINKINFO")
    kind = str(info.get_attr("IFLA_INFO_KIND")) if info is not None else ""
    if link["ifi_type"] == _LOOPBACK:
        return NetClass.LOOPBACK
    return _CLASSES.get(kind, NetClass.PHYS)


def _counters(stats: Any) -> NetCounters:
    return NetCounters(
        **{
            f"{ours}_{what}": int(stats.get(f"{theirs}_{its}", 0))
            for ours, theirs in (("received", "rx"), ("sent", "tx"))
            for what, its in (("packets", "packets"), ("bytes", "bytes"), ("errors", "errors"), ("drops", "dropped"))
        }
    )


def listen() -> socket.socket:
    """A socket that can be read whenever something about an interface of this namespace changes."""
    listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        listening.bind((0, _LINK_GROUP))
    except OSError:
        listening.close()
        raise
    return listening


@asynccontextmanager
async def changes(listening: socket.socket) -> AsyncIterator[asyncio.Event]:
    """An event that is set whenever such a socket has news; what they are, is for the reader to look up."""
    event = asyncio.Event()

    def hear() -> None:
        # Messages may also have been lost (ENOBUFS), which is news as well.
        with suppress(OSError):
            while listening.recv(_READ):
                pass
        event.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(listening, hear)
    try:
        yield event
    finally:
        loop.remove_reader(listening)
        listening.close()
