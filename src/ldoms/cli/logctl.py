"""``list-logctl`` and ``set-logctl``: what `ldmd` writes into its log."""

from __future__ import annotations

from ldoms.api.client import Client
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.options import JSON, PARSE
from ldoms.cli.output import say_json, say_lines
from ldoms.cli.text import PARSE_VERSION, columns, record
from ldoms.model.codec import from_wire
from ldoms.model.logs import LogSwitch

DEFAULTS = "defaults"


def _list(client: Client, words: Words) -> int:
    data = client.get("/log")
    switches = [from_wire(LogSwitch, switch) for switch in data]
    if words.has("--json"):
        say_json(data)
    elif words.has("-p"):
        pairs = [(switch.kind.value, _shown(switch.is_on), _shown(switch.default)) for switch in switches]
        say_lines(
            [PARSE_VERSION, *(record("LOGCTL", name=name, state=now, default=usual) for name, now, usual in pairs)]
        )
    else:
        all_columns = [
            ("STATE", [_shown(switch.is_on) for switch in switches], not words.has("-d") or words.has("-a")),
            ("DEFAULT", [_shown(switch.default) for switch in switches], words.has("-d") or words.has("-a")),
        ]
        chosen = [(heading, values) for heading, values, wanted in all_columns if wanted or words.has("-l")]
        say_lines([columns((10, 8), ["LOG", *(heading for heading, _ in chosen)])])
        for number, switch in enumerate(switches):
            say_lines([columns((10, 8), [switch.kind.value, *(values[number] for _, values in chosen)])])
    return 0


def _shown(is_on: bool) -> str:
    return "on" if is_on else "off"


def _set(client: Client, words: Words) -> int:
    given = list(words.operands)
    defaults = DEFAULTS in given
    properties = {}
    for word in given:
        if word == DEFAULTS:
            continue
        name, separator, value = word.partition("=")
        if not separator:
            raise UsageError(f"'{word}' is not of the form LOG=on or LOG=off")
        properties[name] = value
    if not given:
        raise UsageError(f"set-logctl: say what is to be logged, or {DEFAULTS}")
    client.put("/log", {"properties": properties, "defaults": defaults})
    return 0


_KINDS = (
    "cmd is commands that change something, notice what happens to domains, fatal what went wrong; info, debug and"
    " warning are the rest."
)
COMMANDS = (
    Command(
        "list-logctl",
        "logctl",
        "",
        "list what ldmd writes into its log",
        _list,
        options=(
            Option("-a", "what is logged now and by default"),
            Option("-d", "what is logged by default"),
            Option("-l", "the same as -a"),
            PARSE,
            JSON,
        ),
        details=_KINDS,
    ),
    Command(
        "set-logctl",
        "logctl",
        "[defaults] [LOG=STATE...]",
        "say what ldmd writes into its log",
        _set,
        free_properties=True,
        details=f"STATE is on or off, or empty for what it is by default; the word {DEFAULTS} means all that are not"
        f" named. It counts at once, and after a restart. {_KINDS}",
    ),
)
