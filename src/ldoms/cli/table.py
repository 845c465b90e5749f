"""All commands, and the many names by which LDoms calls them."""

from __future__ import annotations

from collections.abc import Mapping

from ldoms.cli import (
    configuration,
    console,
    constraints,
    crypto,
    dependencies,
    disk,
    domain,
    limits,
    listing,
    logctl,
    memory,
    migrate,
    netdev,
    network,
    panic,
    platform,
    policy,
    stop,
    vcpu,
)
from ldoms.cli.command import Command, UsageError

COMMANDS: tuple[Command, ...] = (
    *listing.COMMANDS,
    *domain.COMMANDS,
    *stop.COMMANDS,
    *panic.COMMANDS,
    *dependencies.COMMANDS,
    *vcpu.COMMANDS,
    *memory.COMMANDS,
    *crypto.COMMANDS,
    *policy.COMMANDS,
    *disk.COMMANDS,
    *network.COMMANDS,
    *netdev.COMMANDS,
    *console.COMMANDS,
    *migrate.COMMANDS,
    *limits.COMMANDS,
    *logctl.COMMANDS,
    *platform.COMMANDS,
    *configuration.COMMANDS,
    *constraints.COMMANDS,
)

VERBS: Mapping[str, str] = {"ls": "list", "rm": "remove"}
NOUNS: Mapping[str, str] = {
    "config": "spconfig",
    "dom": "domain",
    "mau": "crypto",
    "mem": "memory",
    "ndpsldcc": "vdpcc",
    "ndpsldcs": "vdpcs",
    "var": "variable",
    "vconscon": "vcc",
    "vconsole": "vcons",
    "vdiskserver": "vds",
    "vdiskserverdevice": "vdsdev",
    "vswitch": "vsw",
}
WHOLE: Mapping[str, str] = {
    "bind": "bind-domain",
    "cancel-op": "cancel-operation",
    "create": "add-domain",
    "destroy": "remove-domain",
    "history": "list-history",
    "list": "list-domain",
    "ls": "list-domain",
    "migrate": "migrate-domain",
    "modify": "set-domain",
    "panic": "panic-domain",
    "start": "start-domain",
    "stop": "stop-domain",
    "unbind": "unbind-domain",
}


def canonical(name: str) -> str:
    """The name of a command for any of its aliases; what is no alias stays as it is."""
    if name in WHOLE:
        return WHOLE[name]
    verb, separator, noun = name.partition("-")
    return f"{VERBS.get(verb, verb)}{separator}{NOUNS.get(noun, noun)}"


def aliases(command: Command) -> tuple[str, ...]:
    """Other names of a command, shortest first."""
    verb, _, noun = command.name.partition("-")
    verbs = [verb, *(short for short, long in VERBS.items() if long == verb)]
    nouns = [noun, *(short for short, long in NOUNS.items() if long == noun)]
    combined = {f"{one}-{other}" for one in verbs for other in nouns if noun} - {command.name}
    whole = {short for short, long in WHOLE.items() if long == command.name}
    return tuple(sorted(combined | whole, key=lambda name: (len(name), name)))


def find(name: str) -> Command:
    """The command of that name or alias.

    Raises:
        UsageError: there is none.
    """
    wanted = canonical(name)
    for command in COMMANDS:
        if command.name == wanted:
            return command
    raise UsageError(f"there is no command {name}; 'ldm --help' lists them")
