"""What guests may send and get, with real frames: two taps on a bridge in a namespace, and nobody else.

A frame is written to one tap, as a guest would send it, and looked for at the other.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pyroute2 import netns

from ldoms.lab.spaces import make_space
from ldoms.model.errors import HostError
from ldoms.model.services import VirtualSwitch
from ldoms.model.vnet import NetworkAbility, Protection, Pvlan, PvlanType
from ldoms.net.linux import LinuxNetwork
from ldoms.net.network import Guard, TapSpec
from ldoms.net.shaping import MIN_BURST
from support import need_root_and_qemu

SWITCH = VirtualSwitch("primary-vsw0", 0, "00:14:4f:f8:00:01")
OURS, ALSO_OURS, THEIRS, OTHER = (f"00:14:4f:f8:00:0{number}" for number in (2, 3, 4, 5))
IP, NET_IP, THEIR_IP = "192.0.2.7", "198.51.100.9", "192.0.2.8"
IP6, THEIR_IP6, OUR_LINK_LOCAL = "2001:db8::7", "2001:db8::8", "fe80::214:4fff:fef8:2"
TAP = TapSpec("", "a guest", 1500)
GUARD = Guard((OURS, ALSO_OURS), (IP, "198.51.100.0/24", IP6))
BROADCAST = "ff:ff:ff:ff:ff:ff"
ARRIVES_S, SETTLE_S = 2.0, 5.0
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 2, 0x1000


# Frames


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ether(kind: int, content: bytes, source: str = OURS, to: str = THEIRS) -> bytes:
    return raw(to) + raw(source) + struct.pack("!H", kind) + content


def arp(hardware: str, address: str, source: str = OURS) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
    content = head + raw(hardware) + socket.inet_aton(address) + raw(THEIRS) + socket.inet_aton(THEIR_IP)
    return ether(0x0806, content, source)


def ipv4(
    address: str,
    to: str = THEIR_IP,
    ports: tuple[int, int] = (5000, 7),
    content: bytes = b"",
    source: str = OURS,
    to_mac: str = THEIRS,
) -> bytes:
    udp = struct.pack("!HHHH", *ports, 8 + len(content), 0) + content
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    head += socket.inet_aton(address) + socket.inet_aton(to)
    return ether(0x0800, head[:10] + checksum(head) + head[12:] + udp, source, to_mac)


def checksum(head: bytes) -> bytes:
    """Of an IPv4 header (RFC 791): a bridge may drop what has a wrong one."""
    total = sum(struct.unpack(f"!{len(head) // 2}H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


def ipv6(
    address: str,
    to: str = THEIR_IP6,
    kind: int = 17,
    content: bytes = b"",
    source: str = OURS,
    to_mac: str = THEIRS,
) -> bytes:
    content = content or struct.pack("!HHHH", 5000, 7, 8, 0)
    head = struct.pack("!IHBB", 6 << 28, len(content), kind, 255)
    addresses = socket.inet_pton(socket.AF_INET6, address) + socket.inet_pton(socket.AF_INET6, to)
    return ether(0x86DD, head + addresses + content, source, to_mac)


def announcement(target: str) -> bytes:
    """A neighbour advertisement, sent from an address that may be used."""
    content = struct.pack("!BBHI", 136, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, target)
    return ipv6(IP6, kind=58, content=content)


def dhcp(hardware: str, ports: tuple[int, int] = (68, 67)) -> bytes:
    content = struct.pack("!BBBBIHH", 1, 1, 6, 0, 1, 0, 0) + bytes(16) + raw(hardware) + bytes(202)
    return ipv4("0.0.0.0", "255.255.255.255", ports, content, to_mac=BROADCAST)


MAC, ONLY_IP, ADDRESS, DHCP = (
    Protection.MAC_NOSPOOF,
    Protection.RESTRICTED,
    Protection.IP_NOSPOOF,
    Protection.DHCP_NOSPOOF,
)
LLDP = ether(0x88CC, b"neighbours", to="01:80:c2:00:01:00")
TAGGED_TWICE = ether(0x88A8, struct.pack("!HHHH", 5, 0x8100, 6, 0x0800) + ipv4(THEIR_IP)[14:])

SENT = [
    (None, ipv4(THEIR_IP, source=OTHER), True),
    (MAC, ipv4(IP), True),
    (MAC, ipv4(IP, source=ALSO_OURS), True),
    (MAC, ipv4(IP, source=OTHER), False),
    (MAC, arp(OURS, IP), True),
    (MAC, arp(OTHER, IP), False),
    (ADDRESS, ipv4(IP), True),
    (ADDRESS, ipv4(NET_IP), True),
    (ADDRESS, ipv4(THEIR_IP), False),
    (ADDRESS, arp(OURS, IP), True),
    (ADDRESS, arp(OURS, "0.0.0.0"), True),
    (ADDRESS, arp(OURS, THEIR_IP), False),
    (ADDRESS, ipv6(IP6), True),
    (ADDRESS, ipv6(OUR_LINK_LOCAL), True),
    (ADDRESS, ipv6("::"), True),
    (ADDRESS, ipv6(THEIR_IP6), False),
    (ADDRESS, announcement(IP6), True),
    (ADDRESS, announcement(THEIR_IP6), False),
    (ADDRESS, dhcp(OURS), True),
    (ADDRESS, TAGGED_TWICE, False),
    (ADDRESS, LLDP, True),
    (ONLY_IP, LLDP, False),
    (ONLY_IP, arp(OTHER, THEIR_IP), True),
    (ONLY_IP, ipv4(THEIR_IP), True),
    (ONLY_IP, ipv6(THEIR_IP6), True),
    (DHCP, dhcp(OURS), True),
    (DHCP, dhcp(OTHER), False),
    (DHCP, ipv4(IP, ports=(67, 68)), False),
    (DHCP, ipv4(IP), True),
]
"""Protection, what the guest sends, and whether it comes through."""

DELIVERED = [
    (None, ipv4(IP, source=THEIRS, to_mac=OTHER), True),
    (MAC, ipv4(THEIR_IP, IP, source=THEIRS, to_mac=OURS), True),
    (MAC, ipv4(THEIR_IP, IP, source=THEIRS, to_mac=OTHER), False),
    (MAC, ipv4(THEIR_IP, IP, source=THEIRS, to_mac=BROADCAST), True),
    (ADDRESS, ipv4(THEIR_IP, IP, source=THEIRS, to_mac=OURS), True),
    (ADDRESS, ipv4(THEIR_IP, "192.0.2.9", source=THEIRS, to_mac=OURS), False),
    (ADDRESS, ipv4(THEIR_IP, "192.0.2.255", source=THEIRS, to_mac=BROADCAST), True),
    (ADDRESS, ipv6(THEIR_IP6, IP6, source=THEIRS, to_mac=OURS), True),
    (ADDRESS, ipv6(THEIR_IP6, "2001:db8::9", source=THEIRS, to_mac=OURS), False),
]
"""Protection, what another sends, and whether the guest gets it."""


class Guests:
    """The guests' ends of two taps."""

    def __init__(self, network: LinuxNetwork) -> None:
        self.network = network
        self._files: dict[str, int] = {}

    async def put(self, number: int, tap: TapSpec) -> str:
        """Make or change a tap, and hold its other end."""
        spec = replace(tap, name=f"vnet{number}.0")
        await self.network.put_tap(spec, SWITCH)
        if spec.name not in self._files:
            self._files[spec.name] = await asyncio.to_thread(_hold, spec.name)  # its threads are in the namespace
            await self._settle(spec)
        return spec.name

    async def _settle(self, spec: TapSpec) -> None:
        """Wait until the bridge forwards what comes from a tap, and to it: the kernel takes a moment."""
        await self.network.put_tap(replace(spec, guard=Guard(), is_isolated=False, limit_bits_s=0, pvid=1), SWITCH)
        probe = ipv4(THEIR_IP, content=b"probe" * 8, source=OTHER, to_mac=BROADCAST)
        for other in self._files.keys() - {spec.name}:
            for one, another in ((spec.name, other), (other, spec.name)):
                deadline = time.monotonic() + SETTLE_S
                while not self._through(probe, one, another):
                    assert time.monotonic() < deadline, f"nothing comes from {one} to {another}"
        await self.network.put_tap(spec, SWITCH)

    def _through(self, probe: bytes, one: str, another: str) -> bool:
        os.write(self._files[one], probe)
        return probe in self._read(another, 0.02, probe)

    def passes(self, frame: bytes, source: str, to: str, proof: bytes) -> bool:
        """Whether a frame that one guest sends comes to the other, before `proof`, which always does."""
        self._read(to, 0.0)
        for one in (frame, proof):
            os.write(self._files[source], one)
        came = self._read(to, ARRIVES_S, until=proof)
        assert came, "nothing comes through at all"
        assert came[-1] == proof, "the proof has not come through"
        return frame in came[:-1]

    def flood(self, frame: bytes, source: str, to: str, seconds: float) -> int:
        """Bytes that come through when as much as possible is sent for so long."""
        came, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(64):
                os.write(self._files[source], frame)
            came += sum(map(len, self._read(to, 0.0)))
        return came

    def file(self, tap: str) -> int:
        """The guest's end of a tap."""
        return self._files[tap]

    def read(self, tap: str, until: bytes) -> list[bytes]:
        """What has come to a tap, up to a frame that must come; or what is there."""
        return self._read(tap, ARRIVES_S if until else 0.0, until)

    def _read(self, tap: str, limit_s: float, until: bytes = b"") -> list[bytes]:
        found, end = [], time.monotonic() + limit_s
        while select.select([self._files[tap]], [], [], max(0.0, end - time.monotonic()))[0]:
            found.append(os.read(self._files[tap], 1 << 16))
            if until and found[-1] == until:
                break
        return found

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)


