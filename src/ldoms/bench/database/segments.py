"""Segments: the tables and indexes that were used and changed most, as AWR's "Segments by ..."."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ldoms.bench.database.interval import Interval, ratio
from ldoms.bench.database.snapshot import Row
from ldoms.bench.database.tables import Intervals, labels, per_second, rounded
from ldoms.bench.record import Table

MOST = 10
_KINDS = {"r": "TABLE", "i": "INDEX", "t": "TOAST", "m": "MATVIEW", "S": "SEQUENCE"}
_COLUMNS = ("blocks_fetched", "blocks_hit", "inserted", "updated", "deleted")

Amounts = dict[Any, float]


def segment_tables(intervals: Intervals, note: str) -> list[Table]:
    """By logical reads, physical reads, block changes (if the log could be read), and rows changed."""
    names = _names(intervals)
    tables = [
        _table(
            "Segments by Logical Reads", "blocks", _grown(lambda row: row["blocks_fetched"]), intervals, names, note
        ),
        _table(
            "Segments by Physical Reads",
            "blocks",
            _grown(lambda row: row["blocks_fetched"] - row["blocks_hit"]),
            intervals,
            names,
            note,
        ),
        _table(
            "Segments by Row Changes",
            "rows",
            _grown(lambda row: row["inserted"] + row["updated"] + row["deleted"]),
            intervals,
            names,
            note,
        ),
    ]
    if any(interval.changes for interval in intervals.values()):
        title = "Segments by DB Blocks Changes"
        said = "References to the segment's blocks in the log (pg_walinspect), in all databases."
        tables.insert(2, _table(title, "changes", _block_changes, intervals, names, said))
    return tables


def _grown(amount: Callable[[Mapping[str, float]], float]) -> Callable[[Interval], Amounts]:
    def amounts(interval: Interval) -> Amounts:
        rows = interval.grown("segments", ("oid",), _COLUMNS)
        return {oid: amount(growth) for (oid,), growth in rows.items()}

    return amounts


def _block_changes(interval: Interval) -> Amounts:
    """By segment, where the file is one of this database's; else by the file's name."""
    database = interval.end.facts["database_oid"]
    owners = {(database, row["filenode"]): row["oid"] for row in interval.end.rows("segments")}
    owners |= {(0, row["filenode"]): row["oid"] for row in interval.end.rows("segments")}  # of the whole server
    amounts: Amounts = {}
    for file, (changes, _) in (interval.changes.relations if interval.changes else {}).items():
        _, of_database, filenode = map(int, file.split("/"))
        owner = owners.get((of_database, filenode), f"file {file}")
        amounts[owner] = amounts.get(owner, 0) + changes
    return amounts


def _table(
    title: str,
    unit: str,
    amounts: Callable[[Interval], Amounts],
    intervals: Intervals,
    names: Mapping[Any, Row],
    note: str,
) -> Table:
    found = [amounts(interval) for interval in intervals.values()]
    weights: Amounts = {}
    for one in found:
        for key, value in one.items():
            weights[key] = weights.get(key, 0) + value
    ordered = sorted((key for key, value in weights.items() if value > 0), key=lambda key: (-weights[key], str(key)))
    rows = []
    for key in ordered[:MOST]:
        values = [one.get(key, 0) for one in found]
        rates = [per_second(value, interval) for value, interval in zip(values, intervals.values(), strict=True)]
        shares = [rounded(ratio(value, sum(one.values()), 100)) for value, one in zip(values, found, strict=True)]
        rows.append((*_name(key, names), *map(rounded, values), *rates, *shares))
    columns = ("Owner", "Object Name", "Obj. Type", *labels(intervals, unit, f"{unit}/s", "%Total"))
    return Table(title, columns, tuple(rows), note)


def _names(intervals: Intervals) -> dict[Any, Row]:
    return {row["oid"]: row for interval in intervals.values() for row in interval.end.rows("segments")}


def _name(key: Any, names: Mapping[Any, Row]) -> tuple[str, str, str]:
    if row := names.get(key):
        return row["schema"], row["name"], _KINDS[row["kind"]]
    return "", str(key), "FILE"
