"""Commands about domains: their life, properties, variables and consoles."""

from __future__ import annotations

from collections.abc import Callable

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.description import FROM_FILE, need_operand, use_file
from ldoms.cli.options import FORCE, JSON
from ldoms.cli.output import complain, say, say_json
from ldoms.model.boot import BOOT_DEVICE, boot_positions
from ldoms.model.codec import from_wire
from ldoms.model.dependencies import start_order
from ldoms.model.domain import Domain, DomainState, DomainView
from ldoms.model.errors import LdomsError, NotFound
from ldoms.model.identity import CONTROL_DOMAIN

PROPERTIES = (
    *("cpu-arch", "mac-addr", "hostid", "failure-policy", "extended-mapin-space", "boot-policy", "master"),
    *("shutdown-group", "rc-add-policy", "perf-counters", "max-cores", "threading"),
)
ALL = Option("-a", "all guest domains to which it applies")


def domains(client: Client, *names: str) -> tuple[DomainView, ...]:
    """The domains of those names, or all."""
    return tuple(from_wire(DomainView, view) for view in client.get("/domains", name=list(names)))


def _add(client: Client, words: Words) -> int:
    if words.has("-i"):
        use_file(client, "add", words)
        return 0
    need_operand(words, "add-domain")
    if len(words.operands) > 1 and words.properties:
        raise UsageError("add-domain: properties can be given for one domain at a time")
    for name in words.operands:
        client.post("/domains", {"name": name, "properties": dict(words.properties)})
    return 0


def _set(client: Client, words: Words) -> int:
    if words.has("-i"):
        use_file(client, "set", words)
        return 0
    need_operand(words, "set-domain")
    if not words.properties:
        raise UsageError("set-domain: give at least one property")
    client.patch(f"/domains/{part(words.operands[0])}", {"properties": dict(words.properties)})
    return 0


def _remove(client: Client, words: Words) -> int:
    return _each(client, words, DomainState.INACTIVE, lambda name: client.delete(f"/domains/{part(name)}"))


def _bind(client: Client, words: Words) -> int:
    if words.has("-i"):
        use_file(client, "bind", words, **({"quick": True} if words.has("-q") else {}))
        return 0
    need_operand(words, "bind-domain")
    client.post(f"/domains/{part(words.operands[0])}/bind", {"quick": True} if words.has("-q") else {})
    return 0


def _unbind(client: Client, words: Words) -> int:
    client.post(f"/domains/{part(words.operands[0])}/unbind")
    return 0


def _start(client: Client, words: Words) -> int:
    if words.has("-i"):
        for name in use_file(client, "start", words):
            say(f"LDom {name} started")
        return 0

    if words.has("-m"):
        complain("Notice: -m means nothing on this platform: domains are started as without it")

    def start(name: str) -> None:
        client.post(f"/domains/{part(name)}/start", {"force": words.has("-f")})
        say(f"LDom {name} started")

    return _each(client, words, DomainState.BOUND, start)


def chosen(client: Client, words: Words, applies_to: DomainState) -> tuple[list[str], list[Domain]]:
    """The domains that a command is about: those named, or with -a all guest domains in a state.

    Returns:
        Their names as they were given, and those that are known.
    """
    names = list(words.operands)
    if names and words.has("-a"):
        raise UsageError("name domains, or use -a, not both")
    if not names and not words.has("-a"):
        raise UsageError("name a domain, or use -a")
    if len(names) == 1:
        return names, []
    views = [view for view in domains(client) if view.domain.name != CONTROL_DOMAIN]
    if words.has("-a"):
        found = [view.domain for view in views if view.status.state is applies_to]
        return [domain.name for domain in found], found
    return names, [view.domain for view in views if view.domain.name in names]


def _each(client: Client, words: Words, applies_to: DomainState, work: Callable[[str], object]) -> int:
    """Do `work` for each domain, masters before their slaves; a failure does not stop the others."""
    names, known = chosen(client, words, applies_to)
    ordered = [domain.name for domain in start_order(known)]
    status = 0
    for name in [*ordered, *(name for name in names if name not in ordered)]:
        try:
            work(name)
        except LdomsError as error:
            complain(error.message)
            status = 1
    return status


def _set_variables(client: Client, words: Words) -> int:
    *pairs, name = words.operands
    values = {}
    for pair in pairs:
        variable, separator, value = pair.partition("=")
        if not separator:
            raise UsageError(f"'{pair}' is not of the form NAME=VALUE")
        values[variable] = value
    answer = client.put(f"/domains/{part(name)}/variables", {"values": values})
    if values.get(BOOT_DEVICE) and answer is not None:
        for word in boot_positions(from_wire(Domain, answer))[1]:
            complain(f"warning: LDom {name} has no device {word}: it is passed over at the start")
    return 0


def _remove_variables(client: Client, words: Words) -> int:
    *variables, name = words.operands
    client.delete(f"/domains/{part(name)}/variables", variable=variables)
    return 0