def _hold(name: str) -> int:
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return file


@pytest.fixture
async def guests() -> AsyncIterator[Guests]:
    """A switch of its own in a namespace; the threads that make taps are in there."""
    need_root_and_qemu()
    space = make_space()
    try:
        inside = ThreadPoolExecutor(1, initializer=lambda: netns.setns(f"/proc/{space.pid}/ns/net"))
        asyncio.get_running_loop().set_default_executor(inside)
        made = Guests(LinuxNetwork())
        await made.network.put_switch(SWITCH)
        yield made
        made.close()
    finally:
        space.end()


def guarded(*protection: Protection) -> TapSpec:
    return replace(TAP, guard=replace(GUARD, protection=protection))


async def test_what_a_guest_may_send(guests: Guests) -> None:
    """Its own, and of what it forges nothing: each sort of protection stops what it names, and nothing else."""
    ours, theirs = await guests.put(1, TAP), await guests.put(2, TAP)
    wrong = []
    for protection, frame, expected in SENT:
        await guests.put(1, guarded(*([protection] if protection else [])))
        if guests.passes(frame, ours, theirs, ipv4(IP, content=b"proof" * 8)) is not expected:
            wrong.append((protection, frame.hex(), expected))
    assert not wrong


async def test_what_a_guest_gets(guests: Guests) -> None:
    """What is for it; and what is for others only without protection, as a bridge floods it."""
    ours, theirs = await guests.put(1, TAP), await guests.put(2, TAP)
    proof = ipv4(THEIR_IP, IP, content=b"proof" * 8, source=THEIRS, to_mac=OURS)
    wrong = []
    for protection, frame, expected in DELIVERED:
        await guests.put(1, guarded(*([protection] if protection else [])))
        if guests.passes(frame, theirs, ours, proof) is not expected:
            wrong.append((protection, frame.hex(), expected))
    assert not wrong


