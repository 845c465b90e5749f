"""Values of properties as they are typed: read, and refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from ldoms.model.domain import Domain
from ldoms.model.errors import AlreadyExists, RequestError

MAX_DEVICES = 64
"""Disks, and network interfaces, of one domain."""

MAX_DIGITS = 18
"""A number that anything can have is shorter."""

E = TypeVar("E")


def int_property(name: str, value: str) -> int:
    """The value of a property that is a number.

    Raises:
        RequestError: it is not one.
    """
    if not value.isdecimal() or len(value) > MAX_DIGITS:
        raise RequestError(f"{name}={value} is not a number", code="bad-property")
    return int(value)


def choice_property(name: str, value: str, choices: tuple[str, ...]) -> str:
    """The value of a property that is one of several words.

    Raises:
        RequestError: it is none of them.
    """
    if value not in choices:
        shown = ", ".join(choice for choice in choices if choice)
        raise RequestError(f"{name}={value} has no meaning: use one of {shown}", code="bad-property")
    return value


def refuse_unknown(left: Mapping[str, str]) -> None:
    """Make sure that no property is left over.

    Raises:
        RequestError: one is.
    """
    for name in left:
        raise RequestError(f"property {name} is not known here", code="bad-property")


def free_number(wished: int | None, taken: Sequence[int], what: str) -> int:
    """The id of a new device: the one that is wished, or the lowest that is free.

    Raises:
        AlreadyExists: it is taken.
        RequestError: it is too high, or none is free.
    """
    if wished is not None:
        if wished in taken:
            raise AlreadyExists(f"id {wished} is taken by another {what}", code="id-in-use")
        if wished >= MAX_DEVICES:
            raise RequestError(f"id {wished} is too high: {MAX_DEVICES - 1} is the last", code="bad-property")
        return wished
    free = next((number for number in range(MAX_DEVICES) if number not in taken), None)
    if free is None:
        raise RequestError(f"there are {MAX_DEVICES} already: no id is free for another {what}", code="no-id")
    return free


def without(entries: tuple[E, ...], name: str, name_of: Callable[[E], str]) -> tuple[E, ...]:
    """All entries but the one of that name."""
    return tuple(entry for entry in entries if name_of(entry) != name)


def check_guest_domain(domain: Domain) -> None:
    """Make sure that a domain is a guest domain.

    Raises:
        RequestError: it is the control domain.
    """
    if domain.is_control:
        raise RequestError(
            "LDom primary is the host itself: it has its devices from the host, not from virtual services",
            code="control-domain",
        )
