"""Commands about memory."""

from __future__ import annotations

from functools import partial

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, Words
from ldoms.model.sizes import parse_size_mib


def _memory(action: str, client: Client, words: Words) -> int:
    size, name = words.operands
    client.put(f"/domains/{part(name)}/memory", {"action": action, "amount": parse_size_mib(size)})
    return 0


_MEMORY_DETAILS = (
    "SIZE is a whole number with the unit G, M or K; without one it is bytes. The control domain owns all memory at"
    " first, and changes in steps of 256M. A guest domain must not be active, and is given whole multiples of 4M."
)


COMMANDS = (
    Command(
        "add-memory",
        "memory",
        "SIZE DOM",
        "give a domain more memory",
        partial(_memory, "add"),
        details=_MEMORY_DETAILS,
    ),
    Command(
        "set-memory",
        "memory",
        "SIZE DOM",
        "set the memory of a domain",
        partial(_memory, "set"),
        details=_MEMORY_DETAILS,
    ),
    Command(
        "remove-memory",
        "memory",
        "SIZE DOM",
        "take memory from a domain",
        partial(_memory, "remove"),
        details=_MEMORY_DETAILS,
    ),
)
