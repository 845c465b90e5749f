"""``make demo``: a database under load moves from host to host, and the figures say what that did to its clients.

It types the commands that a person would type, in a lab of its own, and takes that lab away again on every way out.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldoms.bench.figures import Window, commit_times, longest_gap, window_figures
from ldoms.bench.ledger import LedgerComparison, check_ledger
from ldoms.bench.log import LoadResult
from ldoms.bench.pgbench import LoadOptions, ensure_pgbench, programs_cache
from ldoms.bench.probe import ProbeRecord, probe_figures, sql_record, start_probe, start_sql_probe
from ldoms.bench.server import Server, query
from ldoms.bench.stage import SOURCE, TARGET, Stage, heading, say, stage
from ldoms.bench.workloads import find_workload
from ldoms.model.codec import to_wire
from ldoms.model.errors import HostError, LdomsError
from ldoms.model.migration import MigrationReport

LAB = "demo"
DOMAIN = "ldg1"
GUEST_ADDRESS = "10.77.0.10"
CLIENTS = 50
RUN = 1
ASK_EVERY_S = 0.01
"""How often the client asks that looks on from outside."""
READY_S = 90.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """How large the demonstration is.

    Attributes:
        warm_up_s: not measured: caches fill, and the emulator translates the server's code.
        before_s, after_s: measured around the migration.
        longest_s: what the load allows for the checks and the migration together.
        rate_per_s: transactions that clients ask for, so many that the guest is busy and not overrun.
    """

    scale: Mapping[str, int] = field(default_factory=lambda: {"customers": 2_000, "warehouses": 50})
    warm_up_s: float = 20.0
    before_s: float = 10.0
    after_s: float = 10.0
    longest_s: float = 120.0
    rate_per_s: float = 15.0


def run_demo(build: Path, options: DemoOptions | None = None) -> int:
    """Run the demonstration.

    Args:
        build: directory for ``demo.json``, the full report, and the clients' logs.
        options: how large it is.

    Returns:
        0 if the domain has moved and nothing was lost, else 1.
    """
    directory = build / "demo"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    heading("A lab: two hosts, each with its own ldmd, and a client")
    with stage(LAB, "--confine", "--strands-per-cpu", "2") as made:
        figures = _Demo(made, directory, options or DemoOptions()).run()
    (build / "demo.json").write_text(json.dumps(figures, indent=2) + "\n")
    say("")
    say(f"Figures              {build / 'demo.json'}")
    lost = _losses(figures)
    for loss in lost:
        say(f"LOST: {loss}")
    return 1 if lost else 0


class _Demo:
    """The steps, in order."""

    def __init__(self, stage: Stage, directory: Path, options: DemoOptions) -> None:
        self._stage = stage
        self._directory = directory
        self._options = options
        self._server = Server(GUEST_ADDRESS)
        self._workload = find_workload("orderentry")

    def run(self) -> dict[str, Any]:
        """From an empty lab to the figures."""
        pgbench = ensure_pgbench(programs_cache())
        self._start_domain()
        self._load_schema()
        options = self._options
        seconds = options.warm_up_s + options.before_s + options.longest_s + options.after_s
        heading(f"{CLIENTS} clients run OrderEntry with pgbench, {options.rate_per_s:g} transactions/s asked for")
        load = self._workload.start(
            pgbench,
            self._server,
            LoadOptions(clients=CLIENTS, seconds=round(seconds), rate_per_s=options.rate_per_s),
            self._directory / "load",
            run=RUN,
            prefix=self._stage.client,
        )
        try:
            time.sleep(options.warm_up_s)
            probe = start_sql_probe(
                pgbench,
                self._server,
                self._directory / "probe",
                interval_s=ASK_EVERY_S,
                seconds=round(seconds),
                prefix=self._stage.client,
            )
            ping = start_probe(
                "icmp", GUEST_ADDRESS, self._directory / "ping.jsonl", seconds=seconds, prefix=self._stage.client
            )
            try:
                begin = time.time()
                time.sleep(options.before_s)
                moved = self._migrate()
                time.sleep(options.after_s)
                end = time.time()
            finally:
                probe.stop()
                ping.stop()
        finally:
            load.stop()
        result = load.result()
        ledger = check_ledger(self._server, RUN, result, prefix=self._stage.client)
        wrong_totals = int(query(self._server, "select oe.wrong_totals()", prefix=self._stage.client)[0][0])
        if isinstance(moved, HostError):
            self._show_failure(ledger)
            raise moved
        asked = sql_record(probe.result(), target=GUEST_ADDRESS, interval_s=ASK_EVERY_S)
        return self._show(moved, Window(begin, end), result, ledger, asked, ping.result(), wrong_totals)

    def _start_domain(self) -> None:
        heading("A PostgreSQL domain on host t4-1")
        self._stage.type(self._stage.lab("guest", "--host", SOURCE, DOMAIN, "postgres"))
        self._stage.type(self._stage.on(SOURCE, "ldm", "start-domain", DOMAIN))
        deadline = time.monotonic() + READY_S
        while True:
            try:
                query(self._server, "select 1", prefix=self._stage.client, timeout_s=5)
                break
            except HostError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
        self._stage.type(self._stage.on(SOURCE, "ldm", "list"))

    def _load_schema(self) -> None:
        scale = self._options.scale
        heading(f"The order-entry schema: {scale['customers']} customers, {scale['warehouses']} warehouses")
        began = time.monotonic()
        self._workload.install(self._server, scale, prefix=self._stage.client)
        say(f"loaded in {time.monotonic() - began:.1f} s")

    def _migrate(self) -> MigrationReport | HostError:
        """Move the domain; if that fails, the clients are accounted for all the same."""
        heading("All checks, and nothing moves")
        self._stage.type(self._stage.migrate_words(DOMAIN, SOURCE, "-n"))
        heading("The domain moves while its clients work")
        try:
            self._stage.type(self._stage.migrate_words(DOMAIN, SOURCE))
        except HostError as error:
            return error
        self._stage.type(self._stage.on(TARGET, "ldm", "list"))
        return self._stage.last_report(SOURCE)

    def _show_failure(self, ledger: LedgerComparison) -> None:
        heading("The domain did not move")
        self._stage.wait_for_manager(SOURCE)  # may be on its way back from a restart
        _print_ledger(to_wire(ledger))
        say(f"{DOMAIN} runs on         {self._stage.runs_on(DOMAIN)}")

    def _show(
        self,
        report: MigrationReport,
        measured: Window,
        result: LoadResult,
        ledger: LedgerComparison,
        asked: ProbeRecord,
        pinged: ProbeRecord,
        wrong_totals: int,
    ) -> dict[str, Any]:
        windows = {
            "before": Window(measured.begin, report.started_at),
            "during": Window(report.started_at, report.ended_at),
            "after": Window(report.ended_at, measured.end),
        }
        tps = {name: round(window_figures(result.transactions, window).tps, 1) for name, window in windows.items()}
        around, before = _around(report), windows["before"]
        seen, seen_before = probe_figures(asked, around), probe_figures(asked, before)
        stall = longest_gap(commit_times(result.transactions), around)
        path = self._directory / f"migration-{report.id[:8]}.json"
        path.write_text(json.dumps(to_wire(report), indent=2) + "\n")
        figures: dict[str, Any] = {
            "total_s": round(report.total_s, 3),
            "suspension_ms": {
                "qemu": _milliseconds(report.downtime_s),
                "stop_resume": _milliseconds(report.stop_resume_s),
                "client": _milliseconds(seen.longest_gap.seconds),
                "ping": _milliseconds(probe_figures(pinged, around).longest_gap.seconds),
            },
            "longest_wait_before_ms": {
                "client": _milliseconds(seen_before.longest_gap.seconds),
                "ping": _milliseconds(probe_figures(pinged, before).longest_gap.seconds),
            },
            "longest_without_commit_ms": _milliseconds(stall.seconds),
            "tps": tps,
            "ledger": {
                "acknowledged": ledger.acknowledged,
                "missing": ledger.missing,
                "doubled": ledger.doubled,
                "invented": ledger.invented,
            },
            "wrong_totals": wrong_totals,
            "connections_lost": len(result.report.lost_clients) + int(seen.connection_lost),
            "phases": [{"name": phase.name.value, "seconds": round(phase.seconds, 3)} for phase in report.phases],
            "runs_on": self._stage.runs_on(DOMAIN),
            "report": str(path),
        }
        _print_figures(figures)
        return figures


def _print_figures(figures: dict[str, Any]) -> None:
    heading("What it took")
    for phase in figures["phases"]:
        say(f"  {phase['name']:<18} {phase['seconds']:8.3f} s")
    say(f"  {'total':<18} {figures['total_s']:8.3f} s")
    suspension, earlier = figures["suspension_ms"], figures["longest_wait_before_ms"]
    say(f"Suspension           {_shown(suspension['qemu'])} by QEMU")
    say(f"                     {_shown(suspension['stop_resume'])} from stop to resumption by the hosts' clocks")
    say(f"Longest wait         {suspension['client']:.0f} ms of an SQL client ({earlier['client']:.0f} before)")
    say(f"                     {suspension['ping']:.0f} ms between answers to ping ({earlier['ping']:.0f} before)")
    tps = figures["tps"]
    say(f"Transactions/s       {tps['before']} before, {tps['during']} during, {tps['after']} after")
    say(f"                     {figures['longest_without_commit_ms']:.0f} ms the longest time without any commit")
    _print_ledger(figures["ledger"])
    say(f"Connections lost     {figures['connections_lost']} of {CLIENTS + 1}")
    say(f"{DOMAIN} runs on         {figures['runs_on']}")
    say(f"Full report          {figures['report']}")


def _print_ledger(ledger: Mapping[str, Any]) -> None:
    say(
        f"Ledger               {ledger['acknowledged']} transactions acknowledged, {ledger['missing']} missing,"
        f" {ledger['doubled']} doubled, {ledger['invented']} invented"
    )


def _losses(figures: dict[str, Any]) -> list[str]:
    """What must not happen, and did."""
    ledger = figures["ledger"]
    found = [f"{ledger[kind]} transactions are {kind}" for kind in ("missing", "doubled", "invented") if ledger[kind]]
    if ledger["acknowledged"] == 0:
        found.append("no transaction was acknowledged at all")
    if figures["wrong_totals"]:
        found.append(f"{figures['wrong_totals']} orders have a wrong total")
    if figures["connections_lost"]:
        found.append(f"{figures['connections_lost']} connections were lost")
    if figures["runs_on"] != TARGET:
        found.append(f"the domain runs on {figures['runs_on']}, not on {TARGET}")
    return found


def _around(report: MigrationReport) -> Window:
    """The migration, and a little of what came before and after it."""
    return Window(report.started_at - 1.0, report.ended_at + 2.0)


def _milliseconds(seconds: float | None) -> float:
    return -1.0 if seconds is None else round(seconds * 1000, 1)


def _shown(milliseconds: float) -> str:
    """A time, which a manager that was restarted meanwhile cannot know."""
    return "unknown" if milliseconds < 0 else f"{milliseconds:.0f} ms"


def main_demo(build: Path) -> int:
    """Run the demonstration, and say in a sentence why it could not be."""
    try:
        return run_demo(build)
    except LdomsError as error:
        print(f"demo: {error.message}", file=sys.stderr)
        return 1
