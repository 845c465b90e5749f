"""Sections of a listing, and the small things of which they are made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ldoms.cli.columns import PARSE_VERSION, columns, percent, record

__all__ = ["INDENT", "PARSE_VERSION", "Section", "columns", "percent", "record", "show"]

INDENT = "    "


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a listing: what people read, and what programs read.

    Attributes:
        heading: in capitals; empty = the lines stand for themselves.
        lines: below the heading, without the indent.
        records: the same for ``-p``.
    """

    heading: str
    lines: Sequence[str]
    records: Sequence[str]


def show(sections: Iterable[Section]) -> list[str]:
    """Sections for people, an empty line between them."""
    lines: list[str] = []
    for section in sections:
        if lines:
            lines.append("")
        if section.heading:
            lines.append(section.heading)
        indent = INDENT if section.heading else ""
        lines += [f"{indent}{line}".rstrip() for line in section.lines]
    return lines
