"""Commands that list network interfaces and what has passed through them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace

from ldoms.api.client import Client
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.options import JSON, LONG, PARSE
from ldoms.cli.output import say_json, say_lines
from ldoms.cli.text import PARSE_VERSION, columns, record
from ldoms.model.codec import from_wire
from ldoms.model.netdev import NetCounters, NetDevice, NetDevices

NETDEV_WIDTHS = (18, 7, 8, 8, 8, 20)
NETDEV_HEADING = ("NAME", "CLASS", "MEDIA", "STATE", "SPEED", "OVER", "LOC")
NETSTAT_WIDTHS = (18, 10, 10, 10)
NETSTAT_HEADING = ("NAME", "IPACKETS", "RBYTES", "OPACKETS", "OBYTES")
MEDIA = "ETHER"
NOTHING = "--"
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

Lines = Callable[[NetDevice], Iterable[str]]


def _list_netdev(client: Client, words: Words) -> int:
    if words.has("--json"):
        say_json(client.get("/network-devices", name=list(words.operands)))
        return 0
    found = _chosen(_fetch(client, words.operands), words)
    if words.has("-p"):
        lines = [line for domain in found for line in _netdev_records(domain, long=words.has("-l"))]
        say_lines([PARSE_VERSION, *lines])
        return 0
    if words.has("-l"):
        say_lines(
            _tables(found, NETDEV_WIDTHS, NETDEV_HEADING, lambda device: [_netdev_row(device), *_details(device)])
        )
    else:
        say_lines(_tables(found, NETDEV_WIDTHS, NETDEV_HEADING, lambda device: [_netdev_row(device)]))
    return 0


def _list_netstat(client: Client, words: Words) -> int:
    interval = _number(words, "-t", 0)
    count = _number(words, "-c", 0 if interval else 1)
    unit = words.options.get("-u", "").upper()
    if unit not in ("", *UNITS):
        raise UsageError(f"list-netstat: unit {unit.lower()} is not known; there are k, m and g")
    before: dict[tuple[str, str], NetCounters] = {}
    number = 0
    while True:
        number += 1
        if words.has("--json"):
            say_json(client.get("/network-devices", name=list(words.operands)))
        else:
            found = _chosen(_fetch(client, words.operands), words)
            # From the second time on: what has passed since the last.
            shown = [_since(domain, before) for domain in found]
            before = {(domain.domain, one.name): one.counters for domain in found for one in domain.devices}
            if words.has("-p"):
                say_lines([*([PARSE_VERSION] if number == 1 else []), *_netstat_records(shown)])
            else:
                say_lines(_tables(shown, NETSTAT_WIDTHS, NETSTAT_HEADING, lambda one: [_netstat_row(one, unit)]))
        if number == count:
            return 0
        time.sleep(interval or 1)


def _fetch(client: Client, names: Sequence[str]) -> list[NetDevices]:
    return [from_wire(NetDevices, entry) for entry in client.get("/network-devices", name=list(names))]


def _chosen(found: Sequence[NetDevices], words: Words) -> list[NetDevices]:
    """What ``-o`` names, or with ``-b`` the host's ends of guests' interfaces."""
    chosen = []
    wanted = [name for name in words.options.get("-o", "").split(",") if name]
    for domain in found:
        devices = domain.devices
        if words.has("-b"):
            devices = tuple(_back_end(device) for device in devices if device.location)
        if wanted:
            devices = tuple(device for device in devices if device.name in wanted)
        chosen.append(NetDevices(domain.domain, domain.at, devices))
    known = {device.name for domain in chosen for device in domain.devices}
    for name in wanted:
        if name not in known:
            raise UsageError(f"there is no network device {name} here")
    return chosen


def _back_end(device: NetDevice) -> NetDevice:
    """What is behind an interface: of a guest's, the host's end; an uplink or a switch is its own."""
    if "@" in device.location:
        return device
    return NetDevice(
        *(device.location, device.kind, device.state, device.mtu),
        macs=device.macs,
        over=device.over,
        location=device.name,
        counters=device.counters,
    )


def _tables(
    found: Sequence[NetDevices], widths: Sequence[int], heading: Sequence[str], lines_of: Lines
) -> Iterable[str]:
    for domain in found:
        yield from ("DOMAIN", domain.domain, "")
        if domain.devices:
            yield columns(widths, heading)
            yield columns(widths, ["-" * len(word) for word in heading])
            for device in domain.devices:
                yield from lines_of(device)
            yield ""


def _netdev_row(device: NetDevice) -> str:
    values = (device.name, device.kind, MEDIA, device.state, device.speed_mbit_s)
    return columns(NETDEV_WIDTHS, [*values, device.over or NOTHING, device.location or NOTHING])


def _details(device: NetDevice) -> Iterable[str]:
    span = f" [{device.min_mtu}-{device.max_mtu}]" if device.max_mtu else ""
    yield f"    MTU       : {device.mtu}{span}"
    for label, values in (("IPADDR   ", device.addresses), ("MAC_ADDRS", device.macs)):
        for number, value in enumerate(values):
            yield f"    {label} : {value}" if number == 0 else f"              : {value}"


def _netdev_records(domain: NetDevices, *, long: bool) -> Iterable[str]:
    yield record("DOMAIN", name=domain.domain)
    for device in domain.devices:
        line = {
            "name": device.name,
            "class": device.kind,
            "media": MEDIA,
            "state": device.state,
            "speed": device.speed_mbit_s,
            "over": device.over,
            "loc": device.location,
        }
        if long:
            line |= {"mtu": device.mtu, "ipaddr": ",".join(device.addresses), "mac-addrs": ",".join(device.macs)}
        yield record("", **line)


def _netstat_row(device: NetDevice, unit: str) -> str:
    passed = device.counters
    numbers = (passed.received_packets, passed.received_bytes, passed.sent_packets, passed.sent_bytes)
    return columns(NETSTAT_WIDTHS, [device.name, *(_amount(number, unit) for number in numbers)])


def _netstat_records(found: Sequence[NetDevices]) -> Iterable[str]:
    for domain in found:
        yield record("DOMAIN", name=domain.domain)
        for device in domain.devices:
            passed = device.counters
            yield record(
                "",
                name=device.name,
                ipackets=passed.received_packets,
                rbytes=passed.received_bytes,
                opackets=passed.sent_packets,
                obytes=passed.sent_bytes,
                ierrors=passed.received_errors,
                oerrors=passed.sent_errors,
                idrops=passed.received_drops,
                odrops=passed.sent_drops,
            )


def _since(domain: NetDevices, before: dict[tuple[str, str], NetCounters]) -> NetDevices:
    """The counters less those of the last time; an interface that is new has its own."""
    devices = []
    for device in domain.devices:
        then = before.get((domain.domain, device.name), NetCounters())
        less = {f.name: max(0, getattr(device.counters, f.name) - getattr(then, f.name)) for f in fields(NetCounters)}
        devices.append(replace(device, counters=NetCounters(**less)))
    return NetDevices(domain.domain, domain.at, tuple(devices))


def _amount(number: int, unit: str) -> str:
    """A number as it is, in a unit, or in the largest of which there is at least one."""
    for letter, size in UNITS.items():
        if letter == unit:
            return f"{number / size:.2f}{letter}"
    if unit:
        return str(number)
    fitting = [(letter, size) for letter, size in UNITS.items() if number >= size]
    if not fitting:
        return str(number)
    letter, size = fitting[-1]
    return f"{number / size:.2f}{letter}"


def _number(words: Words, flag: str, default: int) -> int:
    value = words.options.get(flag, "")
    if value and not (value.isdecimal() and int(value)):
        raise UsageError(f"list-netstat: {flag} {value} is not a number above 0")
    return int(value) if value else default


DEVICES = Option("-o", "only these devices", "DEV[,DEV...]")

COMMANDS = (
    Command(
        "list-netdev",
        "devices",
        "[DOM...]",
        "list network interfaces of the host and of domains",
        _list_netdev,
        options=(Option("-b", "the host's side: uplinks, switches and taps"), LONG, DEVICES, PARSE, JSON),
        details="CLASS is PHYS, AGGR (bond, team), VLAN, VSW (bridge), VNET, ESTUB (dummy) or LOOP. SPEED is in Mbit/s,"
        " 0 where there is none. LOC of an interface of the host is the switch that it belongs to, of a guest's the"
        " tap behind it.",
    ),
    Command(
        "list-netstat",
        "devices",
        "[DOM...]",
        "list what has passed through network interfaces",
        _list_netstat,
        options=(
            DEVICES,
            PARSE,
            Option("-t", "again after so many seconds: what has passed meanwhile", "INTERVAL"),
            Option("-c", "so often; without it, until it is interrupted", "COUNT"),
            Option("-u", "in this unit: k, m or g", "UNIT"),
            JSON,
        ),
        details="A guest's interface is seen from the guest: IPACKETS and RBYTES are what it has received. Units count"
        " by 1024; without -u each number takes the one that fits.",
    ),
)
