"""Limits of what a tap carries, in both directions, through netlink.

What goes to the guest leaves the host through the tap: a token bucket (tc-tbf(8)) on it. What comes from the guest
arrives there, where the kernel can only drop, which TCP takes badly; so it is led round through an interface of its
own (ifb), which has the same bucket, and waits there::

    guest -> tap, ingress: redirect -> ifb, tbf -> tap again -> bridge
    guest <- tap, root: tbf <- bridge
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pyroute2 import protocols
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import TC_H_INGRESS, TC_H_ROOT

BURST_S = 0.01
"""As much as the rate gives in that time may pass at once, but always one packet as large as segmentation makes it."""
MIN_BURST = 1 << 16
WAIT_S = 0.05
"""A packet waits no longer than this; what would is dropped."""
MAX_BITS_S = (1 << 32) * 8 - 8
"""More than this the kernel's bucket cannot be told; such a limit would hold nothing back."""
_ROOT, _INGRESS = 0x10000, 0xFFFF0000


def shaper_name(tap: str) -> str:
    """The name of the interface that what a guest sends is led through."""
    return tap.replace("vnet", "vifb", 1)


def put_limit(ip: Any, tap: int, shaper: str, alias: str, bits_s: int) -> None:
    """Limit a tap to a rate, or with 0 to none.

    Args:
        ip: a netlink socket.
        tap: index of the tap.
        shaper: name of the interface that belongs to it.
        alias: label of that interface.
        bits_s: of each direction.
    """
    found = ip.link_lookup(ifname=shaper)
    if not 0 < bits_s <= MAX_BITS_S:
        if found:
            _remove(ip, tap, found[0])
        return
    if not found:
        ip.link("add", ifname=shaper, kind="ifb")
        found = ip.link_lookup(ifname=shaper)
    ip.link("set", index=found[0], ifalias=alias, state="up")
    rate = bits_s // 8
    burst = max(MIN_BURST, round(rate * BURST_S))
    for index in (tap, found[0]):
        ip.tc("replace", "tbf", index, _ROOT, rate=rate, burst=burst, limit=round(rate * WAIT_S) + burst)
    _lead(ip, tap, found[0])


def _lead(ip: Any, tap: int, shaper: int) -> None:
    """Lead whatever comes in through a tap to its shaper; may be repeated."""
    kinds = {qdisc.get_attr("TCA_KIND") for qdisc in ip.get_qdiscs(index=tap)}
    if "ingress" in kinds:
        return
    ip.tc("add", "ingress", tap, _INGRESS)
    redirect = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": shaper}
    everything = {"protocol": protocols.ETH_P_ALL, "keys": ["0x0/0x0+0"], "target": _ROOT}
    ip.tc("add-filter", "u32", tap, parent=_INGRESS, prio=1, action=redirect, **everything)


def _remove(ip: Any, tap: int, shaper: int) -> None:
    for place in ({"parent": TC_H_ROOT, "handle": _ROOT}, {"parent": TC_H_INGRESS, "handle": _INGRESS}):
        with suppress(NetlinkError):  # not there
            ip.tc("del", index=tap, **place)
    ip.link("del", index=shaper)
