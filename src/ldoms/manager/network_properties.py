"""Properties of virtual networks and switches as they are typed: read, checked, and shown again."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ldoms.manager.properties import choice_property, int_property, refuse_unknown
from ldoms.model.domain import VirtualNetwork
from ldoms.model.errors import RequestError
from ldoms.model.services import DEFAULT_MTU, DEFAULT_VLAN, MAX_MTU, MIN_MTU, VirtualSwitch
from ldoms.model.vnet import MAX_VLAN, Protection, Pvlan, PvlanType

MIN_BITS_S = 64_000
"""With less, a frame of 16000 bytes would wait for two seconds."""
MAX_ALT_MACS = 32
KEPT: Mapping[str, tuple[str, ...]] = {
    "allowed-dhcp-cids": (),
    "cos": tuple(map(str, range(8))),
    "custom": ("enable", "disable"),
    "custom/max-mac-addrs": (),
    "custom/max-vlans": (),
    "mode": ("hybrid",),
    "priority": ("high", "medium", "low"),
}
"""Properties of a vnet that nothing on Linux enforces, with the values that they can have; none = any."""
_BANDWIDTH = re.compile(r"(\d+(?:\.\d+)?)([KMG]?)", re.IGNORECASE)
_UNITS = {"K": 1_000, "M": 1_000_000, "": 1_000_000, "G": 1_000_000_000}


def changed_network(network: VirtualNetwork, given: Mapping[str, str], switch: VirtualSwitch) -> VirtualNetwork:
    """A virtual network with some properties set; an empty value clears one. MAC addresses are not among them.

    Raises:
        RequestError: a property is not known, or makes no sense.
    """
    left = dict(given)
    changes: dict[str, Any] = {}
    if "pvid" in left:
        changes["pvid"] = vlan("pvid", left.pop("pvid")) or DEFAULT_VLAN
    if "vid" in left:
        changes["vids"] = vlans("vid", left.pop("vid"), network.vids)
    if "pvlan" in left:
        changes["pvlan"] = pvlan(left.pop("pvlan"))
    if "mtu" in left:
        changes["mtu"] = _network_mtu(left.pop("mtu"), switch)
    if "linkprop" in left:
        changes["linkprop"] = choice_property("linkprop", left.pop("linkprop"), ("", "phys-state"))
    if "maxbw" in left:
        changes["maxbw_bits_s"] = bandwidth(left.pop("maxbw"))
    if "allowed-ips" in left:
        changes["allowed_ips"] = addresses(left.pop("allowed-ips"))
    if "protection" in left:
        changes["protection"] = protection(left.pop("protection"))
    kept = dict(network.kept)
    for name in KEPT.keys() & left.keys():
        value = left.pop(name)
        if value and KEPT[name]:
            choice_property(name, value, KEPT[name])
        kept[name] = value
    refuse_unknown(left)
    made = replace(network, **changes, kept=tuple(sorted((name, value) for name, value in kept.items() if value)))
    _check_protection(made)
    return made


def changed_switch(switch: VirtualSwitch, given: Mapping[str, str]) -> VirtualSwitch:
    """A virtual switch with some properties set; an empty value clears one. Its MAC address is not among them.

    Raises:
        RequestError: a property is not known, or makes no sense.
    """
    left = dict(given)
    changes: dict[str, Any] = {}
    if "net-dev" in left:
        changes["net_dev"] = left.pop("net-dev")
    if "default-vlan-id" in left:
        changes["default_vlan_id"] = vlan("default-vlan-id", left.pop("default-vlan-id")) or DEFAULT_VLAN
        changes["pvid"] = changes["default_vlan_id"] if switch.pvid == switch.default_vlan_id else switch.pvid
    if "pvid" in left:
        default = changes.get("default_vlan_id", switch.default_vlan_id)
        changes["pvid"] = vlan("pvid", left.pop("pvid")) or default
    if "vid" in left:
        changes["vids"] = vlans("vid", left.pop("vid"), switch.vids)
    if "mtu" in left:
        mtu = int_property("mtu", left.pop("mtu") or str(DEFAULT_MTU))
        if not MIN_MTU <= mtu <= MAX_MTU:
            raise RequestError(f"mtu={mtu} is out of range: use {MIN_MTU} to {MAX_MTU}", code="bad-property")
        changes["mtu"] = mtu
    if "linkprop" in left:
        changes["linkprop"] = choice_property("linkprop", left.pop("linkprop"), ("", "phys-state"))
    if "mode" in left:
        changes["mode"] = choice_property("mode", left.pop("mode"), ("", "sc"))
    if "inter-vnet-link" in left:
        value = left.pop("inter-vnet-link") or "on"
        changes["inter_vnet_link"] = choice_property("inter-vnet-link", value, ("on", "off", "auto", "isolated"))
    refuse_unknown(left)
    return replace(switch, **changes)


def network_properties(network: VirtualNetwork) -> dict[str, str]:
    """What `changed_network` makes such a virtual network of."""
    return {
        "pvid": str(network.pvid),
        "vid": ",".join(map(str, network.vids)),
        "pvlan": str(network.pvlan or ""),
        "mtu": str(network.mtu or ""),
        "linkprop": network.linkprop,
        "maxbw": f"{network.maxbw_bits_s // 1000}K" if network.maxbw_bits_s else "",
        "allowed-ips": ",".join(network.allowed_ips),
        "protection": ",".join(network.protection),
        **dict(network.kept),
    }


def switch_properties(switch: VirtualSwitch) -> dict[str, str]:
    """What `changed_switch` makes such a virtual switch of."""
    return {
        "net-dev": switch.net_dev,
        "default-vlan-id": str(switch.default_vlan_id),
        "pvid": str(switch.pvid),
        "vid": ",".join(map(str, switch.vids)),
        "mtu": str(switch.mtu),
        "linkprop": switch.linkprop,
        "mode": switch.mode,
        "inter-vnet-link": switch.inter_vnet_link,
    }


# Values


def vlan(name: str, value: str) -> int:
    """A VLAN; 0 of an empty value.

    Raises:
        RequestError: it is not one.
    """
    number = int_property(name, value or "0")
    if value and not 1 <= number <= MAX_VLAN:
        raise RequestError(f"{name}={value} is not a VLAN: use 1 to {MAX_VLAN}", code="bad-property")
    return number


def vlans(name: str, value: str, now: tuple[int, ...]) -> tuple[int, ...]:
    """VLANs: ``10,20``, those there are and more (``+30``), or without some of them (``-10``).

    Raises:
        RequestError: one is not a VLAN, or is not there to be taken away.
    """
    sign, listed = (value[0], value[1:]) if value[:1] in ("+", "-") else ("", value)
    numbers = {vlan(name, part) for part in listed.split(",")} - {0} if listed else set()
    if sign == "-":
        for number in sorted(numbers - set(now)):
            raise RequestError(f"{name}={value}: VLAN {number} is not there to be removed", code="bad-property")
        return tuple(sorted(set(now) - numbers))
    return tuple(sorted(numbers | (set(now) if sign else set())))


def pvlan(value: str) -> Pvlan | None:
    """A private VLAN: ``100,isolated``; None of an empty value.

    Raises:
        RequestError: it is not one.
    """
    if not value:
        return None
    number, separator, kind = value.partition(",")
    if not separator or kind not in PvlanType.__members__.values():
        kinds = " or ".join(PvlanType)
        raise RequestError(f"pvlan={value} is not a private VLAN: write ID,TYPE, TYPE is {kinds}", code="bad-property")
    return Pvlan(vlan("pvlan", number or "0"), PvlanType(kind))


def bandwidth(value: str) -> int:
    """A limit in bits a second; a number alone is in megabits. 0 of an empty value.

    Raises:
        RequestError: it is not one, or too small.
    """
    if not value:
        return 0
    match = _BANDWIDTH.fullmatch(value)
    if match is None:
        raise RequestError(
            f"maxbw={value} is not a bandwidth: give megabits a second, or a number with K, M or G", code="bad-property"
        )
    bits = round(float(match[1]) * _UNITS[match[2].upper()] / 1000) * 1000
    if bits < MIN_BITS_S:
        raise RequestError(f"maxbw={value} is too little: {MIN_BITS_S // 1000}K is the least", code="bad-property")
    return bits


def addresses(value: str) -> tuple[str, ...]:
    """IP addresses, and networks such as ``192.0.2.0/24``.

    Raises:
        RequestError: one of them is neither.
    """
    found = []
    for part in value.split(",") if value else ():
        try:
            network = ipaddress.ip_network(part)
        except ValueError as error:
            raise RequestError(
                f"allowed-ips: '{part}' is neither an IP address nor a network: {error}", code="bad-property"
            ) from error
        found.append(str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network))
    return tuple(dict.fromkeys(found))


def protection(value: str) -> tuple[Protection, ...]:
    """Kinds of protection, in the order in which they are documented.

    Raises:
        RequestError: one is not known.
    """
    wanted = value.split(",") if value else []
    for kind in wanted:
        choice_property("protection", kind, tuple(Protection))
    return tuple(kind for kind in Protection if kind in wanted)


def _network_mtu(value: str, switch: VirtualSwitch) -> int:
    mtu = int_property("mtu", value or "0")
    if mtu and not MIN_MTU <= mtu <= switch.mtu:
        raise RequestError(
            f"mtu={mtu} is out of range: virtual switch {switch.name} takes {MIN_MTU} to {switch.mtu}",
            code="bad-property",
        )
    return mtu


def _check_protection(network: VirtualNetwork) -> None:
    if Protection.IP_NOSPOOF in network.protection and not network.allowed_ips:
        raise RequestError(
            "protection=ip-nospoof needs allowed-ips=: addresses that a guest gets by DHCP are not followed",
            code="bad-property",
        )
