"""``python -m ldoms.manual DIR``: writes the manual pages ldm(8) and ldmd(8) into a directory.

What can change is taken from where it is used: the commands from the table that ``ldm --help`` prints, the options of
`ldmd` from its parser, its files and its configuration from the classes that hold them. Therefore it stands beside
`ldoms.daemon`, outside the rooms; nothing at run time imports it.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ldoms.api.exchange import DEFAULT_SOCKET, SOCKET_VARIABLE
from ldoms.cli.command import Command
from ldoms.cli.help import GROUPS, shown
from ldoms.cli.table import COMMANDS, aliases
from ldoms.daemon import make_parser
from ldoms.manager.config import AuthConfig, Config, Places

LDM_INTRODUCTION = """
``ldm`` asks ``ldmd``(8), the manager of this host, to list, make, change, start, stop and move domains. Root and the
members of the group ``ldoms`` may use it.

Options stand before properties, properties (``name=value``) before operands. A property with an empty value is
cleared. Commands that change something print nothing when they succeed, except for start-domain and stop-domain.
``--help`` lists all commands or tells about one, and ``-V`` prints versions. ``--completion`` prints what a shell, bash
or zsh, reads to complete commands, properties, and the names of what there is.

A domain is ``inactive`` when it is only a description, ``bound`` when it has been given what it asks for, and
``active`` when its guest runs; ``suspended`` means that the guest stands still for the last part of a migration. What
is marked *ours* does not exist in Oracle VM Server for SPARC.
"""
LDM_FLAGS = """
The column FLAGS of list-domain has six places; a dash means that nothing is to be said there.

1: ``s`` the domain is starting or stopping.

2: ``n`` it is running normally.

3: never set here.

4: ``c`` it is the control domain.

5: ``v`` it has virtual services.

6: ``s`` it is the source of a migration, ``t`` the target of one, ``e`` a migration waits for another host, perhaps for
ever: see cancel-operation and start-domain.
"""
LDM_EXAMPLES: tuple[tuple[str, str], ...] = (
    ("A domain of two CPUs and a disk", "ldm add-domain ldg1"),
    ("", "ldm set-vcpu 2 ldg1"),
    ("", "ldm set-memory 2G ldg1"),
    ("", "ldm add-vdsdev /srv/ldg1.qcow2 ldg1-root@primary-vds0"),
    ("", "ldm add-vdisk vdisk0 ldg1-root@primary-vds0 ldg1"),
    ("", "ldm add-vnet vnet0 primary-vsw0 ldg1"),
    ("", "ldm bind-domain ldg1"),
    ("", "ldm start-domain ldg1"),
    ("Look whether it could move, move it, and see how that went", "ldm migrate-domain -n ldg1 t4-2"),
    ("", "ldm migrate-domain -p /root/pfile ldg1 t4-2"),
    ("", "ldm list-history -o migration"),
)
LDMD_INTRODUCTION = """
``ldmd`` is the manager of a host: it runs domains in QEMU, does what ``ldm``(8) asks for, and moves domains to other
hosts together with the ``ldmd`` there. It runs as root.

