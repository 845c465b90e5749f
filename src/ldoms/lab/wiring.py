"""The cables of a lab: run as ``python -m ldoms.lab.wiring VERB`` with a plan on standard input, it enters each space.

::

    host t4-1            space "net"                    client
    link0 -------------- bridge "link"
    net0 (vsw uplink) -- bridge "clients" ------------- eth0
    net1 --------------- bridge "clients"
    host t4-2
    link0 -------------- bridge "link"
    net0 --------------- bridge "clients"
    net1 --------------- bridge "clients"

Managers and migration data use ``link``; guests and clients use ``clients``, where each control domain has an address
as well, from which it serves the time.
"""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, netns
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import TC_H_ROOT

from ldoms.lab.links import MAX_WAIT_S, bucket_bytes

LINK_NETWORK, CLIENT_NETWORK = "10.78.0", "10.77.0"
PREFIX = 24
LINK_BRIDGE, CLIENT_BRIDGE = "link", "clients"
CLIENT_ADDRESS = f"{CLIENT_NETWORK}.250"
_CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")


def link_address(number: int) -> str:
    """The address of host `number`, from 1, on the link between hosts."""
    return f"{LINK_NETWORK}.{number}"


def control_address(number: int) -> str:
    """The address of the control domain of host `number`, from 1, on the clients' network."""
    return f"{CLIENT_NETWORK}.{200 + number}"


def port_name(host: str) -> str:
    """The switch's end of a host's link."""
    return f"{host}-link"[:15]


def build(plan: dict[str, Any]) -> None:
    """Make all cables of a plan: ``{"switch": pid, "client": pid, "hosts": {name: pid, ...}}``."""
    _enter(plan["switch"])
    with IPRoute() as ip:
        _up(ip, "lo")
        for name in (LINK_BRIDGE, CLIENT_BRIDGE):
            ip.link("add", ifname=name, kind="bridge", br_stp_state=0, br_forward_delay=0)
            _up(ip, name)
        for host, pid in plan["hosts"].items():
            _cable(ip, port_name(host), LINK_BRIDGE, "link0", pid)
            _cable(ip, f"{host}-net"[:15], CLIENT_BRIDGE, "net0", pid)
            _cable(ip, f"{host}-ctl"[:15], CLIENT_BRIDGE, "net1", pid)
        _cable(ip, "client", CLIENT_BRIDGE, "eth0", plan["client"])
    for number, pid in enumerate(plan["hosts"].values(), start=1):
        _enter(pid)
        with IPRoute() as ip:
            _up(ip, "lo")
            _up(ip, "link0", link_address(number))
            _up(ip, "net0")
            _up(ip, "net1", control_address(number))
        _choose_congestion_control()
    _enter(plan["client"])
    with IPRoute() as ip:
        _up(ip, "lo")
        _up(ip, "eth0", CLIENT_ADDRESS)


def shape(plan: dict[str, Any]) -> None:
    """Set rate, delay and loss of one host's cable.

    The plan: ``{"switch": pid, "host": name, "pid": pid, "rate_bit_s": n, "delay_s": x, "loss": x}``. Prints ``relay``
    if the caller must run one: this kernel cannot delay packets, or limits their rate, as a device has one queue.
    """
    host, delay, loss = plan["host"], plan["delay_s"], plan["loss"]
    needs_relay = delay > 0 or loss > 0
    for pid, device in ((plan["pid"], "link0"), (plan["switch"], port_name(host))):
        _enter(pid)
        with IPRoute() as ip:
            index = _index(ip, device)
            _clear(ip, index)
            # Packets of 64 KiB that are lost whole would be another kind of link.
            ip.link("set", index=index, gso_max_segs=1 if loss else 65535)
            if plan["rate_bit_s"]:
                _token_bucket(ip, index, plan["rate_bit_s"])
            elif needs_relay:
                _netem(ip, index, plan)
    _enter(plan["switch"])
    with IPRoute() as ip:
        by_hand = needs_relay and not _has_qdisc(ip, _index(ip, port_name(host)), "netem")
        _place_port(ip, host, by_hand=by_hand)
    if by_hand:
        print("relay")


def join_relay(plan: dict[str, Any]) -> None:
    """Connect the taps of a host's relay, which runs now: one to its cable, one to the others."""
    _enter(plan["switch"])
    with IPRoute() as ip:
        for tap, bridge in zip(relay_taps(plan["host"]), (relay_bridge(plan["host"]), LINK_BRIDGE), strict=True):
            ip.link("set", index=_index(ip, tap), master=_index(ip, bridge), state="up", mtu=1500)


def relay_taps(host: str) -> tuple[str, str]:
    """The two ends of a host's relay."""
    return f"{host}-ra"[-15:], f"{host}-rb"[-15:]


def relay_bridge(host: str) -> str:
    """What joins a host's cable to its relay."""
    return f"{host}-relay"[-15:]


def _place_port(ip: Any, host: str, *, by_hand: bool) -> None:
    """Plug a host's cable into the common switch, or into one of its own with the relay."""
    own = relay_bridge(host)
    if by_hand and not ip.link_lookup(ifname=own):
        ip.link("add", ifname=own, kind="bridge", br_stp_state=0, br_forward_delay=0)
        _up(ip, own)
    ip.link("set", index=_index(ip, port_name(host)), master=_index(ip, own if by_hand else LINK_BRIDGE))
    if not by_hand and ip.link_lookup(ifname=own):
        ip.link("del", index=_index(ip, own))


def _clear(ip: Any, index: int) -> None:
    try:
        ip.tc("del", index=index, parent=TC_H_ROOT)
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.EINVAL):
            raise


def _netem(ip: Any, index: int, plan: dict[str, Any]) -> None:
    """Have the kernel delay and lose packets, if it can."""
    try:
        ip.tc("add", "netem", index, delay=round(plan["delay_s"] * 1e6), loss=plan["loss"] * 100, limit=100_000)
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.EOPNOTSUPP):
            raise


def _token_bucket(ip: Any, index: int, rate_bit_s: int) -> None:
    burst = bucket_bytes(rate_bit_s)
    limit = burst + round(rate_bit_s / 8 * MAX_WAIT_S)
    ip.tc("add", "tbf", index, rate=f"{rate_bit_s}bit", burst=burst, limit=limit)


def _has_qdisc(ip: Any, index: int, kind: str) -> bool:
    return any(entry.get_attr("TCA_KIND") == kind for entry in ip.get_qdiscs(index))


def _cable(ip: Any, near: str, bridge: str, far: str, pid: int) -> None:
    ip.link("add", ifname=near, kind="veth", peer={"ifname": far, "net_ns_pid": pid})
    ip.link("set", index=_index(ip, near), master=_index(ip, bridge), state="up")


def _up(ip: Any, name: str, address: str = "") -> None:
    index = _index(ip, name)
    if address:
        ip.addr("add", index=index, address=address, prefixlen=PREFIX)
    ip.link("set", index=index, state="up")


def _index(ip: Any, name: str) -> int:
    return int(ip.link_lookup(ifname=name)[0])


def _enter(pid: int) -> None:
    netns.setns(f"/proc/{pid}/ns/net")


def _choose_congestion_control() -> None:
    """One veth stream is four times as fast here as with bbr, which some machines have as their default."""
    for name in ("cubic", "reno"):
        try:
            _CONGESTION.write_text(name)
        except OSError:
            continue
        return


if __name__ == "__main__":
    {"build": build, "shape": shape, "join-relay": join_relay}[sys.argv[1]](json.load(sys.stdin))
