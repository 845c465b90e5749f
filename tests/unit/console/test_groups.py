"""What a client of a console sees and does, byte for byte, without a socket."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ldoms.console.groups import Client, Console, Group
from ldoms.console.history import History

WARNING = (
    "\r\nWarning: another user currently has write permission\r\n"
    "to this console and forcibly removing him/her will terminate\r\n"
    "any current write action and all work will be lost.\r\n\r\n"
)
QUESTION = "Would you like to continue?[y/n] "
HELP = (
    "\r\nVNTSD commands\r\n~# --send break\r\n~. --exit from this console\r\n~w --force write access\r\n"
    "~n --console down\r\n~p --console up\r\n~? --help\r\n"
)
MENU_HELP = (
    "\r\nh -- this help\r\nl -- list of consoles\r\nq -- quit\r\n"
    "c{id}, n{name} -- connect to a console of domain {id} or domain {name}\r\n"
)
PROMPT = "\r\nt4-1-vnts-web: h, l, c{id}, n{name}, q:"


@dataclass
class Screen:
    """A terminal that keeps what it was shown."""

    shown: bytearray = field(default_factory=bytearray)
    is_cut: bool = False

    def show(self, data: bytes) -> None:
        self.shown += data

    def hang_up(self) -> None:
        self.is_cut = True

    def read(self) -> str:
        """What has come since the last time."""
        text = self.shown.decode()
        self.shown.clear()
        return text


@dataclass
class Guest:
    """A serial line that keeps what was typed; a break is an asterisk."""

    typed: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> None:
        self.typed += data

    def send_break(self) -> None:
        self.typed += b"*"


@dataclass
class Room:
    """A group with consoles that each have a guest, and clients."""

    group: Group
    guests: dict[str, Guest] = field(default_factory=dict)

    def add(self, name: str) -> Console:
        console = Console(len(self.group.consoles) + 1, name, History())
        console.line = self.guests[name] = Guest()
        self.group.consoles.append(console)
        return console

    def enter(self, console: Console | None = None) -> tuple[Client, Screen]:
        screen = Screen()
        return self.group.enter(screen, console), screen


def room(*names: str) -> Room:
    made = Room(Group("web", "t4-1"))
    for name in names:
        made.add(name)
    return made


def banner(name: str) -> str:
    return f'\r\nConnecting to console "{name}" in group "web" ....\r\nPress ~? for control options ..\r\n'


def test_the_only_console_of_a_group_is_reached_at_once() -> None:
    """With the words that scripts wait for; then the guest is heard, and hears."""
    there = room("ldg1")
    client, screen = there.enter()
    assert screen.read() == banner("ldg1")
    there.group.consoles[0].said(b"login: ")
    assert screen.read() == "login: "
    client.feed(b"root\r\0")
    assert there.guests["ldg1"].typed == b"root\r"


def test_who_comes_later_sees_what_was_said() -> None:
    """Also what was said while nobody was there."""
    there = room("ldg1")
    there.group.consoles[0].said(b"panic: all is lost\r\n")
    _, screen = there.enter()
    assert screen.read() == banner("ldg1") + "panic: all is lost\r\n"


def test_the_menu_of_a_group() -> None:
    """Help, list, a wrong name, a right one, and the end; each key is echoed."""
    there = room("ldg1", "ldg2")
    _, other = there.enter(there.group.consoles[1])
    assert other.read() == banner("ldg2")
    client, screen = there.enter()
    assert screen.read() == PROMPT
    client.feed(b"h")
    assert screen.read() == "h" + MENU_HELP + PROMPT
    client.feed(b"?")
    assert screen.read() == "?" + MENU_HELP + PROMPT
    client.feed(b"L")
    assert screen.read() == (
        "L\r\nDOMAIN ID           DOMAIN NAME                   DOMAIN STATE             \r\n"
        "1                   ldg1                          online                   \r\n"
        "2                   ldg2                          connected                \r\n" + PROMPT
    )
    client.feed(b" \b")
    assert screen.read() == " " + PROMPT
    client.feed(b"nldg3\r\n")
    assert screen.read() == "nldg3\r" + MENU_HELP + PROMPT
    client.feed(b"n ldgx\b1\r\0")
    assert screen.read() == "n ldgx\b \b1\r" + banner("ldg1")
    client.feed(b"~.")
    assert screen.read() == PROMPT
    for typed in ("c2\r", "c{2}\r", "n{ldg2}\r"):
        client.feed(typed.encode())
        assert screen.read() == typed + banner("ldg2")
        client.feed(b"~.")
        assert screen.read() == PROMPT
    client.feed(b"q")
    assert (screen.read(), screen.is_cut, client.is_gone) == ("q", True, True)


def test_a_long_prompt_gives_way_to_a_short_one() -> None:
    """As vntsd has it: 71 characters are the most."""
    there = Room(Group("g" * 60, "t4-1"))
    there.add("ldg1")
    there.add("ldg2")
    _, screen = there.enter()
    assert screen.read() == "\r\nvnts: h, l, c{id}, n{name}, q:"


@pytest.mark.parametrize(
    ("typed", "arrives", "shown"),
    [
        (b"~?", b"", HELP),
        (b"~x", b"", HELP),
        (b"~#", b"*", ""),
        (b"~~", b"~", ""),
        (b"~~~?", b"~~?", ""),
        (b"ls ~/\r", b"ls ~/\r", ""),
        (b"x~.", b"x~.", ""),
        (b"x\r~#y", b"x\r*y", ""),
        (b"x\n~#", b"x\n*", ""),
        (b"~?~#", b"*", HELP),
        (b"~w", b"", "You have write permission\r\n"),
        (b"~n", b"", ""),
        (b"a\r\0b\r\nc\n", b"a\rb\rc\n", ""),
    ],
)
def test_escapes_count_at_the_beginning_of_a_line(typed: bytes, arrives: bytes, shown: str) -> None:
    """And nowhere else; together or key by key."""
    for pieces in ([typed], [bytes([code]) for code in typed]):
        there = room("ldg1")
        client, screen = there.enter()
        screen.read()
        for piece in pieces:
            client.feed(piece)
        assert there.guests["ldg1"].typed == arrives
        assert screen.read() == shown


def test_leaving_the_only_console_ends_the_connection() -> None:
    """What was typed before arrives; what comes after does not."""
    there = room("ldg1")
    client, screen = there.enter()
    client.feed(b"exit\r~.rm -rf /\r")
    assert screen.is_cut
    assert there.guests["ldg1"].typed == b"exit\r"
    client.feed(b"more")
    assert there.guests["ldg1"].typed == b"exit\r"
    assert not there.group.consoles[0].clients


def test_the_first_writes_and_the_others_read() -> None:
    """Whoever may not write is told so, unless it only presses Enter; when the first leaves, the next may."""
    there = room("ldg1")
    first, _ = there.enter()
    second, screen = there.enter()
    screen.read()
    second.feed(b"\r")
    assert screen.read() == ""
    second.feed(b"x")
    assert screen.read() == "You do not have write access\r\n"
    second.feed(b"\r~#")
    assert screen.read() == "You do not have write access\r\n"
    assert there.guests["ldg1"].typed == b""
    first.end()
    second.feed(b"y")
    assert there.guests["ldg1"].typed == b"y"


def test_write_access_can_be_taken() -> None:
    """After a warning and a yes; who had it is told."""
    there = room("ldg1")
    first, before = there.enter()
    second, screen = there.enter()
    before.read(), screen.read()
    second.feed(b"~w")
    assert screen.read() == WARNING + QUESTION
    second.feed(b"z")
    assert screen.read() == "z\r\nInvalid response. Try again.\r\n" + QUESTION
    second.feed(b"n")
    assert screen.read() == "n\r\n"
    second.feed(b"x")
    assert screen.read() == "You do not have write access\r\n"
    second.feed(b"\r~wY")
    assert screen.read() == WARNING + QUESTION + "Y\r\n"
    assert before.read() == "Warning: Console connection forced into read-only mode\r\n"
    second.feed(b"mine")
    first.feed(b"no more")
    assert there.guests["ldg1"].typed == b"mine"
    assert before.read() == "You do not have write access\r\n"


def test_down_and_up_go_around() -> None:
    """From console to console, in both directions."""
    there = room("ldg1", "ldg2", "ldg3")
    client, screen = there.enter(there.group.consoles[0])
    screen.read()
    for key, name in ((b"~p", "ldg3"), (b"~n", "ldg1"), (b"~n", "ldg2")):
        client.feed(key)
        assert screen.read() == banner(name)
    client.feed(b"here")
    assert {name: bytes(guest.typed) for name, guest in there.guests.items()} == {
        "ldg1": b"",
        "ldg2": b"here",
        "ldg3": b"",
    }


def test_a_break_of_the_terminal_reaches_the_guest_of_the_writer() -> None:
    """In its place among what is typed; in the menu there is no guest."""
    there = room("ldg1", "ldg2")
    client, _ = there.enter()
    client.send_break()
    client.feed(b"c1\rab")
    client.send_break()
    reader, _ = there.enter(there.group.consoles[0])
    reader.send_break()
    assert there.guests["ldg1"].typed == b"ab*"


def test_a_console_that_goes_tells_why() -> None:
    """Its clients get the menu while there is a choice, and are cut otherwise; who came for it alone is always cut."""
    there = room("ldg1", "ldg2", "ldg3")
    first, second, third = there.group.consoles
    client, screen = there.enter()
    client.feed(b"c1\r")
    _, alone = there.enter(first)
    screen.read(), alone.read()
    there.group.remove(first, "It has moved.")
    assert screen.read() == "\r\nIt has moved.\r\n" + PROMPT
    assert (alone.read(), alone.is_cut) == ("\r\nIt has moved.\r\n", True)
    client.feed(b"c2\r")
    screen.read()
    there.group.remove(second, "Gone.")
    assert (screen.read(), screen.is_cut) == ("\r\nGone.\r\n", True)
    waiting, last = there.enter()
    assert last.read() == banner("ldg3")
    there.group.remove(third, "Gone, too.")
    assert last.is_cut
    assert waiting.is_gone


def test_without_a_guest_nothing_is_typed() -> None:
    """A bound domain has a console, and nobody behind it; what was typed then is lost, not kept for later."""
    there = room("ldg1")
    console = there.group.consoles[0]
    line, console.line = console.line, None
    client, _ = there.enter()
    client.feed(b"early\r~#")
    console.line = line
    client.feed(b"late")
    assert there.guests["ldg1"].typed == b"late"


def test_a_console_that_is_about_to_go() -> None:
    """It is still listed, and cannot be chosen."""
    there = room("ldg1", "ldg2", "ldg3")
    there.group.consoles[1].is_removed = True
    client, screen = there.enter()
    client.feed(b"l")
    assert "2                   ldg2                          removing...              \r\n" in screen.read()
    client.feed(b"c2\r")
    assert screen.read() == "c2\r" + MENU_HELP + PROMPT
    client.feed(b"c1\r~n")
    assert screen.read() == "c1\r" + banner("ldg1") + banner("ldg3")
