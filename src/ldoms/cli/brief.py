"""``ldm list`` and ``ldm list -p``, as they are typed and polled the most: with as little to import as can be.

The rows are made from the manager's answer as it is, without values of the model. Whatever is out of the ordinary is
left to the long way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence

from ldoms.api.exchange import DEFAULT_SOCKET, SOCKET_VARIABLE, connect, exchange
from ldoms.cli.columns import PARSE_VERSION, columns, percent, record
from ldoms.model.sizes import MIB, format_size, format_uptime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAMES = frozenset(("list", "ls", "list-domain", "ls-domain", "list-dom", "ls-dom"))
DOMAIN_WIDTHS = (16, 10, 7, 7, 5, 8, 5, 5)
DOMAIN_HEADING = columns(DOMAIN_WIDTHS, ["NAME", "STATE", "FLAGS", "CONS", "VCPU", "MEMORY", "UTIL", "NORM", "UPTIME"])
CONTROL_CONSOLE = "UART"


def domain_row(view: Mapping[str, Any]) -> str:
    """One line of ``ldm list``, of a domain's view as it comes over the wire."""
    domain, status = view["domain"], view["status"]
    memory, uptime = memory_mib(domain) * MIB, status.get("uptime_s")
    return columns(
        DOMAIN_WIDTHS,
        [
            domain["name"],
            status["state"],
            status["flags"],
            console(domain),
            domain["constraints"]["vcpus"] or "",
            format_size(memory) if memory else "",
            percent(status.get("utilisation")),
            percent(normalised(status)),
            "" if uptime is None else format_uptime(uptime),
        ],
    )


def domain_record(view: Mapping[str, Any], flags: str | None = None) -> str:
    """One line of ``ldm list -p``; `flags` are in place of the letters."""
    domain, status = view["domain"], view["status"]
    share, norm, uptime = status.get("utilisation"), normalised(status), status.get("uptime_s")
    return record(
        "DOMAIN",
        name=domain["name"],
        state=status["state"],
        flags=status["flags"] if flags is None else flags,
        cons=console(domain),
        ncpu=domain["constraints"]["vcpus"] or "",
        mem=memory_mib(domain) * MIB or "",
        util="" if share is None else f"{share:.1f}",
        uptime="" if uptime is None else int(uptime),
    ) + ("|norm_util=" if norm is None else f"|norm_util={norm:.1f}")


def domain_lines(views: Iterable[Mapping[str, Any]], *, parse: bool) -> list[str]:
    """All of ``ldm list``, or of ``ldm list -p``."""
    if parse:
        return [PARSE_VERSION, *map(domain_record, views)]
    return [DOMAIN_HEADING, *map(domain_row, views)]


def normalised(status: Mapping[str, Any]) -> float | None:
    """The use of CPU at full speed; an older manager does not tell it."""
    norm: float | None = status.get("norm_utilisation")
    return status.get("utilisation") if norm is None else norm


def memory_mib(domain: Mapping[str, Any]) -> int:
    """What a bound domain has, and what another one asks for."""
    if domain["bindings"]:
        return sum(block["size_mib"] for block in domain["bindings"]["memory"])
    return int(domain["constraints"]["memory_mib"])


def console(domain: Mapping[str, Any]) -> str:
    """The port of the console, if there is one."""
    if domain["name"] == "primary":
        return CONTROL_CONSOLE
    return str(domain["bindings"]["console_port"]) if domain["bindings"] else ""


def list_briefly(words: Sequence[str]) -> list[str] | None:
    """The lines for a command line; None if it is not that simple, or something is wrong."""
    if not words or words[0] not in NAMES:
        return None
    parse = words[1:2] == ["-p"]
    names = words[2:] if parse else words[1:]
    if not all(name.isascii() and name.replace("-", "").isalnum() and name[0] != "-" for name in names):
        return None
    query = "&".join(f"name={name}" for name in names)
    try:
        connection = connect(os.environ.get(SOCKET_VARIABLE, "") or DEFAULT_SOCKET)
        typed = {"X-Ldm-Command": "list-domain"}
        with exchange(connection, "GET", f"/domains?{query}" if query else "/domains", typed) as answer:
            if answer.status != 200:
                return None
            views: Any = answer.json()
            _tell(answer.notice)
        return domain_lines(views, parse=parse)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tell(notice: str) -> None:
    """Print what the manager wants whoever typed the command to know, if there is anything."""
    if notice:
        from urllib.parse import unquote

        sys.stderr.write(f"{unquote(notice)}\n")


def main(words: Sequence[str]) -> bool:
    """Do what `words` ask for, if that is simple; otherwise nothing is printed."""
    lines = list_briefly(words)
    if lines is None:
        return False
    sys.stdout.write("\n".join([*lines, ""]))
    return True
