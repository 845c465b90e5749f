"""Commands about resource management policies."""

from __future__ import annotations

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, UsageError, Words

PROPERTIES = (
    *("enable", "priority", "attack", "decay", "elastic-margin", "sample-rate", "tod-begin", "tod-end"),
    *("util-lower", "util-upper", "vcpu-min", "vcpu-max", "name"),
)


def _add(client: Client, words: Words) -> int:
    properties = dict(words.properties)
    name = properties.pop("name", "")
    if not name:
        raise UsageError("add-policy: give the policy a name (name=POLICY)")
    for domain in words.operands:
        client.post(f"/domains/{part(domain)}/policies", {"name": name, "properties": properties})
    return 0


def _set(client: Client, words: Words) -> int:
    properties, domains = dict(words.properties), list(words.operands)
    name = properties.pop("name", "") or domains.pop(0)
    if not domains:
        raise UsageError("set-policy: too few operands")
    if not properties:
        raise UsageError("set-policy: give at least one property")
    for domain in domains:
        client.patch(f"/domains/{part(domain)}/policies/{part(name)}", {"properties": properties})
    return 0


def _remove(client: Client, words: Words) -> int:
    *names, domain = words.operands
    names = [name.removeprefix("name=") for name in names]
    client.delete(f"/domains/{part(domain)}/policies", policy=names)
    return 0


_DETAILS = (
    "A policy that is enabled (enable=yes, no if not given) counts from tod-begin to tod-end, each hh:mm[:ss]; of"
    " several the one with the lowest priority= (1 to 9999, 99). Each sample-rate= seconds (10) the use of the domain's"
    " virtual CPUs is measured: above util-upper= percent (85) some are added, at most attack= (unlimited) at a time,"
    " below util-lower= (60) some are taken away, at most decay= (1), as long as the others then stay elastic-margin="
    " percent (5) below util-upper. There are never fewer than vcpu-min= (2) nor more than vcpu-max= (unlimited), and"
    " only strands that are free are added. It pauses while other work, such as a migration, holds the domain."
    " 'ldm list -o resmgmt' shows policies, 'ldm list -o stats' what they have done."
)

COMMANDS = (
    Command(
        "add-policy",
        "policy",
        "DOM...",
        "let the number of virtual CPUs follow the load",
        _add,
        properties=PROPERTIES,
        details=_DETAILS,
    ),
    Command(
        "set-policy",
        "policy",
        "[POLICY] DOM...",
        "change a policy",
        _set,
        properties=PROPERTIES,
        details="The policy is the first operand, or name=POLICY. An empty value is the default. " + _DETAILS,
    ),
    Command(
        "remove-policy",
        "policy",
        "POLICY... DOM",
        "remove policies",
        _remove,
        details="POLICY is the name of a policy, or name=POLICY.",
        free_properties=True,
    ),
)