def _list_variables(client: Client, words: Words) -> int:
    *wanted, name = words.operands
    known = dict(domains(client, name)[0].domain.variables)
    for variable in wanted:
        if variable not in known:
            raise NotFound(f"Variable {variable} was not found in LDom {name}")
    shown = {variable: known[variable] for variable in (wanted or known)}
    if words.has("--json"):
        say_json(shown)
    else:
        for variable, value in shown.items():
            say(f"{variable}={value}")
    return 0


COMMANDS = (
    Command(
        "add-domain",
        "domain",
        "[DOM...]",
        "make an inactive domain",
        _add,
        options=(FROM_FILE,),
        properties=(*PROPERTIES, "uuid"),
        details="The domain has a UUID, a MAC address and a host id from the beginning, and nothing else."
        " cpu-arch=native gives it the best CPU of the host, generic one that any host of the last decade has."
        " max-cores= says on how many cores its virtual CPUs may be (unlimited: on any number). With"
        " threading=max-ipc a virtual CPU has a whole core for itself, with max-throughput a strand of one."
        " master= names up to four domains that it depends on, with commas between. failure-policy,"
        " shutdown-group and what only SPARC has (extended-mapin-space, boot-policy, rc-add-policy, perf-counters) are"
        " kept and shown, and have no effect.",
    ),
    Command(
        "set-domain",
        "domain",
        "[DOM]",
        "change properties of a domain",
        _set,
        options=(FROM_FILE,),
        properties=PROPERTIES,
        details="They are those of add-domain; of a file, only the properties in ldom_info count. An empty value clears"
        " one. cpu-arch and threading can only be changed while the"
        " domain is not bound.",
    ),
    Command(
        "remove-domain",
        "domain",
        "[DOM...]",
        "remove inactive domains",
        _remove,
        options=(ALL,),
        details="Only the description goes: its volumes, and what is on them, stay, and so does the log of its console"
        " (/var/lib/ldoms/consoles/DOM), until another domain is made with that name.",
    ),
    Command(
        "bind-domain",
        "domain",
        "[DOM]",
        "reserve what a domain asks for",
        _bind,
        options=(FROM_FILE, FORCE, Option("-q", "do not look at the back ends of its disks now, only at the start")),
        details="With -i, the domains of the file are made first."
        " CPUs and memory are taken out of what is free, the console gets a port, and the machine that the"
        " guest will see is fixed: its type, its CPU, and the place of each device.",
    ),
    Command(
        "unbind-domain",
        "domain",
        "DOM",
        "give back what was reserved",
        _unbind,
        details="The domain must be stopped. It is inactive afterwards, and the next bind-domain may give it other"
        " strands, another console port and, after an upgrade of QEMU, another machine.",
    ),
    Command(
        "start-domain",
        "domain",
        "[DOM...]",
        "start bound domains",
        _start,
        options=(
            ALL,
            FROM_FILE,
            Option("-f", "let a complete copy run here whose source host is lost for good (ours)"),
            Option("-m", "accepted for scripts of LDoms; it changes nothing here, and says so"),
        ),
        details="With -i, the domains of the file are made and bound first."
        " Several domains are started one after the other: masters before their slaves, lower shutdown groups"
        " before higher ones. One that cannot be started does not stop the others. auto-boot?=false does not keep a"
        " domain from being started by this command. With -f, a domain that has arrived completely but was never"
        " handed over runs on this host. Use it only when the source is lost for good: otherwise the guest may run"
        " twice and destroy its disks.",
    ),
    Command(
        "add-variable",
        "variable",
        "NAME=VALUE... DOM",
        "add boot variables",
        _set_variables,
        free_properties=True,
        details="boot-file and boot-initrd name a kernel and an initial RAM disk to boot directly, with the arguments"
        " of boot-args (ours); without boot-file the firmware (BIOS) boots from what boot-device names, in"
        " its order, then from the other disks, lowest id first. The files are those of the host; for a"
        " migration the target must have the same ones under the same paths. A variable that is there already is"
        " changed."
        " NAME=VALUE is one word: quote values that have blanks.",
    ),
    Command(
        "set-variable",
        "variable",
        "NAME=VALUE... DOM",
        "set boot variables",
        _set_variables,
        free_properties=True,
        details="They count from the next start on. Those of add-variable have an effect; all others, such as"
        " nvramrc, are kept and shown. boot-device names disks and networks as disk0 and net0, as vdisk0 and vnet0"
        " (their names here), or as OpenBoot's paths (/virtual-devices@100/channel-devices@200/disk@0:a); a network"
        " boots by iPXE, which asks a DHCP server. auto-boot?=true starts the domain at power-on if it is bound.",
    ),
    Command("remove-variable", "variable", "VARIABLE... DOM", "remove boot variables", _remove_variables),
    Command("list-variable", "variable", "[VARIABLE...] DOM", "list boot variables", _list_variables, options=(JSON,)),
)
