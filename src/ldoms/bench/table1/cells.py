"""What Table 1 is made of: runs, cells of runs with the same number of CPUs, and the figures of the paper. All pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ldoms.bench.figures import Window
from ldoms.bench.observe.series import GUEST_ALL, HOST_CPU, mean_between
from ldoms.bench.record import RunRecord, Series, Stretch
from ldoms.model.migration import Outcome
from ldoms.model.phases import Phase

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A row of the paper's table: two SPARC T4-1 servers, 64 strands each, a guest with an SGA of 18 GB."""

    total_s: float
    suspension_s: float
    guest_cpu_percent: float


PAPER = {8: PaperRow(492.0, 26.0, 70.0), 16: PaperRow(242.0, 13.0, 80.0), 24: PaperRow(123.0, 7.0, 85.0)}
"""By CPUs of the control domain."""


@dataclass(frozen=True, slots=True)
class CellRun:
    """One migration.

    Attributes:
        run: identity of its record, which has everything.
        suspension_s: from stop to resumption, by the hosts' clocks.
        client_s: the longest time without an answer for a client, which the suspension lies in.
        guest_cpu_percent: of the guest's virtual CPUs that were busy during the migration, by its own count.
        strands_percent: CPU time of its virtual CPUs during the migration, of what its strands are worth.
        lost: what must not happen, and did.
    """

    control_cpus: int
    round: int
    run: str
    source: str
    target: str
    total_s: float
    copy_s: float
    suspension_s: float | None
    client_s: float | None
    guest_cpu_percent: float | None
    strands_percent: float | None
    tps_before: float | None
    tps_during: float | None
    transferred_mib: float
    passes: int
    load_average: float
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """A run that did not end with a guest that had moved, and why; it was made again."""

    control_cpus: int
    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Spread:
    """Several values of one figure."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Cell:
    """A row of the table.

    Attributes:
        runs: in the order in which they were made; at least one.
    """

    control_cpus: int
    runs: tuple[CellRun, ...]

    def spread(self, figure: str) -> Spread | None:
        """Median, least and most of a figure of the runs, as it is called there; None if it is not known of any."""
        values = [value for run in self.runs if (value := getattr(run, figure)) is not None]
        return Spread(statistics.median(values), min(values), max(values)) if values else None


def order(cells: Sequence[int], rounds: int) -> list[tuple[int, int]]:
    """Every cell once in each round, in turns that begin with another cell each time: (control CPUs, round from 1).

    What drifts, such as the machine's other work or the guest's memory, then meets all cells alike.
    """
    return [
        (cells[(number + place) % len(cells)], number + 1) for number in range(rounds) for place in range(len(cells))
    ]


def cells_of(runs: Sequence[CellRun]) -> tuple[Cell, ...]:
    """The rows of the table, by control CPUs."""
    counts = sorted({run.control_cpus for run in runs})
    return tuple(Cell(count, tuple(run for run in runs if run.control_cpus == count)) for count in counts)


def cell_run(record: RunRecord, control_cpus: int, number: int, strands_worth: float) -> CellRun:
    """The figures of one migration.

    Args:
        record: of the run.
        control_cpus: that both control domains had.
        number: of the round.
        strands_worth: CPUs that the guest's strands are worth.
    """
    report, during = record.migration, record.stretches[Stretch.DURING]
    suspension, windows = record.suspension_ms, record.load.windows
    copy = [phase.seconds for phase in report.phases if phase.name is Phase.COPY]
    return CellRun(
        control_cpus=control_cpus,
        round=number,
        run=record.id,
        source=report.source,
        target=report.target,
        total_s=report.total_s,
        copy_s=sum(copy),
        suspension_s=_seconds(suspension.get("stop_resume")),
        client_s=_seconds(suspension.get("client")),
        guest_cpu_percent=_busy_percent(record.series, during),
        strands_percent=_strands_percent(record.series, report.source, during, strands_worth),
        tps_before=windows[Stretch.BEFORE].tps if Stretch.BEFORE in windows else None,
        tps_during=windows[Stretch.DURING].tps if Stretch.DURING in windows else None,
        transferred_mib=report.transferred_bytes / MIB,
        passes=len(report.passes),
        load_average=record.conditions.load_average,
        lost=losses(record),
    )


def losses(record: RunRecord) -> tuple[str, ...]:
    """What must not happen, and did."""
    report, found = record.migration, []
    if report.outcome is not Outcome.DONE:
        found.append(f"the domain did not move: {report.cause or report.outcome.value}")
    elif record.runs_on != report.target:
        found.append(f"the domain runs on {record.runs_on}, not on {report.target}")
    found += [f"{item.name}: {item.detail}" for item in record.checks if not item.holds]
    if record.load.connections_lost:
        found.append(f"{record.load.connections_lost} connections were lost")
    return tuple(found)


def _busy_percent(series: Sequence[Series], window: Window) -> float | None:
    """As mpstat in the guest has it."""
    shown = {one.name: one for one in series if one.group == GUEST_ALL}
    idle = mean_between(shown["idle"], window) if "idle" in shown else None
    waiting = mean_between(shown["iowait"], window) if "iowait" in shown else None
    return None if idle is None else 100.0 - idle - (waiting or 0.0)


def _strands_percent(series: Sequence[Series], host: str, window: Window, worth: float) -> float | None:
    means = [
        mean
        for one in series
        if one.group == HOST_CPU and one.name.startswith(f"{host} vcpu")
        if (mean := mean_between(one, window)) is not None
    ]
    return sum(means) / worth if means else None


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
