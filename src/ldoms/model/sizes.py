"""Sizes and lengths of time as `ldm` reads and writes them."""

from __future__ import annotations

import re

from ldoms.model.errors import RequestError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

MAX_DESCRIPTION_BYTES = 4 * MIB
"""Of an XML file that describes domains."""
BOUND_ALIGNMENT_MIB = 4
"""A bound domain's memory is a multiple of this, rounded up (LDoms administration guide, memory alignment)."""
ACTIVE_ALIGNMENT_MIB = 256
"""A change to an active domain's memory must be a multiple of this (same source)."""

_SIZE = re.compile(r"(?P<number>[0-9]{1,18})(?P<unit>[KkMmGg]?)[Bb]?")
_UNITS = {"": 1, "k": KIB, "m": MIB, "g": GIB}


def parse_size_mib(text: str) -> int:
    """Read a size such as ``4G``, ``512m`` or ``1073741824`` (bytes); parts of a MiB are rounded up.

    Raises:
        RequestError: it is not a size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise RequestError(
            f"'{text}' is not a memory size: give a whole number with the unit G, M or K, such as 4G",
            code="bad-size",
        )
    size = int(match["number"]) * _UNITS[match["unit"].lower()]
    return -(-size // MIB)


def format_size(size: int) -> str:
    """A number of bytes in the largest unit that divides it evenly: ``32G``, ``32544M``, ``512K``."""
    for unit, letter in ((GIB, "G"), (MIB, "M"), (KIB, "K")):
        if size % unit == 0 and size > 0:
            return f"{size // unit}{letter}"
    return str(size)


def align_up(value: int, alignment: int) -> int:
    """The smallest multiple of `alignment` that is not less than `value`."""
    return -(-value // alignment) * alignment


def format_uptime(seconds: float) -> str:
    """A length of time in the LDoms way: ``23s``, ``9m``, ``2h 16m``, ``45d 8h 6m``."""
    minutes = int(seconds) // 60
    if minutes == 0:
        return f"{int(seconds)}s"
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [f"{days}d"] if days else []
    if days or hours:
        parts.append(f"{hours}h")
    parts.append(f"{minutes}m")
    return " ".join(parts)