async def test_all_protection_at_once_lets_a_guest_work(guests: Guests) -> None:
    """It gets an address, is found by others, and talks; it cannot do so as somebody else."""
    ours, theirs = await guests.put(1, TAP), await guests.put(2, TAP)
    await guests.put(1, guarded(*Protection))
    proof = ipv4(IP, content=b"proof" * 8)
    good = [dhcp(OURS), arp(OURS, IP), ipv4(IP), ipv6(OUR_LINK_LOCAL), announcement(IP6)]
    bad = [dhcp(OTHER), arp(OURS, THEIR_IP), ipv4(IP, source=OTHER), ipv6(THEIR_IP6), LLDP]
    assert [guests.passes(frame, ours, theirs, proof) for frame in good + bad] == [True] * 5 + [False] * 5


ISOLATED, COMMUNITY, SECOND = (
    Pvlan(100, PvlanType.ISOLATED),
    Pvlan(101, PvlanType.COMMUNITY),
    Pvlan(102, PvlanType.COMMUNITY),
)


@pytest.mark.parametrize(
    ("first", "second", "reaches"),
    [
        (ISOLATED, ISOLATED, False),
        (ISOLATED, COMMUNITY, False),
        (COMMUNITY, ISOLATED, False),
        (COMMUNITY, COMMUNITY, True),
        (COMMUNITY, SECOND, False),
        (ISOLATED, None, True),
        (None, COMMUNITY, True),
    ],
)
async def test_private_vlans(guests: Guests, first: Pvlan | None, second: Pvlan | None, reaches: bool) -> None:
    """Isolated ones reach no other member, communities themselves; what is not in one, all: here by a broadcast."""
    ours, theirs, nobody = [await guests.put(number, TAP) for number in (1, 2, 3)]
    for number, pvlan in ((1, first), (2, second)):
        await guests.put(number, replace(TAP, guard=Guard(pvlan=pvlan)))
    frame, proof = ipv4(IP, to_mac=BROADCAST), ipv4(THEIR_IP, source=OTHER, to_mac=BROADCAST)
    os.write(guests.file(ours), frame)
    os.write(guests.file(nobody), proof)
    assert (frame in guests.read(theirs, proof)) is reaches


