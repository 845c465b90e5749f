"""The port of consoles, byte for byte: what is negotiated, and clients that do not read or know no telnet."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

from ldoms.console.groups import Console, Group
from ldoms.console.history import History
from ldoms.console.telnet import LOOPBACK, REFUSED, Port

LIMIT_S = 20.0
NEGOTIATION = bytes.fromhex("fffe22 fffb03 fffb01 fffe18 fffe20 fffe05 fffe21 fffe06 fffe27 fffe1f")
"""DONT LINEMODE, WILL SUPPRESS-GO-AHEAD, WILL ECHO, and DONT for whatever else there is (RFC 855)."""
BANNER = b'\r\nConnecting to console "ldg1" in group "web" ....\r\nPress ~? for control options ..\r\n'


class Guest:
    """A serial line that keeps what was typed; a break is an asterisk."""

    def __init__(self) -> None:
        self.typed = b""

    def write(self, data: bytes) -> None:
        self.typed += data

    def send_break(self) -> None:
        self.typed += b"*"


def at_port(
    work: Callable[[int, Console, Guest], Awaitable[None]],
    admits: Callable[[int | None, str], bool] = lambda uid, group: True,
) -> None:
    """Do some work with a port at which one console is."""

    async def main() -> None:
        group, guest = Group("web", "t4-1"), Guest()
        console = Console(1, "ldg1", History())
        console.line = guest
        group.consoles.append(console)
        port = Port(group, admits)
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            number = probe.getsockname()[1]
        assert Port.is_free(number)
        await port.open(number)
        assert not Port.is_free(number)
        try:
            async with asyncio.timeout(LIMIT_S):
                await work(number, console, guest)
        finally:
            group.close()
            await port.close()

    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_what_the_server_says_first() -> None:
    """What it wants, and at once the banner: it waits for no answer. What is typed arrives without telnet in it."""

    async def work(port: int, console: Console, guest: Guest) -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        assert await reader.readexactly(len(NEGOTIATION + BANNER)) == NEGOTIATION + BANNER
        writer.write(b"\xff\xfd\x01\xff\xfd\x03a\r\0\xff\xf3b\xff\xff")
        await until(lambda: guest.typed == b"a\r*b\xff")
        console.said(b"50 \xff 50\r\n")
        assert await reader.readexactly(10) == b"50 \xff\xff 50\r\n"
        writer.write(b"\r~.")
        assert await reader.read() == b""
        writer.close()

    at_port(work)


def test_a_client_that_does_not_read_holds_up_nobody() -> None:
    """The guest says 16 MB; who reads gets all of it, and for who does not a little is kept."""

    async def work(port: int, console: Console, guest: Guest) -> None:
        _, slow = await asyncio.open_connection(LOOPBACK, port)
        await until(lambda: console.clients)
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        await until(lambda: len(console.clients) == 2)
        await reader.readexactly(len(NEGOTIATION + BANNER))
        for _ in range(4096):
            console.said(b"x" * 4096)
            assert len(await reader.readexactly(4096)) == 4096
        waiting = console.clients[0].terminal._writer.transport.get_write_buffer_size()  # type: ignore[attr-defined]
        assert 0 < waiting < 256 * 1024 + 8192
        for client in (slow, writer):
            client.close()

    at_port(work)


def test_who_may_not_use_a_console_is_told_and_cut() -> None:
    """By the user of its process, which the kernel knows; the guest hears nothing of it."""
    asked = []

    def admits(uid: int | None, group: str) -> bool:
        asked.append((uid, group))
        return False

    async def work(port: int, console: Console, guest: Guest) -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.write(b"let me in\r")
        assert await reader.read() == NEGOTIATION + REFUSED
        writer.close()
        assert not console.clients
        assert guest.typed == b""

    at_port(work, admits)
    assert asked == [(os.geteuid(), "web")]
