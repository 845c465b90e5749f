"""A report in text: aligned columns, for a terminal or a file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from ldoms.bench.record import DatabaseReport, Table

_WIDEST = 60
"""Of a cell, in characters: statements are longer."""


def render(report: DatabaseReport) -> str:
    """The whole report, ending in a line feed."""
    width = max((len(name) for name, _ in report.header), default=0)
    header = "\n".join(f"{name:{width}}  {value}" for name, value in report.header)
    return "\n\n".join([header, *map(render_table, report.tables)]) + "\n"


def render_table(table: Table) -> str:
    """One table: its title, its columns (text to the left, figures to the right), and its note."""
    head = f"{table.title}\n{'-' * len(table.title)}"
    if not table.rows:
        return f"{head}\n{table.note or 'Nothing.'}"
    cells = [tuple(map(cell, row)) for row in table.rows]
    widths = [max(map(len, column)) for column in zip(table.columns, *cells, strict=True)]
    right = [all(_is_figure(value) for value in column) for column in zip(*table.rows, strict=True)]
    lines = [_line(row, widths, right) for row in (table.columns, tuple("-" * width for width in widths), *cells)]
    return "\n".join([head, *lines, *([table.note] if table.note else [])])


def cell(value: Any) -> str:
    """One value: figures with as many digits as can be read at a glance; a figure that is not to be had is a dash."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return _figure(value)
        case _:
            text = " ".join(str(value).split())
            return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def _figure(value: float) -> str:
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.4f}" if size >= 0.0001 or not value else f"{value:.1e}"


def _is_figure(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    columns = zip_longest(row, widths, right)
    return "  ".join(text.rjust(width) if to_right else text.ljust(width) for text, width, to_right in columns).rstrip()