async def test_isolated_taps_reach_only_the_others(guests: Guests) -> None:
    """What ``isolate_vnets`` does: the bridge itself keeps them apart."""
    ours, theirs, uplink = [await guests.put(number, TAP) for number in (1, 2, 3)]
    for number in (1, 2):
        await guests.put(number, replace(TAP, is_isolated=True))
    frame, proof = ipv4(IP, to_mac=BROADCAST), ipv4(THEIR_IP, source=OTHER, to_mac=BROADCAST)
    os.write(guests.file(ours), frame)
    os.write(guests.file(uplink), proof)
    assert frame not in guests.read(theirs, proof)
    assert frame in guests.read(uplink, b"")
    await guests.put(2, TAP)
    os.write(guests.file(ours), frame)
    os.write(guests.file(uplink), proof)
    assert frame in guests.read(theirs, proof)


@pytest.mark.parametrize("direction", ["from the guest", "to the guest"])
async def test_a_limit_holds_in_each_direction(guests: Guests, direction: str) -> None:
    """As much as is allowed comes through, and not more, however much is sent."""
    limit_bits_s, seconds = 40_000_000, 1.0
    ours, theirs = await guests.put(1, replace(TAP, limit_bits_s=limit_bits_s)), await guests.put(2, TAP)
    source, to = (ours, theirs) if direction == "from the guest" else (theirs, ours)
    frame = ipv4(IP, content=bytes(1400), to_mac=BROADCAST)
    allowed = limit_bits_s / 8 * seconds
    came = guests.flood(frame, source, to, seconds)
    assert 0.7 * allowed < came < 1.15 * allowed + MIN_BURST, f"{came} bytes in {seconds} s; {allowed} are allowed"
    await guests.put(1, TAP)
    assert guests.flood(frame, source, to, 0.2) > 0.2 * 1.5 * allowed + MIN_BURST, "the limit is taken away again"


async def test_this_kernel_and_vlans(guests: Guests) -> None:
    """Frames of one VLAN stay in it; without VLAN filtering in the kernel, a vnet in one is refused by that name."""
    if NetworkAbility.VLAN_FILTERING not in await guests.network.abilities((SWITCH,)):
        with pytest.raises(HostError, match="CONFIG_BRIDGE_VLAN_FILTERING"):
            await guests.put(1, replace(TAP, pvid=10))
        pytest.skip("the kernel has no VLAN filtering of bridges (CONFIG_BRIDGE_VLAN_FILTERING)")
    ours, theirs = await guests.put(1, replace(TAP, pvid=10)), await guests.put(2, replace(TAP, pvid=20))
    same, proof = await guests.put(3, replace(TAP, pvid=10)), ipv4(THEIR_IP, source=OTHER, to_mac=BROADCAST)
    frame = ipv4(IP, to_mac=BROADCAST)
    await guests.put(4, replace(TAP, pvid=20))
    os.write(guests.file(ours), frame)
    os.write(guests.file("vnet4.0"), proof)
    assert frame in guests.read(same, frame)
    assert frame not in guests.read(theirs, proof)
