"""The experiment of the paper: a domain under load moves, everybody looks, and a record stays.

`run_experiment` has the order of things. Whoever calls it has a domain that runs, and with a workload of ours also its
data in the database; ``ldoms-bench run`` and the table of control-domain CPUs do.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from ldoms.bench.counters import Counters
from ldoms.bench.figures import Window, gaps
from ldoms.bench.findings import findings
from ldoms.bench.loads import Load
from ldoms.bench.move import Move, find_hosts, find_report, migrate, require_domain, shifted
from ldoms.bench.observe.observation import CLIENTS, Observation, Outside, observe
from ldoms.bench.observe.series import clipped, load_series
from ldoms.bench.probe import ProbeFigures, ProbeRecord, probe_figures
from ldoms.bench.record import Conditions, LoadRecord, RunRecord, Stretch, stretches_of, write_record
from ldoms.bench.stage import heading, say
from ldoms.model.errors import HostError
from ldoms.model.migration import MigrationReport

POLL_S = 0.5
SOON_S = 2.0
"""So long before and after a move the guest is looked at closely, too."""
AROUND_S = 0.05
"""Clocks and events are not exacter than that: so long before and after it, an interruption may be the suspension."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What is measured, and for how long.

    Attributes:
        load: None = the domain does what it does.
        pgbench: for the questions to a database from outside.
        warm_up_s: not measured: caches fill.
        before_s, after_s: measured around the migration.
        longest_s: what the load allows for the checks and the migration together.
        runs: directory in which the run gets one of its own.
        identity: of the run; empty = made of the time and the domain.
        watched: without it only the clients' side and the migration's own report are recorded.
        counted: the database's own counters are asked for, which takes a slow guest seconds each time.
        facts: more conditions, by name.
    """

    move: Move
    runs: Path
    load: Load | None = None
    outside: Outside = field(default_factory=Outside)
    pgbench: Path | None = None
    warm_up_s: float = 20.0
    before_s: float = 20.0
    after_s: float = 20.0
    longest_s: float = 3600.0
    identity: str = ""
    watched: bool = True
    counted: bool = True
    facts: Mapping[str, str] = field(default_factory=dict)


def run_experiment(options: RunOptions) -> RunRecord:
    """Move a domain under load and record everything; the record is also in the run's directory, with all raw data.

    Load, probes and watches are ended on every way out; an interrupt also calls the migration off.

    Raises:
        LdomsError: something could not be started, or the migration never began. One that failed has a record.
    """
    require_domain(options.move)
    measured_s = options.before_s + options.longest_s + options.after_s
    options = replace(options, outside=replace(options.outside, seconds=measured_s))
    directory = make_directory(options)
    load, move = options.load, options.move
    with ExitStack() as undo:
        if load is not None:
            heading(f"Load: {load.title}")
            load.start(directory / "load", options.warm_up_s + measured_s)
            undo.callback(load.stop)
            _wait(options.warm_up_s, load)
        load_average = os.getloadavg()[0]
        places = move.places if options.watched else ()
        seen = undo.enter_context(observe(move.domain, places, options.outside, directory, pgbench=options.pgbench))
        counters = Counters(options.outside.server if options.counted else None, options.outside.prefix)
        counters.take()
        begin = time.time()
        closely_s = [min(SOON_S, stretch_s) for stretch_s in (options.before_s, options.after_s)]
        _wait(options.before_s - closely_s[0], load)
        with seen.closely():
            _wait(closely_s[0], load)
            counters.take()
            heading(f"{move.domain} moves from {move.source.name} to {move.to}")
            asked_at = time.time()
            migrate(move)
            counters.take()
            _wait(closely_s[1], load)
        _wait(options.after_s - closely_s[1], load)
        end = time.time()
        counters.take()
    # From here on nothing is measured any more.
    offset_s = seen.logs[0].offset_s if seen.logs else 0.0
    report = find_report(move, asked_at + offset_s - 1.0)
    if report is None:
        raise HostError(f"the migration of {move.domain} did not begin; ldm has said why", code="not-moved")
    record = _record(directory.name, options, seen, shifted(report, offset_s), Window(begin, end), load_average)
    record = replace(record, database=counters.report(record.migration, record.series))
    record = replace(record, guest_clock=counters.clock(record.migration))
    record = replace(record, findings=(*findings(record), *seen.notes, *counters.notes))
    write_record(record, directory)
    return record


def make_directory(options: RunOptions) -> Path:
    """The directory of a run, new: its name is the run's identity."""
    stem = options.identity or f"{time.strftime('%Y%m%d-%H%M%S')}-{options.move.domain}"
    for number in range(1, 1000):
        directory = options.runs / (stem if number == 1 else f"{stem}-{number}")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise HostError(f"{directory} cannot be made: {error.strerror}", code="no-directory") from error
        return directory
    raise HostError(f"{options.runs} is full of runs named {stem}", code="no-directory")


