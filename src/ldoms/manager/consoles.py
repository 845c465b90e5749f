"""The consoles of a host's guests: opened when a domain is bound, connected when its guest starts, logged, kept."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from ldoms.console.groups import Client, Console, Group
from ldoms.console.history import SIZE, History
from ldoms.console.log import ConsoleLog
from ldoms.console.telnet import MAX_BACKLOG, Port
from ldoms.hypervisor.engine import Guest
from ldoms.manager.config import Places
from ldoms.model.domain import Domain
from ldoms.model.errors import HostError, NotFound, RequestError

CONNECT_S = 2.0
SETTLE_S = 0.1
"""Before a break: a serial line takes 16 bytes at once, and the guest fetches them soon."""
CHUNK = 4096
HISTORY_FILE = "console.history"

_log = structlog.get_logger(__name__)


def admit_all(uid: int | None, group: str) -> bool:
    """Whoever reaches a console's port may use it."""
    return True


class Consoles:
    """The consoles of a host."""

    def __init__(
        self,
        places: Places,
        host: str,
        admits: Callable[[int | None, str], bool] = admit_all,
        ports: type[Port] = Port,
    ) -> None:
        """Prepare them.

        Args:
            places: where logs and histories are.
            host: its name, for the menus of groups.
            admits: whether a process of that user, None if unknown, may use the port of that group.
            ports: what listens.
        """
        self._places = places
        self._host = host
        self._admits = admits
        self._ports = ports
        self._groups: dict[int, _Group] = {}
        self._opening = asyncio.Lock()
        self._consoles: dict[str, _Console] = {}
        self._attachments: dict[str, Attachment] = {}

    def can_listen(self, port: int) -> bool:
        """Whether a console could have that port: no other process has it."""
        return port in self._groups or self._ports.is_free(port)

    async def open(self, domain: Domain) -> None:
        """Open the console of a bound domain: the port of its group, if that is not open yet.

        Raises:
            HostError: code ``port-taken``: another process, or another group, has the port.
        """
        assert domain.bindings is not None
        group = await self._open_group(domain.console_group, domain.bindings.console_port, domain.name)
        self._enter(domain, group, b"")

    async def reopen(self, domain: Domain) -> None:
        """Open the console of a domain that was bound before, with what was said there.

        If another program has its port now, it does without: what the guest says is heard and kept all the same, and
        clients of the API reach it.
        """
        assert domain.bindings is not None
        number = domain.bindings.console_port
        try:
            group = await self._open_group(domain.console_group, number, domain.name)
        except HostError as error:
            _log.error("console-port-unavailable", domain=domain.name, reason=error.message)
            alone = Group(domain.console_group, self._host)
            group = _Group(number, alone, self._ports(alone, self._admits))
        self._enter(domain, group, self._kept(domain))

    async def connect(self, uuid: str, guest: Guest, *, afresh: bool = False) -> None:
        """Connect a domain's console to its guest; `afresh` forgets what an earlier one has said."""
        console = self._consoles.get(uuid)
        if console is not None:
            if afresh:
                console.console.history.clear()
                self._history_file(uuid).unlink(missing_ok=True)
            await console.connect(guest)

    def set_log(self, domain: Domain) -> None:
        """Begin or end to log, as the domain says."""
        console = self._consoles.get(domain.uuid)
        if console is not None:
            console.set_log(on=domain.console.log)

    async def close_domain(self, uuid: str, reason: str = "") -> None:
        """Close the console of a domain, and tell its clients why."""
        console = self._consoles.pop(uuid, None)
        if console is None:
            return
        console.console.is_removed = True
        await console.leave_guest()
        console.log.close()
        self._history_file(uuid).unlink(missing_ok=True)
        name, group = console.console.name, console.group
        group.group.remove(console.console, reason or f"The console of LDom {name} is closed.")
        if not group.group.consoles:
            if self._groups.get(group.number) is group:
                del self._groups[group.number]
            await group.close()

    async def close(self) -> None:
        """Let go of all consoles, for a restart: what they have said is kept."""
        self.hang_up()
        for uuid, console in self._consoles.items():
            await console.leave_guest()
            console.log.close()
            self._keep_history(uuid, console.console.history)
        for group in {id(console.group): console.group for console in self._consoles.values()}.values():
            await group.close()
        self._consoles, self._groups = {}, {}

    def hang_up(self) -> None:
        """Cut all clients of the API: the manager is about to stop."""
        for attachment in list(self._attachments.values()):
            attachment.client.say("\r\nldmd stops on this host; the guest goes on.\r\n")
            attachment.client.end()

    # Clients of the API

    def attach(self, domain: Domain, *, force: bool) -> Attachment:
        """A new client of a domain's console; with `force` it takes write access away from whoever has it.

        Raises:
            RequestError: the domain has no console.
        """
        if domain.is_control:
            raise RequestError(
                "LDom primary is the host itself and has no console here: use the host's own", code="control-domain"
            )
        console = self._consoles.get(domain.uuid)
        if console is None:
            raise RequestError(
                f"LDom {domain.name} is not bound and has no console yet: bind it first ('ldm bind-domain"
                f" {domain.name}')",
                code="domain-inactive",
            )
        attachment = Attachment(console.group.group, console.console)
        self._attachments[attachment.id] = attachment
        if force:
            attachment.client.take_over()
        elif not attachment.client.has_write_access:
            attachment.client.say("Another user has write access to this console; ~w takes it.\r\n")
        return attachment

    def attachment(self, identity: str) -> Attachment:
        """A client of the API by its id.

        Raises:
            NotFound: it has left.
        """
        if identity not in self._attachments:
            raise NotFound(f"console client {identity} was not found: it has left")
        return self._attachments[identity]

    def detach(self, attachment: Attachment) -> None:
        """Forget a client that listens no more."""
        self._attachments.pop(attachment.id, None)
        attachment.client.end()

    # Inside

    async def _open_group(self, name: str, number: int, domain: str) -> _Group:
        async with self._opening:  # two domains of one group may be bound at once
            known = self._groups.get(number)
            if known is not None:
                if known.group.name != name:
                    raise HostError(
                        f"console port {number} of LDom {domain} belongs to the console group {known.group.name}",
                        code="port-taken",
                    )
                return known
            group = Group(name, self._host)
            made = _Group(number, group, self._ports(group, self._admits))
            try:
                await made.port.open(number)
            except OSError as error:
                raise HostError(
                    f"console port {number} of LDom {domain} cannot be opened: {error.strerror}", code="port-taken"
                ) from error
            self._groups[number] = made
            return made

    def _enter(self, domain: Domain, group: _Group, known: bytes) -> None:
        log = ConsoleLog(self._places.console_log(domain.name))
        console = _Console(Console(domain.order, domain.name, History(known)), group, log)
        console.set_log(on=domain.console.log)
        group.group.consoles.append(console.console)
        self._consoles[domain.uuid] = console

    def _kept(self, domain: Domain) -> bytes:
        """What was said on a console before a restart: as it was kept in the end, or what the log has of it."""
        with suppress(OSError):
            return self._history_file(domain.uuid).read_bytes()
        return ConsoleLog(self._places.console_log(domain.name)).tail(SIZE) if domain.console.log else b""

    def _history_file(self, uuid: str) -> Path:
        return self._places.domain(uuid) / HISTORY_FILE

    def _keep_history(self, uuid: str, history: History) -> None:
        path = self._history_file(uuid)
        if path.parent.is_dir() and history.data:
            try:
                path.write_bytes(history.data)
            except OSError as error:
                _log.warning("console-history-lost", path=str(path), reason=str(error))


