"""VLANs of a bridge: which port belongs to which, through netlink.

A switch that tells VLANs apart is a bridge with VLAN filtering. A port of it is a member of VLANs: of one whose frames
have no tag on the wire behind the port (its PVID), and of any number whose frames keep their tags.

- A guest's tap: ``pvid`` and ``vid`` of its vnet.
- The uplink: ``default-vlan-id`` of the switch without a tag, every other VLAN with one. What the cable is to carry
  is the business of the switch at its other end.
- The bridge itself, which is the host's own interface: ``pvid`` and ``vid`` of the switch.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from ldoms.model.errors import HostError
from ldoms.model.vnet import MAX_VLAN

UNTAGGED = ("pvid", "untagged")
TAGGED: tuple[str, ...] = ()
Members = Mapping[int, tuple[str, ...]]
"""VLANs of a port, with the flags of each membership."""


def members(pvid: int, vids: tuple[int, ...]) -> Members:
    """The VLANs of a port that belongs to one without, and to some with a tag."""
    return {**dict.fromkeys(vids, TAGGED), pvid: UNTAGGED}


def uplink_members(default: int) -> Members:
    """The VLANs of an uplink: all."""
    return members(default, tuple(range(1, MAX_VLAN + 1)))


def filters_vlans(bridge: Any) -> bool:
    """Whether a bridge tells VLANs apart now."""
    return bool(_of_bridge(bridge, "IFLA_BR_VLAN_FILTERING"))


def can_filter_vlans(bridge: Any) -> bool:
    """Whether a bridge could tell VLANs apart."""
    # A kernel without it shows the switch, always off, but nothing of what belongs to it.
    return _of_bridge(bridge, "IFLA_BR_VLAN_PROTOCOL") is not None


def turn_on(ip: Any, bridge: int, name: str, default: int) -> None:
    """Have the bridge of a switch tell VLANs apart.

    Raises:
        HostError: code ``no-vlan-filtering``: the kernel's bridges know none.
    """
    with translated(name):
        ip.link("set", index=bridge, kind="bridge", br_vlan_filtering=1, br_vlan_default_pvid=default)
    if not filters_vlans(ip.get_links(bridge)[0]):  # such a kernel takes the message, and does nothing
        raise unable(name)


def set_members(ip: Any, port: int, name: str, wanted: Members, *, is_bridge: bool = False) -> None:
    """Make a port of the switch `name`, or its bridge itself, a member of these VLANs and of no others."""
    target = {"vlan_flags": "self"} if is_bridge else {}
    current = _memberships(ip, port)
    with translated(name):
        for vid in sorted(current.keys() - wanted.keys()):
            ip.vlan_filter("del", index=port, vlan_info={"vid": vid}, **target)
        for first, last, flags in runs(wanted):
            if all(current.get(vid) == set(flags) for vid in range(first, last + 1)):
                continue
            span = str(first) if first == last else f"{first}-{last}"
            ip.vlan_filter("add", index=port, vlan_info={"vid": span, "flags": list(flags)}, **target)


def runs(wanted: Members) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Ranges of VLANs with the same flags: first, last, flags. A PVID is always alone."""
    start: int | None = None
    for vid in sorted(wanted):
        start = vid if start is None else start
        if wanted[vid] == UNTAGGED or wanted.get(vid + 1) != wanted[vid]:
            yield start, vid, wanted[vid]
            start = None


def unable(name: str) -> HostError:
    """The error of a kernel that has no VLANs on bridges."""
    return HostError(
        f"virtual switch {name} cannot tell VLANs apart: the kernel of this host has no VLAN filtering of bridges"
        " (CONFIG_BRIDGE_VLAN_FILTERING)",
        code="no-vlan-filtering",
    )


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Tell plainly what a kernel without VLAN filtering says."""
    try:
        yield
    except NetlinkError as error:
        if error.code == errno.EOPNOTSUPP:
            raise unable(name) from error
        raise


def _memberships(ip: Any, port: int) -> dict[int, set[str]]:
    """The VLANs that a port is a member of, with the flags that matter of each."""
    found: dict[int, set[str]] = {}
    for link in ip.get_vlans(index=port):
        specification = link.get_attr("IFLA_AF_SPEC")
        for info in specification.get_attrs("IFLA_BRIDGE_VLAN_INFO") if specification is not None else ():
            bits = int(info["flags"])
            found[int(info["vid"])] = {name for name, bit in (("pvid", 2), ("untagged", 4)) if bits & bit}
    return found


def _of_bridge(link: Any, attribute: str) -> Any:
    info = link.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA") if info is not None else None
    return data.get_attr(attribute) if data is not None else None