def _record(
    identity: str,
    options: RunOptions,
    seen: Observation,
    report: MigrationReport,
    measured: Window,
    load_average: float,
) -> RunRecord:
    load, probed, stretches = options.load, seen.probes(), stretches_of(measured, report)
    if load is not None:
        say("")
        say("checking the data ...")
    drawn = load_series(load.transactions, measured) if load is not None and load.transactions else ()
    return RunRecord(
        id=identity,
        measured=measured,
        conditions=conditions(seen, load_average, options.facts),
        migration=report,
        suspension_ms=suspension_ms(report, probed),
        load=load.record(stretches) if load is not None else LoadRecord(name="", settings={}),
        series=clipped((*drawn, *seen.series(measured)), measured),
        probes={name: probed_stretches(one, stretches) for name, one in probed.items()},
        checks=load.check() if load is not None else (),
        runs_on=find_hosts(options.move, report),
    )


def conditions(seen: Observation, load_average: float, facts: Mapping[str, str]) -> Conditions:
    """The machine, as the source knows it; where it was not asked, this one."""
    log = seen.logs[0] if seen.logs else None
    versions = log.versions if log is not None else {"kernel": platform.release()}
    known = log.facts if log is not None else None
    if known is None:
        memory_mib = psutil.virtual_memory().total >> 20
        return Conditions("", os.cpu_count() or 0, memory_mib, "", "", load_average, {**versions, **facts})
    return Conditions(
        cpu_model=known.cpu_model,
        cpus=len(known.size.cpus),
        memory_mib=known.size.memory_mib,
        qemu=known.hypervisor.version,
        accelerator=known.hypervisor.accelerator,
        load_average=load_average,
        facts={**versions, **facts},
    )


def suspension_ms(report: MigrationReport, probed: Mapping[str, ProbeRecord]) -> dict[str, float | None]:
    """How long the guest stood still, by three clocks: QEMU's, the hosts', and a client's.

    The client's is the longest time without an answer that the suspension lies in: it also has what comes after the
    resumption, until the guest answers again.
    """
    name = next((name for name in CLIENTS if name in probed), None)
    by_client = None
    if name is not None and report.stopped_at and report.resumed_at:
        around = Window(report.stopped_at - AROUND_S, report.resumed_at + AROUND_S)
        by_client = max(gap.seconds for gap in gaps(probed[name].answer_times, around)) * 1000
    return {
        "qemu": None if report.downtime_s is None else report.downtime_s * 1000,
        "stop_resume": None if report.stop_resume_s is None else report.stop_resume_s * 1000,
        "client": by_client,
    }


def probed_stretches(record: ProbeRecord, stretches: Mapping[Stretch, Window]) -> dict[Stretch, ProbeFigures]:
    """The figures of a probe in each stretch in which it ran."""
    found = {}
    for stretch, window in stretches.items():
        with suppress(ValueError):  # it did not
            found[stretch] = probe_figures(record, window)
    return found


def _wait(seconds: float, load: Load | None) -> None:
    """Let time pass, as long as the load goes on.

    Raises:
        HostError: it does not.
    """
    deadline = time.monotonic() + seconds
    while (left_s := deadline - time.monotonic()) > 0:
        time.sleep(min(POLL_S, left_s))
        if load is not None:
            load.require_running()