Guests are processes of their own. When ``ldmd`` stops, is killed or upgraded, they go on running, and it finds them
again at its next start; a migration that was interrupted goes on, or is taken back. Only consoles are cut.
"""
LDMD_CONFIGURATION = """
The configuration is a TOML file, read at the start. Every key has a default, and without the file all defaults count.
A section, key or value that is not known is an error, and ``ldmd`` does not start.
"""
LDMD_SIGNALS: tuple[tuple[str, str], ...] = (
    ("SIGTERM, SIGINT", "stop; guests go on running."),
    ("SIGHUP", "ends it, as any signal that is not named here: to read the configuration again, restart it."),
)

_ROFF: Mapping[str, str] = {
    "\\": "\\(rs",
    "-": "\\-",
    "'": "\\(aq",
    "`": "\\(ga",
    "^": "\\(ha",
    "~": "\\(ti",
    '"': "\\(dq",
}


def ldm_page() -> Iterator[str]:
    """The page of the command line."""
    yield from _head("LDM", "ldm", "the command line of the Logical Domains Manager")
    yield ".B ldm"
    yield "[" + bold("--help") + " [\\fIcommand\\fR]] | " + bold("-V") + " | " + bold("--completion") + " \\fIshell\\fR"
    yield ".br\n.B ldm"
    yield "\\fIcommand\\fR [\\fIoptions\\fR] [\\fIproperties\\fR] \\fIoperands\\fR"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(LDM_INTRODUCTION)
    yield ".SH COMMANDS"
    for group, title in GROUPS.items():
        yield f".SS {escape(title[0].upper() + title[1:])}"
        for command in COMMANDS:
            if command.group == group:
                yield from _command(command)
    yield ".SH STATES AND FLAGS"
    yield from _paragraphs(LDM_FLAGS)
    yield ".SH ENVIRONMENT"
    yield from _entry(bold(SOCKET_VARIABLE), f"The socket of the manager, if it is not {DEFAULT_SOCKET}.")
    yield ".SH EXIT STATUS"
    yield from _entry(bold("0"), "It is done.")
    yield from _entry(bold("1"), "It is refused or has failed; the reason is on standard error.")
    yield from _entry(bold("2"), "The command line makes no sense; the usage is on standard error.")
    yield from _entry(bold("3"), "migrate-domain cannot keep --max-suspend or --max-time; the guest stays and runs.")
    yield from _entry(bold("130"), "Ctrl-C; migrate-domain is then cancelled, and ends with 1.")
    yield ".SH EXAMPLES"
    for title, line in LDM_EXAMPLES:
        yield f".PP\n{escape(title)}:" if title else ".br"
        yield f".RS\n.B {escape(line)}\n.RE"
    yield ".SH SEE ALSO\n.BR ldmd (8)"


def ldmd_page() -> Iterator[str]:
    """The page of the daemon."""
    parser, config = make_parser(), Config()
    yield from _head("LDMD", "ldmd", "the Logical Domains Manager of a host")
    yield ".B ldmd"
    for action in _options(parser):
        yield f"[{_option(action)}]"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(LDMD_INTRODUCTION)
    yield ".SH OPTIONS"
    for action in _options(parser):
        yield from _entry(_option(action), sentence(action.help or ""))
    yield ".SH CONFIGURATION"
    yield from _paragraphs(LDMD_CONFIGURATION)
    for part in fields(config):
        yield from _section(part.name, getattr(config, part.name))
    yield ".SH FILES"
    for path, meaning in _files(Places(Path("/"))):
        yield from _entry(bold(path), sentence(meaning))
    yield ".SH PORTS"
    first, last = config.network.data_ports
    yield from _entry(bold(f"{config.network.port}/tcp"), "The manager, for other hosts and remote clients: TLS 1.3.")
    yield from _entry(bold(f"{first}-{last}/tcp"), "Memory of domains that arrive, one port for each of them.")
    yield from _entry(bold("127.0.0.1"), "Consoles, at the ports of add-vcc; telnet, for programs on this host only.")
    yield ".SH SIGNALS"
    for signal, meaning in LDMD_SIGNALS:
        yield from _entry(bold(signal), sentence(meaning))
    yield ".SH EXIT STATUS"
    yield from _entry(bold("0"), "It was asked to stop.")
    yield from _entry(bold("1"), "It cannot start; the reason is on standard error.")
    yield from _entry(bold("2"), "The command line makes no sense.")
    yield ".SH SEE ALSO\n.BR ldm (8)"


def _head(title: str, name: str, purpose: str) -> Iterator[str]:
    yield f'.TH {title} 8 "" "ldoms" "System administration"'
    yield ".nh\n.ad l"  # names of properties stay whole
    yield f".SH NAME\n{name} \\- {purpose}"
    yield ".SH SYNOPSIS"


def _command(command: Command) -> Iterator[str]:
    also = f" Also called {', '.join(aliases(command))}." if aliases(command) else ""
    mark = " (Ours.)" if command.ours else ""
    details = f" {command.details}" if command.details else ""
    yield from _entry(_typed(command.synopsis), f"{sentence(command.summary)}{details}{also}{mark}")
    if command.options:
        yield ".RS"
        for option in command.options:
            yield from _entry(_typed(shown(option)), sentence(option.help))
        yield ".RE"


def _typed(words: str) -> str:
    """Words of a command line: what is typed as it stands in bold, what is replaced in italics."""
    parts = re.split(r"([A-Z][A-Z0-9-]+|[][|])", words)
    styles = {True: "\\fI{}\\fR", False: "\\fB{}\\fR"}
    return "".join(
        part if part in ("[", "]", "|") else styles[part[:1].isupper()].format(escape(part)) for part in parts if part
    )


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings]


def _option(action: argparse.Action) -> str:
    flags = ", ".join(bold(flag) for flag in action.option_strings)
    if action.nargs == 0:
        return flags
    return f"{flags} \\fI{action.metavar or '|'.join(action.choices or ())}\\fR"


def _section(name: str, values: Any) -> Iterator[str]:
    """A section of the configuration: what its class says about it, and each key with its default."""
    text = inspect.getdoc(type(values)) or ""
    meanings = attributes(text)
    title = text.splitlines()[0].partition(": ")[2].rstrip(".")
    yield f".SS {escape(f'[{name}]: {title}')}"
    for key in fields(values):
        default = json.dumps(getattr(values, key.name)) if key.name != "name" else "the host name"
        yield from _entry(bold(key.name), f"{sentence(meanings[key.name])} Default: {default}.")


def attributes(docstring: str) -> dict[str, str]:
    """What the section ``Attributes:`` of a docstring says about each of them."""
    found: dict[str, str] = {}
    for line in docstring.partition("Attributes:\n")[2].splitlines():
        name, colon, meaning = line.strip().partition(": ")
        if re.match(r" {4}\S", line) and colon:
            found[name] = meaning
        elif line.strip() and found:
            found[next(reversed(found))] += f" {line.strip()}"
    return found


def _files(places: Places) -> Iterator[tuple[str, str]]:
    for name, member in vars(type(places)).items():
        if isinstance(member, property) and isinstance(path := getattr(places, name), Path):
            yield str(path), inspect.getdoc(member) or ""
    yield f"{places.state}/ldoms.db", "Domains, services, who owns what, migrations, history: back it up."
    yield f"{places.state}/host.key, host.crt, trust/", "The host's key and certificate, and the hosts that it trusts."
    yield str(places.domain("UUID")), "Sockets and log of one guest."
    yield str(places.console_log("DOM")), "What the guest of a domain has said on its console."
    yield f"/etc/pam.d/{AuthConfig().pam_service}", "How passwords are checked."


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.strip().split("\n\n"):
        yield ".PP"
        yield prose(" ".join(paragraph.split()))


def _entry(term: str, meaning: str) -> Iterator[str]:
    yield f".TP\n{term}\n{prose(meaning)}"


def prose(text: str) -> str:
    """Text with ``code`` in bold and *words* in italics."""
    parts = re.split(r"``(.+?)``|\*(\w+)\*", text)
    plain, code, words = parts[0::3], parts[1::3], parts[2::3]
    styled = [bold(one) if one else f"\\fI{escape(other)}\\fR" for one, other in zip(code, words, strict=True)]
    return "".join(escape(text) + style for text, style in zip(plain, [*styled, ""], strict=True))


def bold(text: str) -> str:
    """Text in bold."""
    return f"\\fB{escape(text)}\\fR"


def escape(text: str) -> str:
    """Text that roff takes as it stands: no line of it is a command, and no character means another one."""
    escaped = "".join(_ROFF.get(character, character) for character in text)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def sentence(text: str) -> str:
    """A capital at the beginning, and a full stop at the end."""
    capital = f"{text[:1].upper()}{text[1:]}"
    return capital if capital.endswith((".", ".)")) else f"{capital}."


def write(directory: Path) -> list[Path]:
    """Write both pages below `directory`, which is made if it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    pages: dict[str, Iterable[str]] = {"ldm.8": ldm_page(), "ldmd.8": ldmd_page()}
    for name, lines in pages.items():
        (directory / name).write_text("\n".join(lines) + "\n")
    return [directory / name for name in pages]


def main() -> None:
    """Write the pages, and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m ldoms.manual", description="Write the manual pages.")
    parser.add_argument("directory", type=Path, metavar="DIR")
    for path in write(parser.parse_args().directory):
        print(path)


if __name__ == "__main__":
    main()
