"""``set-migration``: other limits for a migration that is under way."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ldoms.api.client import Client, part
from ldoms.cli.command import Command, UsageError, Words
from ldoms.model.errors import RequestError
from ldoms.model.sizes import MIB, parse_size_mib

_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m)?")


def length_s(text: str) -> float:
    """A length of time such as ``300ms``, ``1.5s`` or ``10m``; a number alone is milliseconds.

    Raises:
        ValueError: it is none.
    """
    match = _LENGTH.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return float(match[1]) * {"s": 1.0, "m": 60.0}.get(match[2], 0.001)


def bandwidth_bytes_s(text: str) -> int:
    """A size, as of each second; ``100M`` and ``100M/s`` are the same.

    Raises:
        RequestError: it is none.
    """
    return parse_size_mib(text.removesuffix("/s")) * MIB


def _suspension_s(text: str) -> float:
    seconds = length_s(text)
    if not 0 < seconds <= 2000:
        raise ValueError(text)
    return seconds


LIMITS: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    "max-bandwidth": ("max_bandwidth_bytes_s", bandwidth_bytes_s, "a size per second such as 100M, or 0"),
    "max-suspend": ("max_suspend_s", _suspension_s, "a length of time such as 300ms or 1.5s, at most 2000s"),
    "max-time": ("max_time_s", length_s, "a length of time such as 90s or 10m, or 0"),
}
"""By the name that is typed: the field of the API, what reads it, and what may be written."""


def _set_migration(client: Client, words: Words) -> int:
    names = [word for word in words.operands if "=" not in word]
    if len(names) != 1:
        raise UsageError("set-migration: name one domain")
    limits = [word.partition("=") for word in words.operands if "=" in word]
    if not limits:
        raise UsageError("set-migration: nothing is to be changed: write LIMIT=VALUE, such as max-bandwidth=100M")
    body = {}
    for name, _, value in limits:
        if name not in LIMITS:
            raise UsageError(f"set-migration: {name} cannot be changed; there are {', '.join(LIMITS)}")
        field, read, form = LIMITS[name]
        if field in body:
            raise UsageError(f"set-migration: {name} is given twice")
        try:
            body[field] = read(value)
        except (ValueError, RequestError) as error:
            raise UsageError(f"set-migration: {name}={value} makes no sense: write {form}") from error
    client.post(f"/domains/{part(names[0])}/set-migration", body)
    return 0


COMMANDS = (
    Command(
        "set-migration",
        "migration",
        "DOM LIMIT=VALUE...",
        "change limits of a migration that is under way, on its source",
        _set_migration,
        details="LIMIT is max-bandwidth, max-suspend or max-time, with values as in migrate-domain;"
        " max-bandwidth=0 and max-time=0 take the limit away. It counts from when the copy is next looked at, four"
        " times a second, and is kept if ldmd is restarted. The report of the migration says what was changed, when and"
        " by whom. Once the guest stands still for the last part of the copy, nothing can be changed any more.",
        ours=True,
        free_properties=True,
    ),
)
