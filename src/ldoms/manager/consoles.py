"""Consoles of guests: one TCP port on loopback for each bound domain, for any telnet client."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
import telnetlib3

from ldoms.model.domain import Domain
from ldoms.model.errors import HostError

LOOPBACK = "127.0.0.1"
NEGOTIATION_S = 0.5
"""How long a client may take to tell its wishes; one that knows no telnet says nothing at all."""
CONNECT_S = 2.0
CHUNK = 4096
MAX_BACKLOG = 256 * 1024
"""Bytes that wait for a client which does not read them; what comes on top of that is lost to it."""

# The words of vntsd: scripts wait for them.
_BANNER = 'Connecting to console "{name}" in group "{group}" ....\r\nPress ~? for control options ..\r\n'
_HELP = "\r\nVNTSD commands\r\n~. --exit from this console\r\n~? --this help\r\n"
_READER = "\r\nAnother user has the write permission of this console.\r\n"

_log = structlog.get_logger(__name__)


class Consoles:
    """The consoles of a host."""

    def __init__(self) -> None:
        self._consoles: dict[str, _Console] = {}

    @staticmethod
    def can_listen(port: int) -> bool:
        """Whether a console could have that port: no other process has it."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
        return True

    async def open(self, domain: Domain) -> None:
        """Open the port of a bound domain's console.

        Raises:
            HostError: another process has the port.
        """
        assert domain.bindings is not None
        port = domain.bindings.console_port
        console = _Console(domain.name, domain.console.group or domain.name)
        try:
            await console.listen(port)
        except OSError as error:
            raise HostError(
                f"console port {port} of LDom {domain.name} cannot be opened: {error.strerror}", code="port-taken"
            ) from error
        self._consoles[domain.uuid] = console

    async def connect(self, uuid: str, path: Path) -> None:
        """Connect a domain's console to its guest, which has just been started or found again."""
        console = self._consoles.get(uuid)
        if console is not None:
            await console.connect(path)

    async def close_domain(self, uuid: str) -> None:
        """Close the console of a domain."""
        console = self._consoles.pop(uuid, None)
        if console is not None:
            await console.close()

    async def close(self) -> None:
        """Close all consoles."""
        for uuid in list(self._consoles):
            await self.close_domain(uuid)


class _Console:
    """One port, its clients, and the guest behind it. The first client writes, the others read."""

    def __init__(self, name: str, group: str) -> None:
        self._name = name
        self._group = group
        self._server: Any = None
        self._clients: list[Any] = []
        self._guest: asyncio.StreamWriter | None = None
        self._reader: asyncio.Task[None] | None = None

    async def listen(self, port: int) -> None:
        self._server = await telnetlib3.create_server(
            host=LOOPBACK,
            port=port,
            shell=self._serve,
            encoding=False,
            connect_maxwait=NEGOTIATION_S,
            compression=False,
            timeout=0,
        )

    async def connect(self, path: Path) -> None:
        await self._leave_guest()
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, self._guest = await asyncio.open_unix_connection(path)
        except (OSError, TimeoutError) as error:
            _log.warning("console-unreachable", domain=self._name, reason=str(error))
            return
        self._reader = asyncio.create_task(self._read_guest(reader), name=f"console-{self._name}")

    async def close(self) -> None:
        await self._leave_guest()
        for client in list(self._clients):
            # Not `close`, which would wait until the client has read everything.
            client.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    async def _leave_guest(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None
        if self._guest is not None:
            self._guest.close()
            self._guest = None

    async def _read_guest(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                for client in self._clients:
                    if client.transport.get_write_buffer_size() < MAX_BACKLOG:
                        client.write(data)

    async def _serve(self, reader: Any, writer: Any) -> None:
        writer.write(_BANNER.format(name=self._name, group=self._group).encode())
        self._clients.append(writer)
        try:
            await self._read_client(reader, writer)
        except (ConnectionError, EOFError):
            pass
        finally:
            self._clients.remove(writer)
            writer.close()

    async def _read_client(self, reader: Any, writer: Any) -> None:
        escapes = _Escapes()
        while data := await reader.read(CHUNK):
            text, command = escapes.feed(data)
            if text:
                await self._write_guest(text, writer)
            if command == b".":
                return
            if command == b"?":
                writer.write(_HELP.encode())

    async def _write_guest(self, data: bytes, writer: Any) -> None:
        if writer is not self._clients[0]:
            writer.write(_READER.encode())
        elif self._guest is not None:
            self._guest.write(data)
            with suppress(ConnectionError):
                await self._guest.drain()


class _Escapes:
    """Finds ``~.`` and ``~?`` at the beginning of a line in what a client types."""

    def __init__(self) -> None:
        self._at_start = True
        self._tilde = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What is meant for the guest, and the command if there was one; what follows a command is dropped."""
        text = bytearray()
        for code in data:
            character = bytes([code])
            if self._tilde:
                self._tilde = False
                if character in (b".", b"?"):
                    self._at_start = True
                    return bytes(text), character
                text += b"~"
            elif self._at_start and character == b"~":
                self._tilde = True
                continue
            text += character
            self._at_start = character in (b"\r", b"\n")
        return bytes(text), b""
