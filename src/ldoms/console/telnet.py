"""The port of a group of consoles: telnet on loopback, as vntsd negotiates it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
import telnetlib3
from telnetlib3 import telopt
from telnetlib3.server_base import BaseServer

from ldoms.console.groups import Group

LOOPBACK = "127.0.0.1"
MAX_BACKLOG = 256 * 1024
"""Bytes that wait for a client which does not read them; what comes on top of that is lost to it."""
REFUSED = b"\r\nAuthorization failed: you may not use this console.\r\n"
_ESTABLISHED = "01"

_log = structlog.get_logger(__name__)

# The server decides: characters one by one, echoed by the guest, and nothing that has to be asked for.
_OPTIONS = (
    (telopt.DONT, telopt.LINEMODE),
    (telopt.WILL, telopt.SGA),
    (telopt.WILL, telopt.ECHO),
    (telopt.DONT, telopt.TTYPE),
    (telopt.DONT, telopt.TSPEED),
    (telopt.DONT, telopt.STATUS),
    (telopt.DONT, telopt.LFLOW),
    (telopt.DONT, telopt.TM),
    (telopt.DONT, telopt.NEW_ENVIRON),
    (telopt.DONT, telopt.NAWS),
)


class Port:
    """The TCP port of a group."""

    def __init__(self, group: Group, admits: Callable[[int | None, str], bool]) -> None:
        """Serve `group`; `admits` says whether a process of that user, None if unknown, may use it."""
        self._group = group
        self._admits = admits
        self._server: Any = None

    @staticmethod
    def is_free(port: int) -> bool:
        """Whether no other process has that port."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
        return True

    async def open(self, port: int) -> None:
        """Listen.

        Raises:
            OSError: another process has the port.
        """
        self._server = await telnetlib3.create_server(
            host=LOOPBACK, port=port, protocol_factory=_Protocol, shell=self._serve, encoding=False
        )

    async def close(self) -> None:
        """Listen no more. Clients have been hung up on before."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: Any, writer: Any) -> None:
        terminal = _Terminal(writer)
        if not self._admits(_peer_uid(writer), self._group.name):
            terminal.show(REFUSED)
            terminal.hang_up()
            return
        client = self._group.enter(terminal)
        writer.set_iac_callback(telopt.BRK, lambda command: client.send_break())
        reader.hand_to(client.feed)
        with suppress(OSError):
            await reader.read(1)  # comes back when the connection ends
        client.end()


class _Reader(telnetlib3.TelnetReader):  # type: ignore[misc]
    """Hands on what was typed at once: what comes before a break must not reach the guest's SysRq after it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._early = b""
        self._take: Callable[[bytes], None] = self._keep

    def feed_data(self, data: bytes) -> None:
        """Something was typed."""
        self._take(data)

    def hand_to(self, take: Callable[[bytes], None]) -> None:
        """Begin to hand on."""
        self._take = take
        take(self._early)

    def _keep(self, data: bytes) -> None:
        self._early += data


class _Protocol(BaseServer):  # type: ignore[misc]
    """Telnet that says what it wants and waits for no answer."""

    def __init__(self, **options: Any) -> None:
        super().__init__(reader_factory=_Reader, **options)

    def begin_negotiation(self) -> None:
        """Say it."""
        for command, option in _OPTIONS:
            self.writer.iac(command, option)
        super().begin_negotiation()

    def check_negotiation(self, final: bool = False) -> bool:
        """Nothing is waited for: a client may know no telnet at all."""
        return True


class _Terminal:
    """A client at the other end of a TCP connection."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def show(self, data: bytes) -> None:
        """Send it, unless too much is waiting already."""
        transport = self._writer.transport
        if data and transport is not None and transport.get_write_buffer_size() < MAX_BACKLOG:
            self._writer.write(data)

    def hang_up(self) -> None:
        """Cut the connection, after what was shown; nobody waits for a client that does not read."""
        transport = self._writer.transport
        if transport is None:
            return
        transport.close()
        asyncio.get_running_loop().call_later(1.0, transport.abort)


def owner_of(table: str, local_port: int, peer_port: int) -> int | None:
    """The user of the process that has the connection from `local_port` to `peer_port`, both on loopback.

    Args:
        table: what ``/proc/net/tcp`` says (proc(5)).
        local_port: at the end whose owner is asked for.
        peer_port: at the other end.
    """
    address = f"{int.from_bytes(socket.inet_aton(LOOPBACK), 'little'):08X}"
    wanted = (f"{address}:{local_port:04X}", f"{address}:{peer_port:04X}", _ESTABLISHED)
    for line in table.splitlines()[1:]:
        words = line.split()
        if tuple(words[1:4]) == wanted:
            return int(words[7])
    return None


def _peer_uid(writer: Any) -> int | None:
    peer, here = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    if not peer or not here:
        return None
    return owner_of(Path("/proc/self/net/tcp").read_text(), peer[1], here[1])
