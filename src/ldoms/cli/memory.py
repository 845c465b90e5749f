"""Commands about memory."""

from __future__ import annotations

from functools import partial
from typing import Any

from ldoms.api.client import Client, error_from, part
from ldoms.cli.command import Command, Option, UsageError, Words
from ldoms.cli.follow import CtrlC, follow
from ldoms.model.codec import from_wire
from ldoms.model.errors import RequestError
from ldoms.model.operation import Operation, OperationStatus
from ldoms.model.sizes import MIB, parse_size_mib


def _memory(action: str, client: Client, words: Words) -> int:
    _check_platform(words)
    if len(words.operands) != 2:
        raise UsageError(f"{action}-memory: too few operands")
    size, name = words.operands
    _check_unit(size)
    body: dict[str, Any] = {"action": action, "amount": parse_size_mib(size)}
    if words.has("--auto-adj"):
        body["adjusted"] = True
    path = f"/domains/{part(name)}"
    with CtrlC(client, "cancelling ...", f"{path}/cancel-memory") as ctrl_c:
        answer = client.put(f"{path}/memory", body) or {}
        if "kind" not in answer:
            return 0  # it is done: there was no guest that takes its time
        operation = from_wire(Operation, answer)
        ctrl_c.has_begun(operation)
        operation = follow(client, operation)
    if operation.status is not OperationStatus.SUCCESS:
        raise error_from({"family": "LdomsError", **operation.error})
    return 0


def _check_unit(size: str) -> None:
    """Refuse a handful of bytes: whoever types so little has left the unit out."""
    if size.isdecimal() and len(size) < len(str(MIB)) + 1 and int(size) < MIB:
        raise RequestError(
            f"{size} without a unit is {size} bytes, and memory is given by the MiB: write {size}M, or {size}G",
            code="bad-size",
        )


def _check_platform(words: Words) -> None:
    """Refuse what names a part of a SPARC machine."""
    if "mblock" in words.properties:
        raise RequestError(
            "mblock= is not supported on this platform: memory has no named blocks here, give a size instead",
            code="not-supported",
        )
    if words.has("-g") or words.has("-s"):
        raise RequestError(
            "-g is not supported on this platform: there are no resource groups here, give a size instead",
            code="not-supported",
        )


_ADJUST = Option("--auto-adj", "round what is asked for to what is possible")
_MEMORY_DETAILS = (
    "SIZE is a whole number with the unit G, M or K; without one it is bytes. The control domain owns all memory at"
    " first, and changes in steps of 256M. An active domain changes in steps of 256M, too: its guest takes what is"
    " added and gives back what is removed in its own time, which the command waits for. Ctrl-C stops that, as does"
    " 'ldm cancel-operation memdr DOM'; what was changed stays. If the guest does less than was asked, the command"
    " fails and says how much it has done. What a guest was started with cannot be taken from it while it runs. A bound"
    " domain is given whole multiples of 4M. With --auto-adj an active domain is added more, or removed less, up or"
    " down to a multiple of 256M, and for any other the result is rounded up to one. mblock= and -g name parts of"
    " SPARC machines and are not supported."
)


COMMANDS = (
    Command(
        "add-memory",
        "memory",
        "[SIZE] DOM",
        "give a domain more memory",
        partial(_memory, "add"),
        options=(_ADJUST,),
        properties=("mblock",),
        details=_MEMORY_DETAILS,
    ),
    Command(
        "set-memory",
        "memory",
        "[SIZE] DOM",
        "set the memory of a domain",
        partial(_memory, "set"),
        options=(_ADJUST,),
        properties=("mblock",),
        details=_MEMORY_DETAILS,
    ),
    Command(
        "remove-memory",
        "memory",
        "[SIZE] DOM",
        "take memory from a domain",
        partial(_memory, "remove"),
        options=(
            _ADJUST,
            Option("-g", "of a resource group; not supported on this platform", "GROUP"),
            Option("-s", "how much of a resource group; not supported on this platform", "SIZE"),
        ),
        properties=("mblock",),
        details=_MEMORY_DETAILS,
    ),
)
