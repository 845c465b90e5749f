"""``make bench``: how long a live migration takes, and how long the guest stands still, by guest and by encryption.

All cases take turns in shuffled order within one run, on the same two guests: figures of different runs do not compare,
ratios within a run do. Each value is kept.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldoms.bench.stage import SOURCE, TARGET, Stage, heading, say, stage
from ldoms.model.errors import HostError, LdomsError
from ldoms.model.migration import MigrationReport

LAB = "bench"
SEED = 1
MEMORY = "512M"
SETTLE_S = 5.0
"""After which a guest has booted and filled its memory."""


@dataclass(frozen=True, slots=True)
class GuestKind:
    """A tiny guest: MiB filled with what does not compress, and MiB changed at a rate in MiB/s."""

    name: str
    fill_mib: int
    change_mib: int
    rate_mib_s: int

    @property
    def words(self) -> list[str]:
        """For ``ldoms-lab guest``."""
        values = {"pulse.fill": self.fill_mib, "pulse.size": self.change_mib, "pulse.rate": self.rate_mib_s}
        return [word for key, value in values.items() for word in ("-P", f"{key}={value}")]


GUESTS = (GuestKind("idle", 192, 0, 0), GuestKind("busy", 192, 32, 32))
ENCRYPTION: Mapping[str, tuple[str, ...]] = {"TLS": (), "clear": ("--no-encryption",)}
FIGURES: Mapping[str, str] = {
    "total_s": "seconds from request to end",
    "stop_resume_ms": "milliseconds from stop to resumption, hosts' clocks",
    "qemu_downtime_ms": "milliseconds of suspension as QEMU says",
    "transferred_mib": "MiB sent",
}


def run_migrations(build: Path, rounds: int) -> None:
    """Measure, print a table, and write ``bench.json`` into the directory `build`.

    Raises:
        LdomsError: a command failed.
    """
    cases = [(kind, encryption) for kind in GUESTS for encryption in ENCRYPTION]
    values: dict[str, dict[str, list[float]]] = {
        f"{kind.name}, {encryption}": {figure: [] for figure in FIGURES} for kind, encryption in cases
    }
    order = random.Random(SEED)  # noqa: S311
    heading(f"A lab, two guests, and {rounds} rounds of {len(cases)} migrations in shuffled order")
    with stage(LAB) as made:
        for kind in GUESTS:
            made.type(made.lab("guest", *kind.words, "--memory", MEMORY, kind.name, "tiny"))
            made.type(made.on(SOURCE, "ldm", "start-domain", kind.name))
        time.sleep(SETTLE_S)
        places = {kind.name: SOURCE for kind in GUESTS}
        for number in range(rounds):
            for kind, encryption in order.sample(cases, len(cases)):
                report = _migrate(made, kind.name, places[kind.name], ENCRYPTION[encryption])
                places[kind.name] = TARGET if places[kind.name] == SOURCE else SOURCE
                for figure, value in _figures(report).items():
                    values[f"{kind.name}, {encryption}"][figure].append(value)
            say(f"round {number + 1} of {rounds}")
        facts = host_facts(made)
    summary = {case: {name: _summary(series) for name, series in of.items()} for case, of in values.items()}
    build.mkdir(parents=True, exist_ok=True)
    result = {"host": facts, "units": dict(FIGURES), "rounds": rounds, "cases": summary}
    (build / "bench.json").write_text(json.dumps(result, indent=2) + "\n")
    _print(summary)
    say(f"\nAll values           {build / 'bench.json'}")


def _migrate(made: Stage, domain: str, source: str, options: Sequence[str]) -> MigrationReport:
    made.output(made.migrate_words(domain, source, *options))
    return made.last_report(source)


def _figures(report: MigrationReport) -> dict[str, float]:
    if report.stop_resume_s is None or report.downtime_s is None:
        raise HostError(f"the guest {report.domain} did not run when it was moved", code="guest-gone")
    return {
        "total_s": report.total_s,
        "stop_resume_ms": report.stop_resume_s * 1000,
        "qemu_downtime_ms": report.downtime_s * 1000,
        "transferred_mib": report.transferred_bytes / (1 << 20),
    }


def _summary(series: Sequence[float]) -> dict[str, Any]:
    return {
        "median": round(statistics.median(series), 3),
        "min": round(min(series), 3),
        "max": round(max(series), 3),
        "values": [round(value, 3) for value in series],
    }


def host_facts(made: Stage) -> dict[str, Any]:
    """The machine that the figures hold for."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {
        "processor": next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown"),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "versions": made.output(made.on(SOURCE, "ldm", "-V")).splitlines(),
    }


def _print(summary: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    heading("Median [least .. most]")
    say(f"{'':<14}" + "".join(f"{name:>28}" for name in FIGURES))
    for case, figures in summary.items():
        cells = [f"{one['median']:.4g} [{one['min']:.4g} .. {one['max']:.4g}]" for one in figures.values()]
        say(f"{case:<14}" + "".join(f"{cell:>28}" for cell in cells))


def main_migrations(build: Path, rounds: int) -> int:
    """Measure, and say in a sentence why it could not be."""
    try:
        run_migrations(build, rounds)
    except LdomsError as error:
        print(f"bench: {error.message}", file=sys.stderr)
        return 1
    return 0
