"""Consoles, the groups that they share a port in, and their clients: who reads, who writes, and what a key means.

Nothing here knows of sockets. A console is told what its guest says, a client is fed what was typed, and both speak
through what they were given.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from ldoms.console import protocol
from ldoms.console.history import History
from ldoms.console.protocol import BACKSPACE, CR, DELETE, LF, MAX_LINE, TILDE, ConsoleState, LineEnds, Row


class Line(Protocol):
    """The serial line of a guest."""

    def write(self, data: bytes) -> None:
        """Type at the guest."""

    def send_break(self) -> None:
        """Hold the line in the break condition for a moment."""


class Terminal(Protocol):
    """Where a client sits."""

    def show(self, data: bytes) -> None:
        """Show it. Never waits: what a slow terminal cannot take is lost to it."""

    def hang_up(self) -> None:
        """Cut the connection, after everything has been shown."""


class Console:
    """The console of one domain. The first of its clients writes, the others read.

    Attributes:
        number: of the domain, as ``c{id}`` names it.
        line: to the guest; None while none runs.
        on_output: is told everything that the guest says, besides the clients and the history.
    """

    def __init__(self, number: int, name: str, history: History) -> None:
        self.number = number
        self.name = name
        self.history = history
        self.line: Line | None = None
        self.clients: list[Client] = []
        self.is_removed = False
        self.on_output: Callable[[bytes], None] = lambda data: None

    @property
    def row(self) -> Row:
        """How the list of the group shows it."""
        state = ConsoleState.CONNECTED if self.clients else ConsoleState.ONLINE
        return Row(self.number, self.name, ConsoleState.REMOVING if self.is_removed else state)

    def said(self, data: bytes) -> None:
        """The guest has said something."""
        self.history.add(data)
        self.on_output(data)
        for client in self.clients:
            client.terminal.show(data)

    def writes(self, client: Client) -> bool:
        """Whether that client has write access."""
        return self.clients[0] is client

    def take_over(self, client: Client) -> None:
        """Give a client write access; whoever had it reads from now on, and is told."""
        if not self.writes(client):
            before = self.clients[0]
            self.clients.remove(client)
            self.clients.insert(0, client)
            before.say(protocol.FORCED_OUT)


class Group:
    """Consoles that share a port."""

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.consoles: list[Console] = []
        self._clients: list[Client] = []

    @property
    def usable(self) -> list[Console]:
        """Its consoles, without those that are about to go."""
        return [console for console in self.consoles if not console.is_removed]

    @property
    def rows(self) -> list[Row]:
        """Its consoles, as the list shows them."""
        return [console.row for console in self.consoles]

    def enter(self, terminal: Terminal, console: Console | None = None) -> Client:
        """A new client; with `console` it sees that one at once, and leaves the group when it leaves the console."""
        client = Client(self, terminal, stays=console is None)
        self._clients.append(client)
        if console is not None:
            client.connect(console)
        else:
            client.choose()
        return client

    def leave(self, client: Client) -> None:
        """Forget a client, whose connection has ended."""
        if client in self._clients:
            self._clients.remove(client)

    def remove(self, console: Console, reason: str) -> None:
        """Take a console out; its clients are told why, and go back to the menu if there is one."""
        console.is_removed = True
        self.consoles.remove(console)
        for client in list(console.clients):
            client.say(f"{protocol.EOL}{reason}{protocol.EOL}")
            client.lose_console()

    def close(self) -> None:
        """Hang up on everybody who is left."""
        for client in list(self._clients):
            client.end()


class Mode(StrEnum):
    """What the next key of a client means."""

    MENU = "menu"
    NAME = "name"
    """A line that says which console."""
    CONSOLE = "console"
    ESCAPE = "escape"
    """The key after a tilde at the beginning of a line."""
    QUESTION = "question"
    """Yes or no to taking write access away from somebody."""
    GONE = "gone"


class Client:
    """Somebody at a terminal: in the menu of a group, or at one of its consoles."""

    def __init__(self, group: Group, terminal: Terminal, *, stays: bool) -> None:
        self.terminal = terminal
        self._group = group
        self._stays = stays
        self._console: Console | None = None
        self._mode = Mode.MENU
        self._ends = LineEnds()
        self._at_start = True
        self._typed = bytearray()
        self._command = ""
        self._line = ""

    @property
    def is_gone(self) -> bool:
        """Whether it has been hung up on."""
        return self._mode is Mode.GONE

    @property
    def has_write_access(self) -> bool:
        """Whether what it types reaches a guest."""
        return self._console is not None and self._console.writes(self)

    def say(self, text: str) -> None:
        """Tell it something that does not come from a guest."""
        self.terminal.show(text.encode())

    def feed(self, data: bytes) -> None:
        """It has typed something."""
        keys = {
            Mode.MENU: self._menu_key,
            Mode.NAME: self._name_key,
            Mode.CONSOLE: self._console_key,
            Mode.ESCAPE: self._escape_key,
            Mode.QUESTION: self._question_key,
        }
        for code in self._ends.feed(data):
            if self._mode is Mode.GONE:
                return
            keys[self._mode](code)
        self._flush()

    def send_break(self) -> None:
        """Its terminal asks for a break."""
        if self._console is None:
            return
        if not self._console.writes(self):
            self.say(protocol.NO_WRITE_ACCESS)
        elif self._console.line is not None:
            self._flush()
            self._console.line.send_break()

    def take_over(self) -> None:
        """Take write access, without asking."""
        if self._console is not None:
            self._console.take_over(self)

    def choose(self) -> None:
        """Go to the console of the group, or to the menu if there are several."""
        self._disconnect()
        consoles = self._group.usable
        if len(consoles) == 1:
            self.connect(consoles[0])
        elif consoles:
            self._ask()
        else:
            self.end()

    def connect(self, console: Console) -> None:
        """Go to a console: greet, and show what was said last."""
        self._disconnect()
        self._console = console
        self._mode, self._at_start = Mode.CONSOLE, True
        console.clients.append(self)
        self.say(protocol.banner(console.name, self._group.name))
        self.terminal.show(console.history.replay())

    def lose_console(self) -> None:
        """Its console is gone: the menu, if there is a choice left, or the end."""
        self._disconnect()
        if self._stays and len(self._group.usable) > 1:
            self._ask()
        else:
            self.end()

    def end(self) -> None:
        """Leave everything; the connection is cut, or has been."""
        self._disconnect()
        if self._mode is not Mode.GONE:
            self._mode = Mode.GONE
            self._group.leave(self)
            self.terminal.hang_up()

    # Keys

    def _menu_key(self, code: int) -> None:
        if code in (BACKSPACE, DELETE):
            return
        self.terminal.show(bytes([code]))
        key = chr(code).lower()
        if len(self._group.usable) < 2:
            self.choose()  # there is nothing to choose from any more
        elif key in ("c", "n"):
            self._mode, self._command, self._line = Mode.NAME, key, ""
        elif key == "q":
            self.end()
        else:
            if key == "l":
                self.say(protocol.listing(self._group.rows))
            elif key != " ":
                self.say(protocol.MENU_HELP)
            self._ask()

    def _name_key(self, code: int) -> None:
        if code in (BACKSPACE, DELETE):
            if self._line:
                self._line = self._line[:-1]
                self.terminal.show(b"\b \b")
            return
        self.terminal.show(bytes([code]))
        if code not in (CR, LF) and len(self._line) < MAX_LINE:
            self._line += chr(code)
            return
        number = protocol.selected(self._command, self._line, self._group.rows)
        found = next((console for console in self._group.usable if console.number == number), None)
        if found is not None:
            self.connect(found)
        else:
            self.say(protocol.MENU_HELP)
            self._ask()

    def _console_key(self, code: int) -> None:
        if code == TILDE and self._at_start:
            self._mode = Mode.ESCAPE
        else:
            self._typed.append(code)
            self._at_start = code in (CR, LF)

    def _escape_key(self, code: int) -> None:
        assert self._console is not None
        self._mode = Mode.CONSOLE
        key = chr(code)
        if code == TILDE:
            self._typed.append(TILDE)
            self._at_start = False
            return
        self._flush()
        if key == "#":
            self.send_break()
        elif key == ".":
            self.lose_console()
        elif key == "w":
            self._want_write_access(self._console)
        elif key in ("n", "p"):
            self._move(1 if key == "n" else -1)
        else:
            self.say(protocol.ESCAPE_HELP)

    def _question_key(self, code: int) -> None:
        assert self._console is not None
        self.say(chr(code) + protocol.EOL)
        answer = chr(code).lower()
        if answer not in ("y", "n"):
            self.say(protocol.INVALID_ANSWER + protocol.FORCE_QUESTION)
            return
        self._mode = Mode.CONSOLE
        if answer == "y":
            self._console.take_over(self)

    # Inside

    def _ask(self) -> None:
        self._mode = Mode.MENU
        self.say(protocol.prompt(self._group.host, self._group.name))

    def _want_write_access(self, console: Console) -> None:
        if console.writes(self):
            self.say(protocol.HAS_WRITE_ACCESS)
        else:
            self._mode = Mode.QUESTION
            self.say(protocol.FORCE_WARNING + protocol.FORCE_QUESTION)

    def _move(self, step: int) -> None:
        consoles = self._group.usable
        if self._console in consoles and len(consoles) > 1:
            self.connect(consoles[(consoles.index(self._console) + step) % len(consoles)])

    def _flush(self) -> None:
        data, self._typed = bytes(self._typed), bytearray()
        if not data or self._console is None:
            return
        if not self._console.writes(self):
            if data.strip(b"\r\n"):
                self.say(protocol.NO_WRITE_ACCESS)
        elif self._console.line is not None:
            self._console.line.write(data)

    def _disconnect(self) -> None:
        self._flush()
        if self._console is not None:
            self._console.clients.remove(self)
            self._console = None
