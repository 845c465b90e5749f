"""Block changes beside the rate at which the migration saw memory change.

A changed block is a changed page of memory, at least of the server's buffers, so Oracle's ``db block changes`` times
the block size is used as an estimate of what a live migration has to send again. It is too high where the same block
changes many times between two looks at it, and too low where memory changes that belongs to no block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ldoms.bench.database.interval import Interval, ratio
from ldoms.bench.database.tables import Intervals, names, per_second, rounded
from ldoms.bench.record import Series, Stretch, Table
from ldoms.model.migration import PassRecord

TITLE = "Block Changes and Dirty Rate"


def dirty_rate_table(
    intervals: Intervals, passes: Sequence[PassRecord], measured: Mapping[Stretch, float | None]
) -> Table:
    """The estimates from the database beside what was measured, all in bytes per second.

    Args:
        passes: of the migration, which was `Stretch.DURING`.
        measured: the dirty rate that QEMU told in each stretch, where it was asked.
    """
    size = [interval.end.facts["block_size"] for interval in intervals.values()]
    changed = [_times(_changes(interval), one) for interval, one in zip(intervals.values(), size, strict=True)]
    different = [_times(_blocks(interval), one) for interval, one in zip(intervals.values(), size, strict=True)]
    seen = [rounded(dirty_rate(passes)) if stretch is Stretch.DURING else None for stretch in intervals]
    told = [rounded(measured.get(stretch)) for stretch in intervals]
    best = [one if one is not None else other for one, other in zip(seen, told, strict=True)]
    rows = (
        ("db block changes/s", "pg_walinspect: block references", *map(_changes, intervals.values())),
        ("x block size", "estimate, each change a block of its own", *changed),
        ("-", "different blocks x block size", *different),
        ("redo size/s", "pg_stat_wal: wal_bytes", *map(_redo, intervals.values())),
        ("-", "dirty rate seen by the passes of the migration", *seen),
        ("-", "dirty rate told by QEMU", *told),
        ("-", "dirty rate / (db block changes x block size)", *map(_rounded_ratio, best, changed)),
    )
    note = (
        "In bytes/s, but for the first line and the last. Different blocks are counted once in a whole stretch, in "
        "which the migration goes through memory several times. The dirty rate is of all memory of the guest."
    )
    known = tuple(row for row in rows if any(value is not None for value in row[2:]))
    return Table(TITLE, ("AWR", "Source", *names(intervals)), known, note)


def dirty_rate(passes: Sequence[PassRecord]) -> float | None:
    """How fast the guest changed memory while it was copied, bytes/s: over all passes together."""
    return ratio(sum(one.dirty_bytes for one in passes), sum(one.seconds for one in passes))


def mean_in(series: Series, begin: float, end: float) -> float | None:
    """The mean of the samples of a stretch; None = there is none.

    QEMU says zero as long as it does not know yet, in the first pass.
    """
    values = [value for at, value in zip(series.times, series.values, strict=True) if begin < at <= end and value]
    return ratio(sum(values), len(values))


def measured_rates(intervals: Intervals, series: Series | None) -> dict[Stretch, float | None]:
    """The mean of a series of QEMU's dirty rate in each stretch, as `dirty_rate_table` wants it."""
    if series is None:
        return {}
    return {
        stretch: mean_in(series, interval.begin.taken_at, interval.end.taken_at)
        for stretch, interval in intervals.items()
    }


def _changes(interval: Interval) -> float | None:
    return per_second(interval.changes.changes, interval) if interval.changes else None


def _blocks(interval: Interval) -> float | None:
    return per_second(interval.changes.blocks, interval) if interval.changes else None


def _redo(interval: Interval) -> float | None:
    return per_second(interval.counted("wal", "wal_bytes"), interval)


def _times(rate: float | None, size: int) -> float | None:
    return None if rate is None else rounded(rate * size)


def _rounded_ratio(part: float | None, whole: float | None) -> float | None:
    return rounded(ratio(part, whole))
