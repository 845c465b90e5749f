"""Commands about console concentrators, and the consoles of domains."""

from __future__ import annotations

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, Words
from ldoms.cli.options import UNUSED


def _add_vcc(client: Client, words: Words) -> int:
    name, domain = words.operands
    client.post("/concentrators", {"name": name, "domain": domain, "properties": dict(words.properties)})
    return 0


def _remove_vcc(client: Client, words: Words) -> int:
    client.delete(f"/concentrators/{part(words.operands[0])}", force=words.has("-f"))
    return 0


def _set_console(client: Client, words: Words) -> int:
    client.put(f"/domains/{part(words.operands[0])}/console", {"properties": dict(words.properties)})
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
    Command("remove-vcc", "vcc", "VCC", "remove a console concentrator", _remove_vcc, options=(UNUSED,)),
    Command(
        "set-vcons",
        "vcons",
        "DOM",
        "say which console a domain is to have",
        _set_console,
        properties=("port", "group", "service"),
        details="An empty value means: any port, the domain's name as group, any console concentrator.",
    ),
)
