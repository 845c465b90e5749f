"""Columns and records: what every line of a listing is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

PARSE_VERSION = "VERSION 1.11"


def columns(widths: Sequence[int], values: Iterable[object]) -> str:
    """Values in columns with one blank between; the last one is as long as it likes, and no blanks end the line."""
    cells = [str(value) for value in values]
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
    return " ".join([*padded, *cells[len(widths) :]]).rstrip()


def record(keyword: str, **pairs: object) -> str:
    """A line for programs: ``KEYWORD|key=value|...``; underscores in keys become hyphens."""
    return keyword + "".join(f"|{key.replace('_', '-')}={value}" for key, value in pairs.items())


def percent(value: float | None) -> str:
    """A share with one decimal, ``0.4%``, but ``100%``; empty if it is not known."""
    if value is None:
        return ""
    return "100%" if value >= 99.95 else f"{value:.1f}%"
