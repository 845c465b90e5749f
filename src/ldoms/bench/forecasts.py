"""``ldoms-bench forecast``: what ``ldm migrate-domain -n`` expects, beside the move that follows.

Guests differ in how much of their memory is filled and in how they change it; links, encryption and the control
domains' CPUs take turns in shuffled order on each of them. Every figure is kept, also of a move that fails.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ldoms.bench.backed import backed_memory
from ldoms.bench.migrations import host_facts
from ldoms.bench.stage import SOURCE, TARGET, Stage, heading, say, stage
from ldoms.model.codec import from_wire, to_wire
from ldoms.model.errors import HostError, LdomsError
from ldoms.model.forecast import Forecast, Range
from ldoms.model.migration import MigrationReport, Outcome

LAB = "forecast"
SEED = 4
STRANDS_PER_CPU = 8
GUEST_VCPUS, GUEST_MEMORY = 4, "640M"
HELD_MIB = 1024
"""Of free memory, for what receives the trial, or the guest: more than either."""
SETTLE_S, PAUSE_S = 15.0, 2.0
"""After the start of a guest, and between a dry run and its move."""
LONGEST = "180s"
TARGETS: Mapping[str, float] = {"total": 0.15, "suspension": 0.30}
"""Median error that is aimed at; and no case is to be off by more than a factor of two."""
FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """What the guest has filled, and changes: MiB, MiB and MiB/s."""

    fill_mib: int
    change_mib: int = 0
    rate_mib_s: int = 0

    def __str__(self) -> str:
        changes = f", {self.change_mib} at {self.rate_mib_s}/s" if self.rate_mib_s else ""
        return f"{self.fill_mib} MiB{changes}"


@dataclass(frozen=True, slots=True)
class Way:
    """What lies between: the link as ``ldoms-lab shape`` takes it, encryption, strands of the control domains."""

    rate: str = ""
    delay: str = ""
    encrypted: bool = True
    control_strands: int = 8

    def __str__(self) -> str:
        link = " ".join([self.rate or "unlimited", *([self.delay] if self.delay else [])])
        return f"{link}, {'TLS' if self.encrypted else 'clear'}, {self.control_strands / STRANDS_PER_CPU:g} CPU"


LOADS = (Load(96), Load(320, 16, 8), Load(192, 48, 24), Load(448, 32, 4))
WAYS = (
    Way(),
    Way(encrypted=False),
    Way(control_strands=4),
    Way(rate="1gbit"),
    Way(rate="1gbit", delay="5ms", encrypted=False),
    Way(rate="500mbit", delay="2ms", control_strands=12),
    Way(rate="200mbit"),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of one case: what was expected and what came."""

    expected: float
    low: float
    high: float
    fact: float

    @property
    def error(self) -> float:
        """The share of the fact that the forecast was off by."""
        return abs(self.expected - self.fact) / self.fact

    @property
    def factor(self) -> float:
        """By how much the larger of the two is larger."""
        if self.expected <= 0 or self.fact <= 0:
            return float("inf")
        return max(self.expected / self.fact, self.fact / self.expected)

    @property
    def is_within(self) -> bool:
        """Whether the fact lies in the range."""
        return self.low <= self.fact <= self.high


@dataclass(frozen=True, slots=True)
class Case:
    """A load, a way, and what came of it; no comparisons if the move did not end well."""

    load: Load
    way: Way
    forecast: Forecast
    report: MigrationReport
    cpu_load: float

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.load}; {self.way}"

    @property
    def comparisons(self) -> Mapping[str, Comparison]:
        """Of the total time, the suspension and the bytes."""
        known, report = self.forecast, self.report
        if report.outcome is not Outcome.DONE or report.stop_resume_s is None:
            return {}
        facts: Mapping[str, tuple[Range, float]] = {
            "total": (known.total_s, report.total_s),
            "suspension": (known.suspension_s, report.stop_resume_s),
            "bytes": (known.bytes, float(report.transferred_bytes)),
        }
        return {name: Comparison(one.expected, one.low, one.high, fact) for name, (one, fact) in facts.items()}


def summary(cases: Sequence[Case]) -> dict[str, Any]:
    """Median error, the worst factor, the share of facts within their range, and the cases that are off by too much."""
    found: dict[str, Any] = {}
    for figure in ("total", "suspension", "bytes"):
        known = [(case.name, case.comparisons[figure]) for case in cases if case.comparisons]
        if not known:
            continue
        found[figure] = {
            "cases": len(known),
            "median_error": round(statistics.median(one.error for _, one in known), 4),
            "worst_factor": round(max(one.factor for _, one in known), 3),
            "within_range": round(sum(one.is_within for _, one in known) / len(known), 3),
            "off_by_more_than_a_factor_of_two": [name for name, one in known if one.factor > FACTOR],
        }
    return found


