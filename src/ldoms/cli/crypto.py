"""Commands about cryptographic units, which only SPARC processors have."""

from __future__ import annotations

from functools import partial

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, UsageError, Words
from ldoms.cli.options import FORCE


def _crypto(action: str, client: Client, words: Words) -> int:
    number, name = words.operands
    if not number.isdecimal():
        raise UsageError(f"'{number}' is not a number of cryptographic units")
    client.put(f"/domains/{part(name)}/crypto", {"action": action, "amount": int(number)})
    return 0


_DETAILS = (
    "Guests use what the processor has without being given any: the number is kept and shown for scripts of LDoms, and"
    " has no effect."
)

COMMANDS = (
    Command(
        "add-crypto",
        "crypto",
        "NUMBER DOM",
        "ask for more cryptographic units",
        partial(_crypto, "add"),
        details=_DETAILS,
    ),
    Command(
        "set-crypto",
        "crypto",
        "NUMBER DOM",
        "set the number of cryptographic units",
        partial(_crypto, "set"),
        options=(FORCE,),
        details=_DETAILS,
    ),
    Command(
        "remove-crypto",
        "crypto",
        "NUMBER DOM",
        "ask for fewer cryptographic units",
        partial(_crypto, "remove"),
        options=(FORCE,),
        details=_DETAILS,
    ),
)
