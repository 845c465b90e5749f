"""Commands that list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from ldoms.api.client import Client, part
from ldoms.cli import domain_sections as of
from ldoms.cli import policy_sections
from ldoms.cli import service_sections as services_of
from ldoms.cli.brief import DOMAIN_HEADING, domain_lines
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.domain import domains
from ldoms.cli.domain_sections import Surroundings
from ldoms.cli.health import only_broken, with_health
from ldoms.cli.options import EXTENDED, HEALTH, JSON, LONG, PARSE
from ldoms.cli.output import say_json, say_lines
from ldoms.cli.report import migration_lines, migration_records, report_lines
from ldoms.cli.text import PARSE_VERSION, Section, columns, record, show
from ldoms.model.codec import from_wire
from ldoms.model.domain import DomainView
from ldoms.model.errors import NotFound
from ldoms.model.events import CommandRecord
from ldoms.model.host import HostView
from ldoms.model.migration import MigrationReport
from ldoms.model.services import Services
from ldoms.model.sizes import MIB, format_size

Sections = Callable[[DomainView, Surroundings], Iterable[Section]]


def _services(view: DomainView, around: Surroundings, *, clients: bool) -> Iterable[Section]:
    """The services of a domain, if it is the one that has them."""
    if view.domain.is_control:
        users = around.domains if clients else ()
        yield from services_of.concentrators(around.services, users)
        yield from services_of.switches(around.services, users)
        yield from services_of.disk_services(around.services, around.domains, clients=clients)


FORMATS: dict[str, Sections] = {
    "console": lambda view, around: [
        *of.console(view),
        *(services_of.concentrators(around.services) if view.domain.is_control else ()),
    ],
    "core": lambda view, around: of.core(view),
    "cpu": lambda view, around: of.vcpu(view),
    "crypto": lambda view, around: of.crypto(view),
    "disk": lambda view, around: [
        *of.disk(view, around),
        *(services_of.disk_services(around.services, around.domains) if view.domain.is_control else ()),
    ],
    "domain": lambda view, around: [
        *of.softstate(view),
        *of.uuid(view),
        *of.hostid(view),
        *of.control(view, around),
        *of.dependency(view),
        *of.variables(view),
    ],
    "memory": lambda view, around: of.memory(view),
    "network": lambda view, around: [
        *of.mac(view),
        *of.network(view, around),
        *(services_of.switches(around.services) if view.domain.is_control else ()),
    ],
    "physio": lambda view, around: (),
    "resmgmt": lambda view, around: [*of.constraint(view), *policy_sections.policies(view)],
    "serial": lambda view, around: of.channels(view),
    "stats": lambda view, around: policy_sections.statistics(view),
    "status": lambda view, around: of.status(view),
}
FORMAT_ALIASES = {"net": "network", "mau": "crypto", "mem": "memory"}


def _long(view: DomainView, around: Surroundings, *, extended: bool) -> Iterable[Section]:
    yield from of.softstate(view)
    yield from of.uuid(view)
    yield from of.mac(view)
    yield from of.hostid(view)
    yield from of.control(view, around)
    yield from of.dependency(view)
    yield from of.core(view)
    yield from of.vcpu(view)
    yield from of.crypto(view)
    yield from of.memory(view)
    yield from of.constraint(view)
    yield from of.variables(view)
    yield from of.network(view, around)
    yield from of.disk(view, around)
    yield from _services(view, around, clients=False)
    if extended:
        yield from of.channels(view)
    yield from of.console(view)


def _bindings(view: DomainView, around: Surroundings, *, extended: bool) -> Iterable[Section]:
    yield from of.uuid(view)
    yield from of.mac(view)
    yield from of.hostid(view)
    yield from of.control(view, around)
    yield from of.dependency(view)
    yield from of.core(view)
    yield from of.vcpu(view)
    yield from of.crypto(view)
    yield from of.memory(view)
    yield from of.constraint(view)
    yield from of.variables(view)
    yield from of.network(view, around, peers=True)
    yield from of.disk(view, around)
    yield from _services(view, around, clients=True)
    if extended:
        yield from of.channels(view)
    yield from of.console(view)


def _list_domain(client: Client, words: Words) -> int:
    if words.has("--json"):
        say_json(client.get("/domains", name=list(words.operands)))
        return 0
    if not any(words.has(option) for option in ("-o", "-l", "-e")):
        say_lines(domain_lines(client.get("/domains", name=list(words.operands)), parse=words.has("-p")))
        return 0
    views = domains(client, *words.operands)
    if words.has("-o"):
        return _list_formats(client, words, views)
    extended = words.has("-e")
    return _list_long(client, words, views, lambda view, around: _long(view, around, extended=extended))


def _list_bindings(client: Client, words: Words) -> int:
    if words.has("--json"):
        say_json(client.get("/domains", name=list(words.operands)))
        return 0
    extended = words.has("-e")
    views = domains(client, *words.operands)
    return _list_long(client, words, views, lambda view, around: _bindings(view, around, extended=extended))


def _list_long(client: Client, words: Words, views: Sequence[DomainView], sections: Sections) -> int:
    around, finish = _surroundings(client), _finish(client, words)
    lines: list[str] = [PARSE_VERSION] if words.has("-p") else []
    for number, view in enumerate(views):
        shown = [finish(section) for section in sections(view, around)]
        if words.has("-p"):
            lines.append(of.domain_record(view, long=True))
            lines += [line for section in shown for line in section.records]
        else:
            lines += ["-" * 78] if number else []
            lines += [DOMAIN_HEADING, of.domain_row(view), "", *show(shown), ""]
    say_lines(lines)
    return 0


def _list_formats(client: Client, words: Words, views: Sequence[DomainView]) -> int:
    wanted = [FORMAT_ALIASES.get(name, name) for name in words.options["-o"].split(",") if name]
    for name in wanted:
        if name not in FORMATS:
            raise UsageError(f"list-domain: format {name} is not known; there are {', '.join(FORMATS)}")
    around, finish = _surroundings(client), _finish(client, words)
    lines: list[str] = [PARSE_VERSION] if words.has("-p") else []
    for view in views:
        sections = [finish(section) for name in wanted for section in FORMATS[name](view, around)]
        if words.has("-p"):
            lines += [of.domain_record(view), *(line for section in sections for line in section.records)]
        else:
            lines += ["NAME", view.domain.name, "", *show(sections), *([""] if sections else [])]
    say_lines(lines)
    return 0


def _finish(client: Client, words: Words) -> Callable[[Section], Section]:
    """What is done to each section in the end: with -S it says how the parts of the host are."""
    if not words.has("-S"):
        return lambda section: section
    host = client.fetch(HostView, "/host")
    return lambda section: with_health(section, host)


def _surroundings(client: Client) -> Surroundings:
    everybody = domains(client)
    features = client.get("/host")["facts"]["hypervisor"]["cpu_features"]
    return Surroundings(client.fetch(Services, "/services"), [view.domain for view in everybody], features)


def _list_services(client: Client, words: Words) -> int:
    services = client.fetch(Services, "/services")
    if words.has("--json"):
        say_json(client.get("/services"))
        return 0
    everybody = [view.domain for view in domains(client)]
    known = {domain.name: domain for domain in everybody}
    for name in words.operands:
        if name not in known:
            raise NotFound(f"LDom {name} was not found")
    sections: list[Section] = []
    if not words.operands or any(known[name].is_control for name in words.operands):
        sections = [
            *services_of.concentrators(services, owner=True),
            *services_of.switches(services, owner=True),
            *services_of.disk_services(services, everybody, owner=True),
        ]
    if words.has("-p"):
        say_lines([PARSE_VERSION, *(line for section in sections for line in section.records)])
    else:
        say_lines(show(sections))
    return 0


def _list_devices(client: Client, words: Words) -> int:
    host = client.fetch(HostView, "/host")
    if words.has("--json"):
        say_json(client.get("/host"))
        return 0
    broken = words.has("-B")
    everything = words.has("-a") or broken
    known = {"core": _cores, "cpu": _strands, "memory": _memory, **dict.fromkeys(_NOT_HERE, _nothing)}
    wanted = [_KIND_ALIASES.get(name, name) for name in words.operands] or ["core", "cpu", "memory"]
    for name in wanted:
        if name not in known:
            raise UsageError(f"list-devices: there is no kind of device {name}; there are {', '.join(known)}")
    shown = only_broken(host) if broken else host
    sections = [section for name in wanted for section in known[name](shown, everything)]
    if words.has("-S") or broken:
        sections = [with_health(section, host) for section in sections]
    if words.has("-p"):
        say_lines([PARSE_VERSION, *(line for section in sections for line in section.records)])
    else:
        say_lines(show(sections))
    return 0


def _cores(host: HostView, everything: bool) -> Iterable[Section]:
    lines, records = [columns((7, 7), ["ID", "%FREE", "CPUSET"])], ["CORE"]
    for number in sorted({strand.core for strand in host.strands}):
        members = [strand for strand in host.strands if strand.core == number]
        free = 100 * sum(1 for strand in members if not strand.holder) // len(members)
        if free == 100 or everything:
            numbers = [str(strand.strand) for strand in members]
            lines.append(columns((7, 7), [number, free, f"({', '.join(numbers)})"]))
            records.append(record("", id=number, free=free, cpuset=",".join(numbers)))
    if host.strands:
        yield Section("CORE", lines, records)


def _strands(host: HostView, everything: bool) -> Iterable[Section]:
    lines, records = [columns((7, 7), ["PID", "%FREE", "PM"])], ["VCPU"]
    for strand in host.strands:
        if not strand.holder or everything:
            free, managed = (0, "no") if strand.holder else (100, "---")
            lines.append(columns((7, 7), [strand.strand, free, managed]))
            records.append(record("", pid=strand.strand, free=free, pm=managed))
    if host.strands:
        yield Section("VCPU", lines, records)


def _memory(host: HostView, everything: bool) -> Iterable[Section]:
    heading = ["PA", "SIZE", "BOUND"] if everything else ["PA", "SIZE"]
    lines, records = [columns((20, 15), heading)], ["MEMORY"]
    for block in host.memory:
        if not block.holder or everything:
            address, size = hex(block.address_mib * MIB), block.size_mib * MIB
            lines.append(columns((20, 15), [address, format_size(size), block.holder]))
            bound = {"bound": block.holder} if block.holder else {}
            records.append(record("", pa=address, size=size, **bound))
    if host.memory:
        yield Section("MEMORY", lines, records)


_KIND_ALIASES = {"mem": "memory"}
_NOT_HERE = ("io", "crypto", "mau", "cmi")
"""Kinds of devices that only SPARC has, or that are not assigned here."""


def _nothing(host: HostView, everything: bool) -> Iterable[Section]:
    return ()


def _list_history(client: Client, words: Words) -> int:
    if words.options.get("-o", "migration") != "migration":
        raise UsageError("list-history: the only format is migration")
    if words.operands:
        path = f"/migrations/{part(words.operands[0])}"
        report = client.fetch(MigrationReport, path)
        if words.has("--json"):
            say_json(client.get(path))
        else:
            say_lines(migration_records([report]) if words.has("-p") else report_lines(report))
        return 0
    path = "/migrations" if words.has("-o") else "/history"
    data = client.get(path)
    if words.has("--json"):
        say_json(data)
    elif words.has("-o"):
        reports = [from_wire(MigrationReport, entry) for entry in data]
        say_lines(migration_records(reports) if words.has("-p") else migration_lines(reports))
    else:
        commands = [from_wire(CommandRecord, entry) for entry in data]
        say_lines(command_records(commands) if words.has("-p") else command_lines(commands))
    return 0


_RESULTS = {True: "ok", False: "failed", None: "begun"}


def command_lines(commands: Sequence[CommandRecord]) -> Iterable[str]:
    """The history for people."""
    for entry in commands:
        at = datetime.fromtimestamp(entry.at).strftime("%b %d %H:%M:%S")
        yield f"{at} {entry.user:<8} {_RESULTS[entry.succeeded]:<6} ldm {_on_a_line(entry.command)}"


def command_records(commands: Sequence[CommandRecord]) -> Iterable[str]:
    """The history for programs."""
    yield PARSE_VERSION
    for entry in commands:
        result = _RESULTS[entry.succeeded]
        yield record("COMMAND", time=int(entry.at), user=entry.user, result=result, command=_on_a_line(entry.command))


def _on_a_line(command: str) -> str:
    """A command as one line, whatever its words have in them."""
    return command.replace("\n", "\\n").replace("\r", "\\r")


COMMANDS = (
    Command(
        "list-domain",
        "domain",
        "[DOM...]",
        "list domains",
        _list_domain,
        options=(
            EXTENDED,
            LONG,
            HEALTH,
            Option("-o", "print only these parts", "FORMAT[,FORMAT...]", tuple(FORMATS)),
            PARSE,
            JSON,
        ),
        details=f"The formats are {', '.join(FORMATS)}. The STATUS section of format status is there as long as the"
        " domain takes part in a migration, on both hosts.",
    ),
    Command(
        "list-bindings",
        "bindings",
        "[DOM...]",
        "list what domains are given, and who is connected to whom",
        _list_bindings,
        options=(EXTENDED, PARSE, JSON),
        details="It is list-domain -l with the other end of each connection: whose disk is on a volume, which"
        " domains are on a switch.",
    ),
    Command(
        "list-services",
        "services",
        "[DOM...]",
        "list virtual services",
        _list_services,
        options=(EXTENDED, PARSE, JSON),
    ),
    Command(
        "list-devices",
        "devices",
        "[KIND...]",
        "list strands and memory that are free",
        _list_devices,
        options=(
            Option("-a", "those that are taken, too"),
            Option("-B", "those that are broken, free or not"),
            Option("-S", "say of each how it is"),
            PARSE,
            JSON,
        ),
        details="KIND is core, cpu, memory, io, crypto or mau, or cmi; the last four are empty here. With -S"
        " a strand is ok, or fault if the kernel does not use its CPU; memory is ok, or unknown if the kernel has found"
        " that some of it is broken.",
    ),
    Command(
        "list-history",
        "history",
        "[ID]",
        "list commands that have changed something, or migrations",
        _list_history,
        options=(Option("-o", "list migrations, not commands (ours)", "migration", ("migration",)), PARSE, JSON),
        details="Commands are shown as they were typed, quoted for a shell. One is ok, has failed, or is begun: what it"
        " has begun is still under way. With an ID, or the beginning of one, the report of that migration is printed.",
    ),
)
