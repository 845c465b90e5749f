"""What guests may send and get, as rules of nftables: one table of ours, two chains for each guarded tap.

::

    table bridge ldoms
      map    from      tap : jump from-TAP     what a guest sends, looked at before the bridge sees it
      map    to        tap : jump to-TAP       what a guest is to get, on whatever way it came
      chain  sent      hook prerouting         iifname vmap @from
      chain  delivered hook postrouting        oifname vmap @to

Rules go through libnftables' JSON (libnftables-json(5)) to the program ``nft``, a transaction a call: all or nothing.
Whoever looks with ``nft list table bridge ldoms`` sees the rules as anybody would have written them.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import threading
from collections.abc import Iterator, Sequence, Set
from typing import Any

from ldoms.model.errors import HostError
from ldoms.model.vnet import Protection, Pvlan, PvlanType
from ldoms.net.network import Guard

Json = dict[str, Any]
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

TABLE = "ldoms"
NFT_S = 10.0
_WHERE: Json = {"family": "bridge", "table": TABLE}
_HOOKS = (("from", "sent", "prerouting", "iifname"), ("to", "delivered", "postrouting", "oifname"))
_PRIORITY = -200
_DROP: Json = {"drop": None}
_UNSPECIFIED_V4, _UNSPECIFIED_V6 = "0.0.0.0", "::"  # noqa: S104
_DHCP_SERVER, _DHCPV6_SERVER = 67, 547
_PVLAN_MARK = 0x4C440000
"""In the upper half of the mark of a frame that a member of a private VLAN has sent; its id is in the lower."""
_ISOLATED_BIT = 0x8000
_lock = threading.Lock()
"""Of this process: the table is removed with its last tap, and made with its first."""


def put(tap: str, guard: Guard) -> None:
    """Guard a tap, which need not be there yet; whatever guarded it before is replaced."""
    with _lock:
        if guard.is_open:
            _remove(tap)
        else:
            _nft(f"guard {tap}", installation(tap, guard))


def remove(tap: str) -> None:
    """Guard a tap no more."""
    with _lock:
        _remove(tap)


def sweep(keep: Set[str]) -> None:
    """Remove the rules of all taps but some."""
    with _lock:
        for tap in _guarded() - keep:
            _remove(tap)


def is_possible() -> bool:
    """Whether this host takes rules of every sort that we write."""
    guard = Guard(("02:00:00:00:00:01",), ("192.0.2.1", "2001:db8::/64"), tuple(Protection), None)
    try:
        _nft("look for nftables", installation("probe", guard), "--check")
    except HostError:
        return False
    return True


def installation(tap: str, guard: Guard) -> list[Json]:
    """The commands that guard a tap."""
    commands: list[Json] = [{"add": {"table": {"family": "bridge", "name": TABLE}}}]
    for name, chain, hook, key in _HOOKS:
        base = _WHERE | {"type": "filter", "hook": hook, "prio": _PRIORITY, "policy": "accept", "name": chain}
        dispatch = {"vmap": {"key": {"meta": {"key": key}}, "data": f"@{name}"}}
        own = f"{name}-{tap}"
        commands += [
            {"add": {"map": _WHERE | {"name": name, "type": "ifname", "map": "verdict"}}},
            {"add": {"chain": base}},
            {"flush": {"chain": _WHERE | {"name": chain}}},
            {"add": {"rule": _WHERE | {"chain": chain, "expr": [dispatch]}}},
            {"add": {"chain": _WHERE | {"name": own}}},
            {"flush": {"chain": _WHERE | {"name": own}}},
            *({"add": {"rule": _WHERE | {"chain": own, "expr": list(rule)}}} for rule in _rules(name, guard)),
            {"add": _element(name, tap)},
        ]
    return commands


def removal(tap: str, *, last: bool) -> list[Json]:
    """The commands that guard a tap no more, when it is guarded; the table goes with the `last` one."""
    if last:
        return [{"delete": {"table": {"family": "bridge", "name": TABLE}}}]
    commands: list[Json] = []
    for name, *_ in _HOOKS:
        chain = _WHERE | {"name": f"{name}-{tap}"}
        commands += [{"delete": _element(name, tap)}, {"flush": {"chain": chain}}, {"delete": {"chain": chain}}]
    return commands


# Rules


def _rules(direction: str, guard: Guard) -> Iterator[Sequence[Json]]:
    yield from _sent(guard) if direction == "from" else _delivered(guard)


def _sent(guard: Guard) -> Iterator[Sequence[Json]]:
    """What a guest may not send; in this order, because the last one lets requests for an address pass."""
    on = guard.protection
    if Protection.RESTRICTED in on:
        yield _is_not(_meta("protocol"), ["ip", "ip6", "arp"]), _DROP
    if Protection.MAC_NOSPOOF in on:
        yield _is_not(_field("ether", "saddr"), guard.macs), _DROP
        yield _protocol("arp"), _is_not(_field("arp", "saddr ether"), guard.macs), _DROP
    if Protection.DHCP_NOSPOOF in on:
        for port in (_DHCP_SERVER, _DHCPV6_SERVER):
            yield _is(_field("udp", "sport"), port), _DROP
        hardware = _raw("th", 288, 48)  # chaddr of a BOOTP message (RFC 951), behind the UDP header
        wanted = [int(mac.replace(":", ""), 16) for mac in guard.macs]
        yield _is(_field("udp", "dport"), _DHCP_SERVER), _is_not(hardware, wanted), _DROP
    if guard.pvlan is not None:
        yield ({"mangle": {"key": _meta("mark"), "value": _mark(guard.pvlan)}},)
    if Protection.IP_NOSPOOF in on:
        yield from _addresses_sent(guard)


def _addresses_sent(guard: Guard) -> Iterator[Sequence[Json]]:
    v4, v6 = _addresses(guard)
    yield _is(_meta("protocol"), ["8021q", "8021ad"]), _DROP  # a second tag would hide what is behind it
    yield _protocol("arp"), _is_not(_field("arp", "saddr ip"), [*v4, _UNSPECIFIED_V4]), _DROP
    own = _is_not(_field("ip", "saddr"), v4) if v4 else _protocol("ip")
    asks = _is(_field("ip", "saddr"), _UNSPECIFIED_V4), _is(_field("udp", "dport"), _DHCP_SERVER)
    yield _protocol("ip"), *asks, {"accept": None}
    yield _protocol("ip"), own, _DROP
    yield _protocol("ip6"), _is_not(_field("ip6", "saddr"), [*v6, _UNSPECIFIED_V6]), _DROP
    announces = _is(_field("icmpv6", "type"), "nd-neighbor-advert")
    target = _raw("th", 64, 128)  # of a neighbour advertisement (RFC 4861, 4.4); older nft has no name for it
    yield announces, _is_not(target, [_range(network) for network in _networks(guard) if network.version == 6]), _DROP


def _delivered(guard: Guard) -> Iterator[Sequence[Json]]:
    """What a guest is not to get: what others sent for others, or from where it cannot be reached itself."""
    if guard.pvlan is not None:
        member = {"match": {"op": "==", "left": {"&": [_meta("mark"), 0xFFFF0000]}, "right": _PVLAN_MARK}}
        friend = [_is_not(_meta("mark"), _mark(guard.pvlan))] if guard.pvlan.type is PvlanType.COMMUNITY else []
        yield member, *friend, _DROP
    if Protection.MAC_NOSPOOF in guard.protection:
        yield _UNICAST, _is_not(_field("ether", "daddr"), guard.macs), _DROP
    if Protection.IP_NOSPOOF in guard.protection:
        v4, v6 = _addresses(guard)
        yield _UNICAST, _protocol("ip"), *([_is_not(_field("ip", "daddr"), v4)] if v4 else []), _DROP
        yield _UNICAST, _protocol("ip6"), _is_not(_field("ip6", "daddr"), v6), _DROP


def _mark(pvlan: Pvlan) -> int:
    return _PVLAN_MARK | pvlan.id | (_ISOLATED_BIT if pvlan.type is PvlanType.ISOLATED else 0)


def _addresses(guard: Guard) -> tuple[list[Any], list[Any]]:
    """The addresses that a guest may use, IPv4 and IPv6; link-local ones are those of its MAC addresses (RFC 4291)."""
    shown = [(network.version, _network(network)) for network in _networks(guard)]
    return [one for version, one in shown if version == 4], [one for version, one in shown if version == 6]


def _networks(guard: Guard) -> list[IpNetwork]:
    own = [ipaddress.IPv6Network(link_local(mac)) for mac in guard.macs]
    return [*own, *map(ipaddress.ip_network, guard.addresses)]


def _range(network: IpNetwork) -> Any:
    first, last = hex(int(network.network_address)), hex(int(network.broadcast_address))
    return first if first == last else {"range": [first, last]}


def _network(network: IpNetwork) -> Any:
    if network.prefixlen == network.max_prefixlen:
        return str(network.network_address)
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


def link_local(mac: str) -> ipaddress.IPv6Address:
    """The link-local address that an interface makes of its MAC address."""
    raw = bytes.fromhex(mac.replace(":", ""))
    return ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:])


# Expressions


def _element(name: str, tap: str) -> Json:
    return {"element": _WHERE | {"name": name, "elem": [[tap, {"jump": {"target": f"{name}-{tap}"}}]]}}


def _meta(key: str) -> Json:
    return {"meta": {"key": key}}


def _field(protocol: str, name: str) -> Json:
    return {"payload": {"protocol": protocol, "field": name}}


def _raw(base: str, offset: int, length: int) -> Json:
    return {"payload": {"base": base, "offset": offset, "len": length}}


def _is(left: Json, right: Any) -> Json:
    return {"match": {"op": "==", "left": left, "right": _set(right)}}


def _is_not(left: Json, right: Any) -> Json:
    return {"match": {"op": "!=", "left": left, "right": _set(right)}}


def _protocol(name: str) -> Json:
    return _is(_meta("protocol"), name)


def _set(values: Any) -> Any:
    if isinstance(values, (list, tuple)):
        return {"set": list(values)}
    return values


_UNICAST = {
    "match": {
        "op": "==",
        "left": {"&": [_field("ether", "daddr"), "01:00:00:00:00:00"]},
        "right": "00:00:00:00:00:00",
    }
}


# The program


def _remove(tap: str) -> None:
    guarded = _guarded()
    if tap in guarded:
        _nft(f"remove the rules of {tap}", removal(tap, last=guarded == {tap}))


def _guarded() -> set[str]:
    """The taps that have rules."""
    try:
        answer = _run(["-j", "list", "map", "bridge", TABLE, "from"])
    except FileNotFoundError:
        return set()  # without the program nobody has made any
    if answer.returncode:
        return set()
    content = json.loads(answer.stdout)["nftables"]
    return {tap for entry in content for tap, _ in entry.get("map", {}).get("elem", ())}


def _nft(what: str, commands: list[Json], *options: str) -> None:
    try:
        answer = _run([*options, "-j", "-f", "-"], json.dumps({"nftables": commands}))
    except FileNotFoundError as error:
        raise HostError(
            f"cannot {what}: there is no program nft on this host: install the package nftables",
            code="no-packet-filter",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"cannot {what}: nft did not end within {NFT_S:g} s", code="network-refused") from error
    if answer.returncode:
        said = " ".join(answer.stderr.split())
        raise HostError(f"cannot {what}: nft says: {said}", code="network-refused")


def _run(words: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["nft", *words], input=text, capture_output=True, text=True, timeout=NFT_S, check=False)