class Attachment:
    """A client of the API: a terminal that fetches what it is shown."""

    def __init__(self, group: Group, console: Console) -> None:
        self.id = secrets.token_urlsafe(16)
        self._waiting = bytearray()
        self._is_cut = False
        self._news = asyncio.Event()
        self.client: Client = group.enter(self, console)

    def show(self, data: bytes) -> None:
        """Keep it, unless too much is waiting already."""
        if len(self._waiting) < MAX_BACKLOG:
            self._waiting += data
            self._news.set()

    def hang_up(self) -> None:
        """Nothing more will come."""
        self._is_cut = True
        self._news.set()

    async def output(self) -> AsyncIterator[bytes]:
        """What it is shown, until it is hung up on."""
        while self._waiting or not self._is_cut:
            data, self._waiting = bytes(self._waiting), bytearray()
            if data:
                yield data
            else:
                self._news.clear()
                await self._news.wait()


@dataclass(frozen=True)
class _Group:
    """A group and its port."""

    number: int
    group: Group
    port: Port

    async def close(self) -> None:
        self.group.close()
        await self.port.close()


@dataclass(eq=False)
class _Console:
    """A console and what is behind it: the socket of its guest, and its log."""

    console: Console
    group: _Group
    log: ConsoleLog
    reader: asyncio.Task[None] | None = None

    def set_log(self, *, on: bool) -> None:
        self.console.on_output = self.log.write if on else lambda data: None
        if not on:
            self.log.close()

    async def connect(self, guest: Guest) -> None:
        await self.leave_guest()
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_unix_connection(guest.console)
        except (OSError, TimeoutError) as error:
            _log.warning("console-unreachable", domain=self.console.name, reason=str(error))
            return
        line = _Line(guest, writer, self.console.name)
        self.console.line = line
        self.reader = asyncio.create_task(self._read(reader, line), name=f"console-{self.console.name}")

    async def leave_guest(self) -> None:
        if self.reader is not None:
            self.reader.cancel()
            with suppress(asyncio.CancelledError):
                await self.reader
            self.reader = None

    async def _read(self, reader: asyncio.StreamReader, line: _Line) -> None:
        # Whatever the clients do, QEMU is read from: a guest must never wait for whoever looks at it.
        try:
            with suppress(OSError):
                while data := await reader.read(CHUNK):
                    self.console.said(data)
        finally:
            self.console.line = None
            line.close()


class _Line:
    """The serial line of a guest in QEMU. See `ldoms.console.groups.Line`."""

    def __init__(self, guest: Guest, writer: asyncio.StreamWriter, name: str) -> None:
        self._guest = guest
        self._writer = writer
        self._name = name
        self._break: asyncio.Task[None] | None = None
        self._held = bytearray()

    def write(self, data: bytes) -> None:
        # A break goes another way, through the monitor: what is typed after it waits until it has arrived.
        if self._break is not None:
            self._held += data
        # A guest that reads nothing holds up no more than this.
        elif self._writer.transport.get_write_buffer_size() < MAX_BACKLOG:
            self._writer.write(data)

    def send_break(self) -> None:
        if self._break is None:
            self._break = asyncio.create_task(self._send_break(), name=f"break-{self._name}")

    def close(self) -> None:
        if self._break is not None:
            self._break.cancel()
        self._writer.close()

    async def _send_break(self) -> None:
        try:
            # What was typed before it has arrived by then: the kernel takes the next key for a SysRq command.
            await asyncio.sleep(SETTLE_S)
            await self._guest.send_break()
        except HostError as error:
            _log.warning("break-not-sent", domain=self._name, reason=error.message)
        self._break = None
        held, self._held = bytes(self._held), bytearray()
        self.write(held)
