"""The option ``-S``: a column STATUS for CPUs, cores and memory."""

from __future__ import annotations

import re

from ldoms.cli.text import Section
from ldoms.model.host import FAULT, OK, UNKNOWN, HostView
from ldoms.model.sizes import MIB

_KEYS = {"CORE": ("cid", "id"), "VCPU": ("pid",), "MEMORY": ("pa",)}


def with_health(section: Section, host: HostView) -> Section:
    """A section whose rows say how the part of the host is that they name; others stay as they are."""
    keys = _KEYS.get(section.heading, ())
    found = [_named(line, keys) for line in section.records]
    rows = [_health(host, section.heading, name) for name in found if name]
    if not rows:
        return section
    begin = len(section.lines) - len(rows)
    width = max(map(len, section.lines[begin - 1 :]))
    lines = [*section.lines[: begin - 1], f"{section.lines[begin - 1]:<{width}} STATUS"]
    lines += [f"{line:<{width}} {health}" for line, health in zip(section.lines[begin:], rows, strict=True)]
    told = iter(rows)
    records = [
        f"{line}|status={next(told)}" if name else line for line, name in zip(section.records, found, strict=True)
    ]
    return Section(section.heading, lines, records)


def only_broken(host: HostView) -> HostView:
    """The parts of a host that are not well."""
    strands = tuple(strand for strand in host.strands if strand.health != OK)
    return HostView(host.facts, strands, tuple(block for block in host.memory if block.health != OK))


def _named(line: str, keys: tuple[str, ...]) -> str:
    """The core, strand or address that a record is about."""
    match = re.search(rf"^\|(?:.*\|)?(?:{'|'.join(keys)})=([^|]+)", line) if keys else None
    return match[1] if match else ""


def _health(host: HostView, heading: str, name: str) -> str:
    if heading == "MEMORY":
        address = int(name, 16) // MIB
        blocks = (one for one in host.memory if one.address_mib <= address < one.address_mib + one.size_mib)
        return next((block.health for block in blocks), UNKNOWN)
    number = int(name)
    parts = [one.health for one in host.strands if number == (one.core if heading == "CORE" else one.strand)]
    return FAULT if FAULT in parts else OK if parts else UNKNOWN
