"""What a table of the page is: a caption, columns, and cells that are text already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ldoms.bench.page.units import NOTHING, number
from ldoms.bench.record import Stretch, Table

BROAD = 8
"""A table with more columns is set in smaller type."""
_ROOM = 5
"""Of a table with more columns, a text with more than `_LONG` characters stands below its row."""
_LONG = 40


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

    @property
    def is_broad(self) -> bool:
        """Whether it has many columns."""
        return len(self.columns) > BROAD

    @property
    def has_text_below(self) -> bool:
        """Whether the last cell of a row, such as a statement, stands below the row, which has no room for it."""
        is_full = len(self.columns) > _ROOM and not self.columns[-1].is_number
        return is_full and any(len(row[-1]) > _LONG for row in self.rows)

    @property
    def heads(self) -> tuple[Head, ...]:
        """What stands above the columns; the same figure of several stretches has one name above all of them."""
        shown = self.columns[:-1] if self.has_text_below else self.columns
        found: list[Head] = []
        for column in shown:
            stretch, _, what = column.name.partition(" ")
            if stretch not in _STRETCHES or not what:
                found.append(Head(column.name, (column,)))
            elif found and found[-1].name == what and stretch not in [one.name for one in found[-1].columns]:
                found[-1] = Head(what, (*found[-1].columns, Column(stretch, column.is_number)), is_group=True)
            else:
                found.append(Head(what, (Column(stretch, column.is_number),), is_group=True))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Head:
    """A name above one column, or above a group of them."""

    name: str
    columns: tuple[Column, ...]
    is_group: bool = False


_STRETCHES = frozenset(stretch.value for stretch in Stretch)


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
