"""``list-dependencies``: which domains need which, and for what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ldoms.api.client import Client
from ldoms.cli.command import Command, Option, Words
from ldoms.cli.domain import domains
from ldoms.cli.options import JSON, PARSE
from ldoms.cli.output import say_json, say_lines
from ldoms.cli.text import PARSE_VERSION, columns, record
from ldoms.model.codec import to_wire
from ldoms.model.domain import Domain
from ldoms.model.errors import NotFound
from ldoms.model.services import Services

WIDTHS = (21, 16, 15)


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a domain needs another one for.

    Attributes:
        type: ``VDISK``, ``VNET`` or ``MASTER``.
        device: ``SERVICE/DEVICE``; empty for a master.
    """

    domain: str
    provider: str
    type: str
    device: str = ""


def needs(domain: Domain, services: Services) -> Iterable[Need]:
    """What a domain needs, and of whom: disks, networks, masters."""
    disk_owners = {service.name: service.domain for service in services.disk_services}
    switch_owners = {switch.name: switch.domain for switch in services.switches}
    for disk in domain.disks:
        if disk.service in disk_owners:
            yield Need(domain.name, disk_owners[disk.service], "VDISK", f"{disk.service}/{disk.name}")
    for network in domain.networks:
        if network.switch in switch_owners:
            yield Need(domain.name, switch_owners[network.switch], "VNET", f"{network.switch}/{network.name}")
    for master in domain.constraints.masters:
        yield Need(domain.name, master, "MASTER")


def _list(client: Client, words: Words) -> int:
    everybody = [view.domain for view in domains(client)]
    names = list(words.operands) or [domain.name for domain in everybody]
    for name in names:
        if name not in {domain.name for domain in everybody}:
            raise NotFound(f"LDom {name} was not found")
    services = client.fetch(Services, "/services")
    known = [need for domain in everybody for need in needs(domain, services)]
    reverse = words.has("-r")
    found = {name: [need for need in known if (need.provider if reverse else need.domain) == name] for name in names}
    if words.has("--json"):
        say_json({name: to_wire(entries) for name, entries in found.items()})
    elif words.has("-p"):
        say_lines(_records(found, reverse=reverse, long=words.has("-l")))
    else:
        say_lines(_lines(found, reverse=reverse, long=words.has("-l")))
    return 0


def _by_other(entries: Sequence[Need], *, reverse: bool) -> Mapping[str, list[Need]]:
    others: dict[str, list[Need]] = {}
    for need in entries:
        others.setdefault(need.domain if reverse else need.provider, []).append(need)
    return others


def _lines(found: Mapping[str, Sequence[Need]], *, reverse: bool, long: bool) -> Iterable[str]:
    heading = ["DOMAIN", "DEPENDENT" if reverse else "DEPENDENCY", *(["TYPE", "DEVICE"] if long else [])]
    yield columns(WIDTHS, heading)
    for name, entries in found.items():
        rows = [
            [other, *([need.type, need.device] if long else [])]
            for other, of in _by_other(entries, reverse=reverse).items()
            for need in (of if long else of[:1])
        ]
        before = ""
        for number, (other, *rest) in enumerate(rows or [[""]]):
            # A name that is the same as in the line above is left out.
            yield columns(WIDTHS, ["" if number else name, "" if other == before else other, *rest])
            before = other


def _records(found: Mapping[str, Sequence[Need]], *, reverse: bool, long: bool) -> Iterable[str]:
    yield PARSE_VERSION
    keyword = "DEPENDENT" if reverse else "DEPENDENCY"
    for name, entries in found.items():
        yield record("DOMAIN", name=name)
        for other, of in _by_other(entries, reverse=reverse).items():
            if long:
                yield from (record(keyword, name=other, type=need.type, device=need.device) for need in of)
            else:
                yield record(keyword, name=other)


COMMANDS = (
    Command(
        "list-dependencies",
        "domain",
        "[DOM...]",
        "list which domains need which",
        _list,
        options=(
            Option("-l", "for what, too: each disk, network and master"),
            PARSE,
            Option("-r", "the other way round: who needs each domain"),
            JSON,
        ),
        details="A domain needs those that serve its disks and networks, and its masters. What the failure of a master"
        " does to its slaves is its failure-policy (ldm set-domain).",
    ),
)
