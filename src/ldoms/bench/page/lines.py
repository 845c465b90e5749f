"""What a chart shows: the series of one group, scaled, thinned and broken where there was no sample."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ldoms.bench.page.tables import mean
from ldoms.bench.page.units import NOTHING, number, scale_of
from ldoms.bench.record import RunRecord, Series, Stretch

MAX_POINTS = 800
"""Of a line; as many as a chart has pixels. Spikes stay."""
_BREAK = 2.5
"""A line is broken where samples are so many times as far apart as usual."""
_SPREAD = 30
"""Times on a chart whose largest is so many times the median get a logarithmic axis."""

TITLES = {
    "throughput": "Throughput",
    "latency": "Latency",
    "probes": "Longest wait of each probe",
    "guest-cpu": "CPUs of the guest",
    "guest-cpu-all": "CPUs of the guest, mean",
    "host-cpu": "CPU on the hosts",
    "migration": "Copy of memory",
    "migration-left": "Memory left to send",
    "migration-throttle": "Throttle of the guest",
}
"""Groups of series by the names that observers give them, in the order of the charts; others follow."""
_WORDS = {"cpu": "CPU", "io": "I/O", "tps": "TPS", "sql": "SQL", "wal": "WAL"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Attributes:
        points: seconds since the begin of the migration, and values in the chart's unit; None = the line is broken.
        means: in each stretch, as text.
    """

    name: str
    points: tuple[tuple[float, float | None], ...]
    means: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """The lines of one group that have one unit.

    Attributes:
        key: unique in the page; made of letters, digits and hyphens.
    """

    key: str
    title: str
    unit: str
    lines: tuple[Line, ...]
    is_logarithmic: bool

    @property
    def text(self) -> str:
        """What the chart shows, for who cannot see it."""
        said = (
            f"{line.name}: {', '.join(f'{value} {one.value}' for value, one in zip(line.means, Stretch, strict=True))}"
            for line in self.lines
        )
        return f"{self.title} in {self.unit or 'numbers'} over time, means by stretch. {'; '.join(said)}."


def charts_of(record: RunRecord) -> tuple[Chart, ...]:
    """The charts of a record, in order; series without any sample are left out."""
    together: dict[tuple[str, str], list[Series]] = {}
    for series in record.series:
        if any(math.isfinite(value) for value in series.values):
            together.setdefault((series.group, series.unit), []).append(series)
    groups = sorted(together, key=lambda key: _rank(key[0]))
    return tuple(_chart(number, record, key[0], together[key]) for number, key in enumerate(groups, 1))


def _rank(group: str) -> int:
    return list(TITLES).index(group) if group in TITLES else len(TITLES)


def _chart(at: int, record: RunRecord, group: str, members: Sequence[Series]) -> Chart:
    divisor, unit = scale_of(members[0].unit, [value for one in members for value in one.values])
    lines = tuple(_line(record, one, divisor) for one in members)
    values = [value for line in lines for _, value in line.points if value is not None]
    return Chart(f"chart-{at}", title_of(group), unit, lines, unit in ("ms", "s") and _is_spread(values))


def title_of(group: str) -> str:
    """The name of a group as a heading."""
    if group in TITLES:
        return TITLES[group]
    words = [_WORDS.get(word.lower(), word) for word in group.replace("_", "-").split("-") if word]
    title = " ".join(words)
    return title[:1].upper() + title[1:] if title else "Other"


def _line(record: RunRecord, series: Series, divisor: float) -> Line:
    begin = record.migration.started_at
    samples = [
        (at - begin, value / divisor if math.isfinite(value) else None)
        for at, value in zip(series.times, series.values, strict=False)
        if math.isfinite(at)
    ]
    means = [mean(series, record.stretches[stretch]) for stretch in Stretch]
    shown = tuple(NOTHING if value is None else number(float(value / divisor)) for value in means)
    return Line(series.name, tuple(broken(thinned(samples))), shown)


def thinned(samples: Sequence[tuple[float, float | None]], limit: int = MAX_POINTS) -> list[tuple[float, float | None]]:
    """At most `limit` samples: of each stretch of them the smallest and the largest stay, in their order."""
    if len(samples) <= limit:
        return list(samples)
    length = math.ceil(len(samples) / (limit // 2))
    kept: list[tuple[float, float | None]] = []
    for begin in range(0, len(samples), length):
        part = [(at, value) for at, value in samples[begin : begin + length] if value is not None]
        if not part:
            kept.append((samples[begin][0], None))
            continue
        ends = {min(part, key=lambda one: one[1]), max(part, key=lambda one: one[1])}
        kept += sorted(ends)
    return kept


def broken(samples: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """The points of a line: it begins where the second of its first sample does, and is broken where samples lack."""
    usual = statistics.median([later[0] - earlier[0] for earlier, later in pairwise(samples)] or [1.0])
    points: list[tuple[float, float | None]] = []
    for at, value in samples:
        if not points or at - points[-1][0] > _BREAK * usual > 0:
            points += [(at - usual, None), (at - usual, value)]
        points.append((at, value))
    return points


def _is_spread(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) > _SPREAD * statistics.median(values)
