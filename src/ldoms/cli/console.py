"""Commands about console concentrators, and the consoles of domains."""

from __future__ import annotations

import os
import sys

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.options import UNUSED


def _add_vcc(client: Client, words: Words) -> int:
    name, domain = words.operands
    client.post("/concentrators", {"name": name, "domain": domain, "properties": dict(words.properties)})
    return 0


def _set_vcc(client: Client, words: Words) -> int:
    client.patch(f"/concentrators/{part(words.operands[0])}", {"properties": dict(words.properties)})
    return 0


def _remove_vcc(client: Client, words: Words) -> int:
    client.delete(f"/concentrators/{part(words.operands[0])}", force=words.has("-f"))
    return 0


def _set_console(client: Client, words: Words) -> int:
    if not words.properties:
        raise UsageError("set-vcons: give at least one property")
    client.put(f"/domains/{part(words.operands[0])}/console", {"properties": dict(words.properties)})
    return 0


def _console(client: Client, words: Words) -> int:
    from ldoms.cli.terminal import converse, raw_terminal

    # Where one of them was closed, the next file that is opened would be taken for it.
    source = os.open(os.devnull, os.O_RDONLY) if sys.stdin is None else sys.stdin.fileno()
    sink = os.open(os.devnull, os.O_WRONLY) if sys.stdout is None else sys.stdout.fileno()
    conversation = client.converse(f"/domains/{part(words.operands[0])}/console", {"force": words.has("-f")})
    try:
        with raw_terminal(source):
            converse(conversation, source, sink)
    finally:
        conversation.close()
        if os.isatty(sink):
            os.write(sink, b"\r\n")
    return 0


COMMANDS = (
    Command(
        "add-vcc",
        "vcc",
        "VCC DOM",
        "make a console concentrator",
        _add_vcc,
        properties=("port-range",),
        details="port-range=5000-5100 are the TCP ports on loopback, one for each bound domain; any telnet client"
        " can use them.",
    ),
    Command(
        "set-vcc",
        "vcc",
        "VCC",
        "give a console concentrator other ports",
        _set_vcc,
        properties=("port-range",),
        details="Ports that bound domains have, or others ask for, must be among them.",
    ),
    Command("remove-vcc", "vcc", "VCC", "remove a console concentrator", _remove_vcc, options=(UNUSED,)),
    Command(
        "set-vcons",
        "vcons",
        "DOM",
        "say which console a domain is to have",
        _set_console,
        properties=("port", "group", "service", "log"),
        details="An empty value means: any port, the domain's name as group, any console concentrator, log=on."
        " Domains of one group share a port, and a menu there. A bound domain gets its new console at once; of an"
        " active one only log= can be changed. log=on keeps what the guest says in"
        " /var/lib/ldoms/consoles/DOM/console-log.",
    ),
    Command(
        "console",
        "vcons",
        "DOM",
        "use the console of a bound domain from here",
        _console,
        options=(Option("-f", "take write access away from whoever has it"),),
        details="Shows what was said last, and then goes on. At the beginning of a line, ~. leaves, ~? lists what else"
        " there is, and ~~ types a tilde. The first client of a console writes, the others read. Without a terminal,"
        " what comes from standard input is typed, and the console is left when there is no more and the guest has"
        " been silent for a second, after five at the latest.",
        ours=True,
    ),
)
