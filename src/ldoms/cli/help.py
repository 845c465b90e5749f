"""Help texts and the manual page: both written from the table of commands."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from ldoms.cli.command import Command
from ldoms.cli.table import COMMANDS, aliases

WIDTH = 78
_GROUPS = {
    "bindings": "what domains are given",
    "services": "virtual services",
    "devices": "strands and memory",
    "domain": "domains (dom)",
    "vcpu": "virtual CPUs",
    "memory": "memory (mem)",
    "variable": "boot variables (var)",
    "vds": "virtual disk services",
    "vdsdev": "volumes",
    "vdisk": "disks of domains",
    "vsw": "virtual switches",
    "vnet": "networks of domains",
    "vcc": "console concentrators",
    "vcons": "consoles of domains",
    "migration": "migration",
    "trust": "trust between hosts (ours)",
    "history": "history",
}


def overview() -> Iterable[str]:
    """What ``ldm --help`` prints."""
    yield "Usage:"
    yield " ldm [--help [command]] | -V | command [options] [properties] operands"
    yield ""
    yield "Command(s) for each resource (aliases in parens):"
    for group, title in _GROUPS.items():
        yield ""
        yield f"    {title}"
        for command in COMMANDS:
            if command.group == group:
                others = f" ({', '.join(aliases(command))})" if aliases(command) else ""
                yield f"        {command.name}{others}"
    yield ""
    yield "'ldm --help COMMAND' tells more about one of them."


def usage(command: Command) -> Iterable[str]:
    """What ``ldm --help COMMAND`` prints."""
    yield "Usage:"
    yield from _wrap(command.synopsis, indent=" ", hanging="     ")
    yield ""
    yield from _wrap(f"{command.summary[0].upper()}{command.summary[1:]}.")
    if command.details:
        yield ""
        yield from _wrap(command.details)
    if command.options:
        yield ""
        for option in command.options:
            yield from _wrap(option.help, indent=f"  {_shown(option.flag, option.value):<24}", hanging=" " * 26)
    others = aliases(command)
    if others:
        yield ""
        yield f"Also called: {', '.join(others)}"


def manual() -> Iterable[str]:
    """The manual page ldm(8), in the man(7) language."""
    yield '.TH LDM 8 "" "ldoms" "System administration"'
    yield ".SH NAME"
    yield "ldm \\- the command line of the Logical Domains Manager"
    yield ".SH SYNOPSIS"
    yield ".B ldm\n[\\-\\-help [\\fIcommand\\fR]] | \\-V | \\fIcommand\\fR [options] [properties] operands"
    yield ".SH DESCRIPTION"
    yield (
        "\\fBldm\\fR asks \\fBldmd\\fR(8), the manager of this host, to list, make, change, start, stop and move"
        " domains. Options stand before properties (\\fIname=value\\fR), and properties before operands; a property"
        " with an empty value is cleared."
    )
    yield ".SH COMMANDS"
    for command in COMMANDS:
        yield ".TP"
        yield f".B {_escape(command.synopsis)}"
        also = f" Also called {', '.join(aliases(command))}." if aliases(command) else ""
        yield _escape(f"{command.summary[0].upper()}{command.summary[1:]}. {command.details}{also}".replace("  ", " "))
        for option in command.options:
            yield ".RS\n.TP"
            yield f".B {_escape(_shown(option.flag, option.value))}"
            yield _escape(option.help)
            yield ".RE"
    yield ".SH ENVIRONMENT"
    yield ".TP\n.B LDM_SOCKET\nThe socket of the manager, if it is not /run/ldoms/ldmd.sock."
    yield ".SH EXIT STATUS"
    yield "0 if all went well, 2 if the command line makes no sense, 1 for every other failure."
    yield ".SH SEE ALSO"
    yield ".BR ldmd (8)"


def _shown(flag: str, value: str) -> str:
    return f"{flag} {value}" if value else flag


def _wrap(text: str, indent: str = "", hanging: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
    )


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("-", "\\-")
