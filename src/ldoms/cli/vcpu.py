"""Commands about virtual CPUs and cores."""

from __future__ import annotations

from functools import partial
from typing import Any

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.options import FORCE
from ldoms.model.errors import RequestError

MAX_DIGITS = 9


def _vcpu(action: str, client: Client, words: Words) -> int:
    number, name = words.operands
    noun = "cores" if words.has("-c") else "vcpus"
    amount = _amount(number, "cores" if words.has("-c") else "virtual CPUs")
    client.put(f"/domains/{part(name)}/{noun}", {"action": action, "amount": amount})
    return 0


def _core(action: str, client: Client, words: Words) -> int:
    if words.has("-g") or words.has("-n"):
        raise _not_here(f"{action}-core -g", "a host is one group of resources here; give a number of cores")
    body: dict[str, Any] = {"action": action}
    if "cid" in words.properties:
        if len(words.operands) != 1:
            raise UsageError(f"{action}-core: with cid= give a domain, and no number")
        body["core_ids"] = _core_ids(action, words.properties["cid"])
    elif len(words.operands) != 2:
        raise UsageError(f"{action}-core: give a number of cores, or cid=, and a domain")
    else:
        body["amount"] = _amount(words.operands[0], "cores")
    client.put(f"/domains/{part(words.operands[-1])}/cores", body)
    return 0


def _core_ids(action: str, text: str) -> list[int]:
    """Read ``0,2,5``; only set-core may name no core."""
    if not text and action == "set":
        return []
    numbers = text.split(",")
    if not all(number.isdecimal() and number.isascii() and len(number) <= MAX_DIGITS for number in numbers):
        raise UsageError(f"cid={text} names no cores: write their numbers with commas between, such as cid=0,1")
    return [int(number) for number in numbers]


def _amount(number: str, what: str) -> int:
    if not number.isdecimal():
        raise UsageError(f"'{number}' is not a number of {what}")
    if len(number.lstrip("0")) > MAX_DIGITS:
        raise UsageError(f"{number} {what} are more than any host has")
    return int(number)


def _not_here(what: str, why: str) -> RequestError:
    return RequestError(f"{what} is not supported on this platform: {why}", code="not-supported")


_VCPU_DETAILS = (
    "A virtual CPU is a strand: a share of a host CPU, or all of it. The control domain, primary, owns all strands at"
    " first; what is taken from it is free for guests, at once. The guest of an active domain takes new ones into use"
    " through its agent, or by itself, and gives some back through its agent; the first one always stays. If it does"
    " only a part, the command says how much, and its status is 1."
)
_CORE_DETAILS = (
    "A core is a host CPU with all its strands. A domain that was given cores shares none with another domain (the"
    " whole-core constraint), and can then be changed by cores only; 'ldm set-vcpu' on the inactive domain takes the"
    " constraint away. cid=CORE[,CORE...] names the cores that it is to have; 'ldm list-devices -a core' lists them. As"
    " long as a domain has cores that were named, they are changed by name only. 'ldm set-core cid= DOM' ends that: the"
    " domain keeps as many cores as it has, and may be given others when it is bound again. The virtual CPUs of a guest"
    " that runs move to the cores that are named."
)
_CORES = Option("-c", "count cores, as set-core does")

COMMANDS = (
    Command(
        "add-vcpu",
        "vcpu",
        "NUMBER DOM",
        "give a domain more virtual CPUs",
        partial(_vcpu, "add"),
        options=(_CORES,),
        details=_VCPU_DETAILS,
    ),
    Command(
        "set-vcpu",
        "vcpu",
        "NUMBER DOM",
        "set the number of virtual CPUs of a domain",
        partial(_vcpu, "set"),
        options=(_CORES,),
        details=_VCPU_DETAILS,
    ),
    Command(
        "remove-vcpu",
        "vcpu",
        "NUMBER DOM",
        "take virtual CPUs from a domain",
        partial(_vcpu, "remove"),
        options=(_CORES, FORCE),
        details=_VCPU_DETAILS,
    ),
    Command(
        "add-core",
        "core",
        "[NUMBER] DOM",
        "give a domain more whole cores",
        partial(_core, "add"),
        properties=("cid",),
        details=_CORE_DETAILS,
    ),
    Command(
        "set-core",
        "core",
        "[NUMBER] DOM",
        "set the number of whole cores of a domain",
        partial(_core, "set"),
        properties=("cid",),
        details=_CORE_DETAILS,
    ),
    Command(
        "remove-core",
        "core",
        "[NUMBER] DOM",
        "take whole cores from a domain",
        partial(_core, "remove"),
        options=(
            FORCE,
            Option("-g", "not here: a host is one group of resources", "GROUP"),
            Option("-n", "how many of a resource group; not here", "CORES"),
        ),
        properties=("cid",),
        details=_CORE_DETAILS,
    ),
)
