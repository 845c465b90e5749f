"""Commands about virtual CPUs."""

from __future__ import annotations

from functools import partial

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, UsageError, Words


def _vcpu(action: str, client: Client, words: Words) -> int:
    number, name = words.operands
    if not number.isdecimal():
        raise UsageError(f"'{number}' is not a number of virtual CPUs")
    client.put(f"/domains/{part(name)}/vcpus", {"action": action, "amount": int(number)})
    return 0


_VCPU_DETAILS = (
    "A virtual CPU is a strand: a share of a host CPU, or all of it. The control domain, primary, owns all strands at"
    " first; what is taken from it is free for guests. For primary the change counts at once; a guest domain must"
    " not be active."
)


COMMANDS = (
    Command(
        "add-vcpu",
        "vcpu",
        "NUMBER DOM",
        "give a domain more virtual CPUs",
        partial(_vcpu, "add"),
        details=_VCPU_DETAILS,
    ),
    Command(
        "set-vcpu",
        "vcpu",
        "NUMBER DOM",
        "set the number of virtual CPUs of a domain",
        partial(_vcpu, "set"),
        details=_VCPU_DETAILS,
    ),
    Command(
        "remove-vcpu",
        "vcpu",
        "NUMBER DOM",
        "take virtual CPUs from a domain",
        partial(_vcpu, "remove"),
        details=_VCPU_DETAILS,
    ),
)
