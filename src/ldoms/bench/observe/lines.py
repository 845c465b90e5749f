"""The form of what a host sees of a domain: JSON lines, each with its moment by that host's clock, and a sort."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from ldoms.model.codec import from_wire, to_wire
from ldoms.model.guest import GuestCpus
from ldoms.model.host import HostFacts
from ldoms.model.migration import Progress


class Sort(StrEnum):
    """What a line is about."""

    BEGIN = "begin"
    """The first: about the host."""
    HOST = "host"
    """CPU time of QEMU's threads, and of the host."""
    GUEST = "guest"
    COPY = "copy"
    """A migration from this host."""
    NOTE = "note"
    """Something that cannot be seen, in words; said once."""


@dataclass(frozen=True, slots=True)
class HostLook:
    """A host at one moment.

    Attributes:
        threads: CPU seconds that QEMU's threads have used since the beginning, by `ldoms.bench.observe.usage` kinds;
            empty where no QEMU of the domain runs.
        busy_s: CPU seconds that everything on the machine has used.
    """

    at: float
    threads: dict[str, float]
    busy_s: float


@dataclass(frozen=True, slots=True)
class CopyLook:
    """A copy of memory at one moment, seen from its source."""

    at: float
    phase: str
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class HostLog:
    """All that a host has seen of a domain.

    Attributes:
        host: its name, as it says itself.
        began_at: 0 = it never began.
        booted_at: when the machine was started: two lab hosts on one machine have the same.
        offset_s: what has been taken from its clock to have that of whoever measures.
    """

    host: str
    facts: HostFacts | None = None
    began_at: float = 0.0
    booted_at: float = 0.0
    looks: tuple[HostLook, ...] = ()
    guests: tuple[GuestCpus, ...] = ()
    copies: tuple[CopyLook, ...] = ()
    notes: tuple[str, ...] = ()
    offset_s: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)


def write_line(sort: Sort, value: object) -> str:
    """One line, without its end."""
    return json.dumps({"sort": sort.value, **to_wire(value)})


def read_lines(host: str, lines: Iterable[str], offset_s: float = 0.0) -> HostLog:
    """Read what a host has written; every moment is moved back by what its clock is ahead, `offset_s`.

    A line that is not whole, as the last one may be, is left out.
    """
    log = HostLog(host, offset_s=offset_s)
    looks: list[HostLook] = []
    guests: list[GuestCpus] = []
    copies: list[CopyLook] = []
    notes: list[str] = []
    for line in lines:
        try:
            data: dict[str, Any] = json.loads(line)
            match Sort(data.pop("sort")):
                case Sort.BEGIN:
                    log = _begun(log, data)
                case Sort.HOST:
                    looks.append(from_wire(HostLook, data))
                case Sort.GUEST:
                    guests.append(from_wire(GuestCpus, data))
                case Sort.COPY:
                    copies.append(from_wire(CopyLook, data))
                case Sort.NOTE:
                    notes.append(str(data["text"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return replace(
        log,
        looks=tuple(replace(look, at=look.at - offset_s) for look in looks),
        guests=tuple(replace(look, at=look.at - offset_s) for look in guests),
        copies=tuple(replace(look, at=look.at - offset_s) for look in copies),
        notes=tuple(dict.fromkeys(notes)),
    )


def _begun(log: HostLog, data: dict[str, Any]) -> HostLog:
    facts = from_wire(HostFacts, data["facts"]) if data.get("facts") else None
    return replace(
        log,
        host=facts.name if facts is not None else log.host,
        facts=facts,
        began_at=float(data["at"]) - log.offset_s,
        booted_at=float(data["booted_at"]),
        versions={str(name): str(value) for name, value in data.get("versions", {}).items()},
    )


def clock_offset_s(arrivals: Iterable[tuple[float, str]]) -> float:
    """What a host's clock is ahead of ours, from when its lines came: no line comes before it was written.

    The line that was fastest counts; the time it was on its way is taken for part of the offset, which so errs by it.
    """
    lead: float | None = None
    for arrived_at, line in arrivals:
        try:
            at = float(json.loads(line)["at"])
        except (ValueError, KeyError, TypeError):
            continue
        lead = at - arrived_at if lead is None else max(lead, at - arrived_at)
    return lead or 0.0
