"""What a console says to its clients, in the words of vntsd: scripts wait for them, so they are kept to the letter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

EOL = "\r\n"
CR, LF, NUL, BACKSPACE, DELETE, TILDE = b"\r\n\0\b\x7f~"
MAX_LINE = 100
"""Characters of a line that is typed at the menu."""
_MAX_PROMPT = 71

ESCAPES: Mapping[str, str] = {
    "#": "send break",
    ".": "exit from this console",
    "w": "force write access",
    "n": "console down",
    "p": "console up",
    "?": "help",
}
"""What may follow a tilde at the beginning of a line."""

NO_WRITE_ACCESS = f"You do not have write access{EOL}"
HAS_WRITE_ACCESS = f"You have write permission{EOL}"
FORCED_OUT = f"Warning: Console connection forced into read-only mode{EOL}"
FORCE_WARNING = (
    f"{EOL}Warning: another user currently has write permission{EOL}"
    f"to this console and forcibly removing him/her will terminate{EOL}"
    f"any current write action and all work will be lost.{EOL}{EOL}"
)
FORCE_QUESTION = "Would you like to continue?[y/n] "
INVALID_ANSWER = f"Invalid response. Try again.{EOL}"

ESCAPE_HELP = f"{EOL}VNTSD commands{EOL}" + "".join(f"~{key} --{what}{EOL}" for key, what in ESCAPES.items())
MENU_HELP = (
    f"{EOL}h -- this help{EOL}l -- list of consoles{EOL}q -- quit{EOL}"
    f"c{{id}}, n{{name}} -- connect to a console of domain {{id}} or domain {{name}}{EOL}"
)


class ConsoleState(StrEnum):
    """How a console stands, as the list of a group shows it."""

    ONLINE = "online"
    """Nobody is connected to it."""
    CONNECTED = "connected"
    REMOVING = "removing..."


@dataclass(frozen=True, slots=True)
class Row:
    """A console in the list of its group."""

    number: int
    name: str
    state: ConsoleState


def banner(console: str, group: str) -> str:
    """What a client is greeted with when it has reached a console."""
    return f'{EOL}Connecting to console "{console}" in group "{group}" ....{EOL}Press ~? for control options ..{EOL}'


def prompt(host: str, group: str) -> str:
    """What the menu of a group asks."""
    text = f"{host}-vnts-{group}: h, l, c{{id}}, n{{name}}, q:"
    return EOL + (text if len(text) <= _MAX_PROMPT else "vnts: h, l, c{id}, n{name}, q:")


def listing(rows: Iterable[Row]) -> str:
    """The consoles of a group."""
    lines = [f"{'DOMAIN ID':20}{'DOMAIN NAME':30}{'DOMAIN STATE':25}"]
    lines += [f"{row.number:<20}{row.name:30}{row.state.value:25}" for row in rows]
    return EOL + "".join(f"{line}{EOL}" for line in lines)


def selected(command: str, line: str, rows: Iterable[Row]) -> int | None:
    """The number of the console that ``c{id}`` or ``n{name}`` means; None if there is no such console.

    The braces of the menu stand for what is to be typed; they may be typed as well.
    """
    wanted = line.strip(" \t\r\n{}")
    known = {str(row.number) if command == "c" else row.name: row.number for row in rows}
    return known.get(wanted)


class LineEnds:
    """Turns each end of a line into one carriage return, which is what the key sends.

    A telnet client that is not in binary mode follows it with NUL or line feed (RFC 854, "The NVT Printer and
    Keyboard").
    """

    def __init__(self) -> None:
        self._after_return = False

    def feed(self, data: bytes) -> bytes:
        """The same without what follows a carriage return by rule alone."""
        kept = bytearray()
        for code in data:
            if not (self._after_return and code in (LF, NUL)):
                kept.append(code)
            self._after_return = code == CR
        return bytes(kept)
