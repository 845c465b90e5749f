"""``list-constraints`` and ``init-system``: what domains ask for, and a host made of a description."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ldoms.api.client import Client
from ldoms.cli import domain_sections as of
from ldoms.cli import service_sections as services_of
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.description import FROM_FILE, use_file
from ldoms.cli.domain import domains
from ldoms.cli.domain_sections import Surroundings
from ldoms.cli.options import EXTENDED, JSON, PARSE
from ldoms.cli.output import complain, say_json, say_lines
from ldoms.cli.text import PARSE_VERSION, Section, record, show
from ldoms.model.domain import DomainView
from ldoms.model.services import Services

_OF_THE_MOMENT = ("bindings", "started_at", "order")
"""Fields of a domain that are given, not asked for."""


def _list(client: Client, words: Words) -> int:
    names = list(words.operands)
    if words.has("-x"):
        if words.has("-p") or words.has("-e"):
            raise UsageError("list-constraints: -x stands alone")
        say_lines(client.get("/constraints", name=names)["xml"].splitlines())
        return 0
    if words.has("--json"):
        views = client.get("/domains", name=names)
        say_json([{k: v for k, v in view["domain"].items() if k not in _OF_THE_MOMENT} for view in views])
        return 0
    around = Surroundings(client.fetch(Services, "/services"), [view.domain for view in domains(client)])
    lines = [PARSE_VERSION] if words.has("-p") else []
    for number, view in enumerate(domains(client, *names)):
        sections = list(_sections(view, around, extended=words.has("-e")))
        if words.has("-p"):
            lines += [line for section in sections for line in section.records]
        else:
            lines += ["-" * 78] if number else []
            lines += [*show(sections), ""]
    say_lines(lines)
    return 0


def _sections(view: DomainView, around: Surroundings, *, extended: bool) -> Iterable[Section]:
    """What a domain asks for, whether it has it or not."""
    asked = replace(view, domain=replace(view.domain, bindings=None))
    yield Section("DOMAIN", [view.domain.name], [record("DOMAIN", name=view.domain.name)])
    for section in (of.uuid, of.mac, of.hostid, of.control, of.dependency, of.vcpu, of.crypto, of.memory, of.variables):
        yield from section(asked)
    if view.domain.constraints.whole_core or view.domain.constraints.max_cores:
        yield from of.constraint(asked)
    if view.domain.is_control:
        yield from services_of.concentrators(around.services)
        yield from services_of.switches(around.services)
        yield from services_of.disk_services(around.services, around.domains)
    yield from of.network(asked, around)
    yield from of.disk(asked, around)
    if extended:
        yield from of.channels(asked)
    for console in of.console(asked):
        yield replace(console, heading="VCONSOLE")


def _init(client: Client, words: Words) -> int:
    if not words.has("-i"):
        raise UsageError("init-system: give the file with -i")
    use_file(client, "init", words, force=words.has("-f"), services_only=words.has("-s"))
    if words.has("-r"):
        complain("Notice: nothing needs a reboot: every change was made at once")
    return 0


COMMANDS = (
    Command(
        "list-constraints",
        "constraints",
        "[DOM...]",
        "list what domains ask for",
        _list,
        options=(Option("-x", "print XML, as add-domain -i and init-system read it"), EXTENDED, PARSE, JSON),
        details="Without DOM, -x writes all domains and the services of the host. What LDoms has no element for is"
        " written as a property of our own. UUID and MAC addresses are written, too: take them out of a description"
        " that is to make another domain.",
    ),
    Command(
        "init-system",
        "constraints",
        "",
        "make of this host what an XML file describes",
        _init,
        options=(
            FROM_FILE,
            Option("-f", "although something was made of the host before; what is there already stays as it is"),
            Option("-r", "accepted for scripts of LDoms; nothing needs a reboot here"),
            Option("-s", "make only virtual disk services, switches and console concentrators"),
        ),
        details="Services are made, primary gets the CPUs and the memory that the file says, and domains are made,"
        " inactive. All of it or nothing.",
    ),
)
