"""What ``ldm --help`` prints, written from the table of commands; `ldoms.manual` writes the manual page from it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from ldoms.cli.command import Command, Option
from ldoms.cli.table import COMMANDS, aliases

WIDTH = 78
GROUPS = {
    "bindings": "what domains are given",
    "services": "virtual services",
    "devices": "strands and memory",
    "domain": "domains (dom)",
    "vcpu": "virtual CPUs",
    "core": "whole cores",
    "memory": "memory (mem)",
    "crypto": "cryptographic units (mau)",
    "policy": "resource management policies",
    "variable": "boot variables (var)",
    "vds": "virtual disk services",
    "vdsdev": "volumes",
    "vdisk": "disks of domains",
    "vsw": "virtual switches",
    "vnet": "networks of domains",
    "vcc": "console concentrators",
    "vcons": "consoles of domains",
    "constraints": "what domains ask for",
    "spconfig": "configurations of the host (config)",
    "reconf": "delayed reconfiguration",
    "migration": "migration",
    "trust": "trust between hosts (ours)",
    "history": "history",
    "logctl": "log of ldmd",
    "io": "physical devices",
    "vsan": "virtual storage area networks",
    "vhba": "virtual SCSI host adapters",
    "rsrc-group": "resource groups",
    "socket": "CPU sockets",
    "cmi": "coherent memory interconnect",
    "permits": "permits to use CPUs",
    "hvdump": "dumps of the hypervisor",
    "vdpcs": "data plane channel services",
    "vdpcc": "data plane channel clients",
}


def overview() -> Iterable[str]:
    """What ``ldm --help`` prints."""
    yield "Usage:"
    yield " ldm [--help [command]] | -V | --completion SHELL | command [options] [properties] operands"
    yield ""
    yield "Command(s) for each resource (aliases in parens):"
    for group, title in GROUPS.items():
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
            yield from _wrap(option.help, indent=f"  {shown(option):<24}", hanging=" " * 26)
    others = aliases(command)
    if others:
        yield ""
        yield f"Also called: {', '.join(others)}"


def shown(option: Option) -> str:
    """An option as it is typed: with the name of its value."""
    return f"{option.flag} {option.value}" if option.value else option.flag


def _wrap(text: str, indent: str = "", hanging: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
    )