def run_forecasts(build: Path, loads: Sequence[Load], ways: Sequence[Way]) -> None:
    """Measure, print a table, and write ``forecast.json`` into the directory `build`.

    Raises:
        LdomsError: a command failed.
    """
    order = random.Random(SEED)  # noqa: S311
    cases: list[Case] = []
    heading(f"A lab, {len(loads)} guests one after the other, {len(ways)} ways in shuffled order")
    with stage(LAB, "--confine", "--strands-per-cpu", str(STRANDS_PER_CPU)) as made:
        facts = host_facts(made)
        for number, load in enumerate(loads):
            place = _start(made, f"g{number}", load)
            for way in order.sample(list(ways), len(ways)):
                _lay(made, way)
                case = _measure(made, f"g{number}", place, load, way)
                cases.append(case)
                _write(build, facts, cases)
                _print_case(case)
                place = made.runs_on(f"g{number}")
            _lay(made, Way())
            for verb in (("stop-domain", "-f"), ("unbind-domain",), ("remove-domain",)):
                made.output(made.on(place, "ldm", *verb, f"g{number}"))
    _print_summary(summary(cases))
    say(f"\nAll values           {build / 'forecast.json'}")


def _write(build: Path, facts: Mapping[str, Any], cases: Sequence[Case]) -> None:
    build.mkdir(parents=True, exist_ok=True)
    result = {"host": facts, "summary": summary(cases), "cases": [_data(case) for case in cases]}
    (build / "forecast.json").write_text(json.dumps(result, indent=2) + "\n")


def _start(made: Stage, name: str, load: Load) -> str:
    values = {"pulse.fill": load.fill_mib, "pulse.size": load.change_mib, "pulse.rate": load.rate_mib_s}
    words = [word for key, value in values.items() for word in ("-P", f"{key}={value}")]
    for host in (SOURCE, TARGET):
        made.output(made.on(host, "ldm", "set-vcpu", "8", "primary"))
    made.output(made.lab("guest", *words, "--vcpus", str(GUEST_VCPUS), "--memory", GUEST_MEMORY, name, "tiny"))
    made.output(made.on(SOURCE, "ldm", "start-domain", name))
    time.sleep(SETTLE_S)
    return SOURCE


def _lay(made: Stage, way: Way) -> None:
    shape = [*(("--rate", way.rate) if way.rate else ()), *(("--delay", way.delay) if way.delay else ())]
    made.output(made.lab("shape", *shape))
    for host in (SOURCE, TARGET):
        made.output(made.on(host, "ldm", "set-vcpu", str(way.control_strands), "primary"))


def _measure(made: Stage, name: str, place: str, load: Load, way: Way) -> Case:
    options = ("--max-time", LONGEST, *(() if way.encrypted else ("--no-encryption",)))
    cpu_load = os.getloadavg()[0]
    with backed_memory(HELD_MIB) as about_to_try:
        about_to_try()
        dry = json.loads(made.output(made.migrate_words(name, place, "-n", "--json", *options)))
    forecast = from_wire(MigrationReport, dry).forecast
    if forecast is None:
        raise HostError(f"the dry run of {name} has made no forecast: its guest does not run", code="guest-gone")
    time.sleep(PAUSE_S)
    with backed_memory(HELD_MIB) as about_to_move:
        about_to_move()
        try:
            made.output(made.migrate_words(name, place, *options))
        except HostError as error:
            say(error.message)  # the report tells what was forecast and what came of it
    report = made.last_report(place)
    time.sleep(PAUSE_S)
    return Case(load, way, forecast, report, cpu_load)


def _data(case: Case) -> dict[str, Any]:
    return {
        "case": case.name,
        "load": asdict(case.load),
        "way": asdict(case.way),
        "load_average": case.cpu_load,
        "outcome": case.report.outcome.value,
        "converges": case.forecast.converges,
        "comparisons": {name: {**asdict(one), "error": one.error} for name, one in case.comparisons.items()},
        "forecast": to_wire(case.forecast),
        "report": to_wire(case.report),
    }


def _print_case(case: Case) -> None:
    cells = [f"{name} {one.expected:.3g} -> {one.fact:.3g} ({one.error:.0%})" for name, one in case.comparisons.items()]
    told = "" if case.forecast.converges else " (forecast: it would be given up)"
    say(f"{case.name:<58} {'; '.join(cells) or case.report.outcome.value}{told}")


def _print_summary(found: Mapping[str, Any]) -> None:
    heading("Forecast against fact")
    for figure, one in found.items():
        aim = f", aim {TARGETS[figure]:.0%}" if figure in TARGETS else ""
        say(
            f"{figure:<11} median error {one['median_error']:.1%}{aim}; worst by a factor of {one['worst_factor']};"
            f" within its range {one['within_range']:.0%} of {one['cases']}"
        )
        for name in one["off_by_more_than_a_factor_of_two"]:
            say(f"            off by more than {FACTOR:g}: {name}")


def main_forecasts(build: Path) -> int:
    """Measure, and say in a sentence why it could not be."""
    try:
        run_forecasts(build, LOADS, WAYS)
    except LdomsError as error:
        print(f"bench: {error.message}", file=sys.stderr)
        return 1
    return 0
