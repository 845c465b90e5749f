"""Lines and columns: the small things of which every listing is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PARSE_VERSION = "VERSION 1.11"
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


def columns(widths: Sequence[int], values: Iterable[object]) -> str:
    """Values in columns with one blank between; the last one is as long as it likes, and no blanks end the line."""
    cells = [str(value) for value in values]
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
    return " ".join([*padded, *cells[len(widths) :]]).rstrip()


def record(keyword: str, **pairs: object) -> str:
    """A line for programs: ``KEYWORD|key=value|...``; underscores in keys become hyphens."""
    return keyword + "".join(f"|{key.replace('_', '-')}={value}" for key, value in pairs.items())


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


def percent(value: float | None) -> str:
    """A share with one decimal, ``0.4%``, but ``100%``; empty if it is not known."""
    if value is None:
        return ""
    return "100%" if value >= 99.95 else f"{value:.1f}%"
