"""What a table of the page is: a caption, columns, and cells that are text already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ldoms.bench.page.units import NOTHING, number
from ldoms.bench.record import Table


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, and whether its cells are numbers, which are aligned at their right."""

    name: str
    is_number: bool = True


@dataclass(frozen=True, slots=True)
class Grid:
    """A table that can be drawn.

    Attributes:
        caption: may be empty where a heading says it.
        rows: of as many cells as there are columns; the first of each names the row.
        note: a sentence below it.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def grid(caption: str, names: Sequence[str], rows: Sequence[Sequence[Any]], note: str = "") -> Grid:
    """Make a grid of text and numbers; a column is one of numbers if most of its cells are.

    Args:
        rows: a row that is too short is filled up; what has no column is left out.
    """
    width = len(names)
    whole = [(*row[:width], *[None] * (width - len(row))) for row in rows]
    columns = tuple(Column(name, _is_numeric([row[at] for row in whole])) for at, name in enumerate(names))
    return Grid(caption, columns, tuple(tuple(_text(cell) for cell in row) for row in whole), note)


def measured(
    caption: str,
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    note: str = "",
    *,
    text: int = 1,
    last_is_text: bool = False,
) -> Grid:
    """A grid of cells that are text already, numbers with their units.

    Args:
        text: how many of the first columns are text and no numbers.
        last_is_text: the last one is, too.
    """
    numbers = range(text, len(names) - last_is_text)
    columns = tuple(Column(name, at in numbers) for at, name in enumerate(names))
    return Grid(caption, columns, tuple(tuple(row) for row in rows), note)


def grid_of(table: Table) -> Grid:
    """A part of the database report."""
    return grid(table.title, table.columns, table.rows, table.note)


def _is_numeric(cells: Sequence[Any]) -> bool:
    there = [cell for cell in cells if cell is not None and cell != ""]
    numbers = sum(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in there)
    return 2 * numbers > len(there)


def _text(cell: Any) -> str:
    if cell is None:
        return NOTHING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return number(cell) if isinstance(cell, int | float) else str(cell)
