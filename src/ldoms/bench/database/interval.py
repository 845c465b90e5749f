"""What happened between two snapshots: differences of counters, and nothing where there is no true difference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ldoms.bench.database.snapshot import Row, Snapshot
from ldoms.bench.database.wal import WalChanges
from ldoms.model.errors import RequestError

Key = tuple[Any, ...]

_RESETS = {"statements": "statements_info", "segments": "database"}
"""Sections whose rows do not say when they were set to zero, and the section that says it for them."""


@dataclass(frozen=True)  # without slots: it keeps what it has worked out
class Interval:
    """Two snapshots of one server, and what its log says of the time between them.

    Attributes:
        wal: the block changes; a sentence, if there are none to be had.
    """

    begin: Snapshot
    end: Snapshot
    wal: WalChanges | str = ""

    def __post_init__(self) -> None:
        check_pair(self.begin, self.end)

    @property
    def seconds(self) -> float:
        """How long it is, by the clock of the machine that asked."""
        return self.end.taken_at - self.begin.taken_at

    @property
    def changes(self) -> WalChanges | None:
        """What the log says, if it could be read."""
        return self.wal if isinstance(self.wal, WalChanges) else None

    @cached_property
    def transactions(self) -> float:
        """Committed and rolled back, in all databases."""
        return (self.counted("database", "xact_commit") or 0) + (self.counted("database", "xact_rollback") or 0)

    def counted(self, section: str, *columns: str, where: Callable[[Row], bool] | None = None) -> float | None:
        """The sum of columns over the rows of a section: what it has grown by.

        Nothing, if the server has no such section or column, or if its counters were reset in between. Rows that were
        not there at first, such as those of a table that nobody had used, count from zero.
        """
        if self.was_reset(section) or section not in self.begin.sections:
            return None
        begin, end = (_sum(snapshot.rows(section), columns, where) for snapshot in (self.begin, self.end))
        return None if end is None or end < (begin or 0) else end - (begin or 0)

    def was_reset(self, section: str) -> bool:
        """Whether somebody has set a section's counters to zero in between."""
        rows = _RESETS.get(section, section)
        begin, end = (_resets(snapshot.rows(rows)) for snapshot in (self.begin, self.end))
        return any(name in begin and begin[name] != at for name, at in end.items())

    def grown(self, section: str, key: tuple[str, ...], columns: tuple[str, ...]) -> dict[Key, dict[str, float]]:
        """By how much the columns of each row have grown, by the row's key; rows that have not grown are left out.

        A row that is new, or has begun again from zero, counts with what it has now.
        """
        before = {_key(row, key): row for row in self.begin.rows(section)}
        found = {}
        for row in self.end.rows(section):
            old = before.get(_key(row, key), {})
            growth = {column: (row.get(column) or 0) - (old.get(column) or 0) for column in columns}
            if any(value < 0 for value in growth.values()):
                growth = {column: row.get(column) or 0 for column in columns}
            if any(growth.values()):
                found[_key(row, key)] = growth
        return found


def check_pair(begin: Snapshot, end: Snapshot) -> None:
    """See to it that there is a difference between two snapshots.

    Raises:
        RequestError: they are of two servers, of two lives of one, or the first is not older.
    """
    if begin.facts["system"] != end.facts["system"]:
        raise RequestError("the two snapshots are of different servers", code="different-servers")
    if begin.facts["started_at"] != end.facts["started_at"]:
        raise RequestError(
            "the server was started again between the two snapshots, and its counters with it", code="server-restarted"
        )
    if begin.taken_at >= end.taken_at:
        raise RequestError("the first snapshot is not older than the second", code="bad-interval")


def ratio(part: float | None, whole: float | None, scale: float = 1.0) -> float | None:
    """`part` of `whole`, times `scale`; nothing, if one is missing or the whole is zero."""
    return None if part is None or not whole else scale * part / whole


def total(values: Iterable[float | None]) -> float | None:
    """The sum of values of which none is missing."""
    found = list(values)
    return None if None in found else sum(value for value in found if value is not None)


def lsn(text: str) -> int:
    """A position in the log, in bytes, as ``pg_lsn`` writes it."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def _sum(rows: Iterable[Row], columns: tuple[str, ...], where: Callable[[Row], bool] | None) -> float | None:
    chosen = [row for row in rows if where is None or where(row)]
    values = [row[column] for row in chosen for column in columns if row.get(column) is not None]
    return sum(values) if values else None


def _resets(rows: Iterable[Row]) -> Mapping[Key, Any]:
    return {_key(row, ("datid", "name", "backend_type", "object", "context")): row.get("stats_reset") for row in rows}


def _key(row: Row, names: tuple[str, ...]) -> Key:
    return tuple(row.get(name) for name in names)
