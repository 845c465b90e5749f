"""Managers of a subnet ask each other by multicast before they give a MAC address to anybody.

Group and port are those of LDoms. The messages are ours, one JSON object in each datagram::

    {"ldoms": 1, "id": SENDER, "host": NAME, "ask": MAC}      is this address in use?
    {"ldoms": 1, "id": SENDER, "host": NAME, "taken": MAC}    it is, here

Who does not have the address says nothing. Nothing here is secret and nothing is believed beyond this: whoever can
send such a message could disturb the subnet in other ways.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute

from ldoms.model.errors import RequestError
from ldoms.model.identity import check_mac

GROUP, PORT = "239.129.9.27", 64535
ASKS, WAIT_S = 3, 0.03
"""How often is asked, and how long an answer may take: a subnet answers in less than a millisecond."""
EVERYWHERE = "0.0.0.0"  # noqa: S104
_VERSION = 1
_MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class Message:
    """What one manager says to all.

    Attributes:
        sender: differs for each running manager.
        host: its name.
        verb: ``ask`` or ``taken``.
        mac: which address it is about.
    """

    sender: str
    host: str
    verb: str
    mac: str


def encode(message: Message) -> bytes:
    """A message as a datagram."""
    content = {"ldoms": _VERSION, "id": message.sender, "host": message.host, message.verb: message.mac}
    return json.dumps(content).encode()


def decode(datagram: bytes) -> Message | None:
    """What a datagram says; None if it is not one of ours."""
    try:
        content: Any = json.loads(datagram)
        if content["ldoms"] != _VERSION:
            return None
        sender, host = content["id"], content["host"]
        verb = "ask" if "ask" in content else "taken"
        mac = check_mac(content[verb])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, RequestError):
        return None
    if not (isinstance(sender, str) and isinstance(host, str) and host.isprintable() and len(host) <= _MAX_NAME):
        return None
    return Message(sender, host, verb, mac)


class MulticastNeighbours(asyncio.DatagramProtocol):
    """Asks and answers. See `ldoms.net.neighbours.Neighbours`."""

    def __init__(self, host: str) -> None:
        """Prepare to speak as the manager of `host`; call `open` before anything else."""
        self._host = host
        self._id = secrets.token_hex(8)
        self._has: Callable[[str], bool] = lambda mac: False
        self._asking: dict[str, asyncio.Future[str]] = {}
        self._interfaces: Sequence[str] = ()
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self, address: str, has: Callable[[str], bool]) -> None:
        """Begin to listen.

        Args:
            address: of the interface to use; ``0.0.0.0``: all that have an IPv4 address now.
            has: whether a MAC address is in use on this host.

        Raises:
            OSError: nobody can be heard there, for example because it is not an IPv4 address.
        """
        listening, self._interfaces = await asyncio.to_thread(_listen, address)  # netlink may block
        self._has = has
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=listening)

    async def holder_of(self, mac: str) -> str:
        """Ask several times, as datagrams can be lost; nobody, where nobody can be heard."""
        if self._transport is None:
            return ""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._asking[mac] = answer
        try:
            for _ in range(ASKS):
                self._say("ask", mac)
                done, _ = await asyncio.wait([answer], timeout=WAIT_S)
                if done:
                    return answer.result()
            return ""
        finally:
            del self._asking[mac]

    def close(self) -> None:
        """Listen no more."""
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Answer a question, or take note of an answer."""
        message = decode(data)
        if message is None or message.sender == self._id:
            return
        if message.verb == "taken":
            waiting = self._asking.get(message.mac)
            if waiting is not None and not waiting.done():
                waiting.set_result(message.host)
        elif message.mac in self._asking or self._has(message.mac):
            self._say("taken", message.mac)

    def error_received(self, exc: Exception) -> None:
        """Whatever could not be sent was not heard."""

    def _say(self, verb: str, mac: str) -> None:
        if self._transport is None:
            return
        datagram = encode(Message(self._id, self._host, verb, mac))
        speaking = self._transport.get_extra_info("socket")
        for interface in self._interfaces:
            # An interface can go at any time; the others count.
            with suppress(OSError):
                speaking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
                self._transport.sendto(datagram, (GROUP, PORT))


def _listen(address: str) -> tuple[socket.socket, Sequence[str]]:
    """A socket that hears the group on an interface or on all, and the addresses of these interfaces."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        interfaces = _addresses() if address == EVERYWHERE else [address]
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # several managers can be on one machine
        listening.bind((GROUP, PORT))
        for interface in interfaces:
            membership = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(interface))
            listening.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except OSError:
        listening.close()
        raise
    return listening, interfaces


def _addresses() -> list[str]:
    with IPRoute() as ip:
        found = {str(entry.get_attr("IFA_LOCAL")) for entry in ip.get_addr(family=socket.AF_INET)}
    return sorted(address for address in found if not address.startswith("127."))
