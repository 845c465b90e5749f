"""The record of one measured migration: written by ``ldoms-bench run``, read by reports and comparisons.

Everything in it lies on one time axis, seconds since 1970 by the clock of the machine that measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from ldoms.bench.figures import Window, WindowFigures
from ldoms.bench.probe import ProbeFigures
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import RequestError
from ldoms.model.migration import MigrationReport

RECORD_NAME = "run.json"


class Stretch(StrEnum):
    """The three stretches of time that are compared."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity over time.

    Attributes:
        group: what belongs in one picture, such as ``guest-cpu``.
        name: of the line in it, such as ``cpu0 usr``.
        unit: of the values, such as ``%``, ``bytes/s``, ``ms``, ``1/s``.
        times: of the samples, ascending; a value is of the second that ends there.
    """

    group: str
    name: str
    unit: str
    times: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Conditions:
    """The machine and the versions that the figures depend on.

    Attributes:
        accelerator: ``kvm`` or ``tcg``.
        facts: anything else that is worth knowing, by name: kernel, memory, the lab's links, congestion control.
    """

    cpu_model: str
    cpus: int
    memory_mib: int
    qemu: str
    accelerator: str
    load_average: float
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KindFigures:
    """What one kind of transaction did within one stretch; times in seconds, None = there was none."""

    kind: str
    title: str
    transactions: int
    failed: int
    mean_s: float | None
    median_s: float | None
    p95_s: float | None
    p99_s: float | None
    max_s: float | None


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """The load on the domain.

    Attributes:
        name: of the workload, or the command that was run in its place.
        settings: such as users, scale, rate, weights: as they would be typed.
        windows: throughput and latencies in each stretch; empty for a command of one's own.
        kinds: the same by kind of transaction.
    """

    name: str
    settings: dict[str, str]
    windows: dict[Stretch, WindowFigures] = field(default_factory=dict)
    kinds: dict[Stretch, tuple[KindFigures, ...]] = field(default_factory=dict)
    connections_lost: int = 0


@dataclass(frozen=True, slots=True)
class CheckItem:
    """One thing that must hold of the data afterwards, and whether it does."""

    name: str
    holds: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Table:
    """A part of the database report: a title, and rows of text and numbers below named columns.

    Attributes:
        note: where the figures come from and what they mean, in a sentence; may be empty.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class DatabaseReport:
    """What the database did, in the manner of AWR.

    Attributes:
        header: name and value: server, version, instance, windows.
        tables: in the order in which a DBA expects them.
        block_changes_s: per second, in each stretch; the measured dirty rate is set beside it.
    """

    header: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    block_changes_s: dict[Stretch, float]


@dataclass(frozen=True, slots=True)
class GuestClockRecord:
    """The guest's clock against the clock of the machine that measured, seen from outside.

    Attributes:
        before_s, after_s: what the guest's clock was ahead; None = it could not be asked.
        uncertainty_s: half of the longer round trip.
        synchronised: what the guest's own time service said before the move; None = it was not asked.
    """

    before_s: float | None
    after_s: float | None
    uncertainty_s: float
    synchronised: bool | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One measured migration.

    Attributes:
        id: of the run; the directory it lies in has this name.
        forecast: name and value with unit, as it was shown before the move; empty = look at that of the migration.
        suspension_ms: by ``qemu``, ``stop_resume`` and ``client``; None = it could not be measured.
        probes: longest gaps and counts of each outside probe, by its name, in each stretch.
        runs_on: hosts on which the domain ran afterwards.
        findings: in words.
    """

    id: str
    measured: Window
    conditions: Conditions
    migration: MigrationReport
    suspension_ms: dict[str, float | None]
    load: LoadRecord
    series: tuple[Series, ...]
    probes: dict[str, dict[Stretch, ProbeFigures]]
    checks: tuple[CheckItem, ...] = ()
    database: DatabaseReport | None = None
    guest_clock: GuestClockRecord | None = None
    forecast: dict[str, str] = field(default_factory=dict)
    runs_on: str = ""
    findings: tuple[str, ...] = ()

    @property
    def stretches(self) -> dict[Stretch, Window]:
        """The stretches of time that are compared."""
        return stretches_of(self.measured, self.migration)


def stretches_of(measured: Window, migration: MigrationReport) -> dict[Stretch, Window]:
    """What was measured, divided by begin and end of the migration; one that has not ended goes on to the end."""
    begun, ended = migration.started_at, migration.ended_at or measured.end
    return {
        Stretch.BEFORE: Window(measured.begin, begun),
        Stretch.DURING: Window(begun, ended),
        Stretch.AFTER: Window(ended, measured.end),
    }


def write_record(record: RunRecord, directory: Path) -> Path:
    """Write a record into the directory of its run, which exists; returns the file."""
    path = directory / RECORD_NAME
    path.write_text(json.dumps(to_wire(record), indent=1) + "\n")
    return path


def read_record(path: Path) -> RunRecord:
    """Read a record back.

    Raises:
        RequestError: there is none, or it is not one of ours.
    """
    try:
        return from_wire(RunRecord, json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise RequestError(f"there is no record of a run at {path}", code="no-run") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{path} is not the record of a run: {error}", code="bad-record") from error
