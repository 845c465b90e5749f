"""Records of runs that never were, as rich as real ones: for tests of what reads a record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ldoms.bench.figures import Gap, Percentiles, Window, WindowFigures
from ldoms.bench.probe import ProbeFigures
from ldoms.bench.record import (
    CheckItem,
    Conditions,
    DatabaseReport,
    GuestClockRecord,
    KindFigures,
    LoadRecord,
    RunRecord,
    Series,
    Stretch,
    Table,
)
from ldoms.model.findings import Finding, Severity
from ldoms.model.migration import (
    ClockReading,
    GuestClock,
    MigrationPlan,
    MigrationReport,
    Outcome,
    PassRecord,
    PhaseRecord,
)
from ldoms.model.phases import Phase

BEGUN = 1_790_000_020.0
"""When the migration begins: 20 s after the measurement."""
LENGTHS = {Phase.CHECK: 0.62, Phase.PREPARE: 1.31, Phase.COPY: 9.87, Phase.SUSPEND: 0.054, Phase.HAND_OFF: 0.21}
MIB = 1 << 20


def plausible_record(
    *, seconds: int = 60, cpus: int = 2, outcome: Outcome = Outcome.DONE, name: str = "ldg1"
) -> RunRecord:
    """A domain with a database that moves from t4-1 to t4-2, observed for so many seconds, one sample in each."""
    report = _report(outcome, name)
    measured = Window(BEGUN - 20.0, BEGUN - 20.0 + seconds)
    windows = {
        Stretch.BEFORE: Window(measured.begin, report.started_at),
        Stretch.DURING: Window(report.started_at, report.ended_at),
        Stretch.AFTER: Window(report.ended_at, measured.end),
    }
    return RunRecord(
        id="20260922-142640-ldg1",
        measured=measured,
        conditions=Conditions(
            "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            8,
            32768,
            "10.0.2",
            "tcg",
            3.27,
            {"kernel": "6.18.5", "link of the lab": "veth, not shaped", "congestion control": "reno"},
        ),
        migration=report,
        suspension_ms={"qemu": 36.0, "stop_resume": 54.3, "client": 121.7},
        load=_load(windows),
        series=tuple(_series(measured, report, cpus)),
        probes=_probes(windows),
        checks=(
            CheckItem("client's ledger", True, "10 412 transactions acknowledged, none missing, doubled or invented"),
            CheckItem("order totals", True, "0 of 8 120 orders have a wrong total"),
            CheckItem("stock", True, "0 of 50 000 products have a negative stock"),
        ),
        database=_database(),
        guest_clock=GuestClockRecord(0.0012, -0.0031, 0.0008, True, "10.77.0.1, served by chrony on the host"),
        forecast={
            "Total time": "11.2 s ± 2.0 s",
            "Suspension": "60 ms ± 30 ms",
            "Memory sent": "1.1 GiB",
            "Slow-down of the guest": "12 % less throughput",
        },
        runs_on="t4-2",
        findings=(
            "ldg1 moved from t4-1 to t4-2 in 12.1 s, of which memory was copied for 9.9 s: 977 MiB in 3 passes.",
            "The guest stood still for 36 ms by QEMU's clock, 54 ms by the clocks of the hosts.",
            "That keeps the promise of 300 ms.",
        ),
    )


def _report(outcome: Outcome, name: str) -> MigrationReport:
    phases, at = [], BEGUN
    for phase, length in LENGTHS.items():
        if outcome is not Outcome.DONE and phase is Phase.SUSPEND:
            break
        phases.append(PhaseRecord(phase, at, length))
        at += length
    done = outcome is Outcome.DONE
    return MigrationReport(
        id="b3f0c7a2-91d4-4a55-8c8e-2f1d1e0a6b11",
        domain=name,
        target_name=name,
        uuid="6e1f3a58-9a0c-4cf7-b7f2-0d5b7d1b9a77",
        source="t4-1",
        target="t4-2",
        user="ldmadmin",
        active=True,
        outcome=outcome,
        started_at=BEGUN,
        ended_at=at,
        phases=tuple(phases),
        passes=(
            PassRecord(1, 6.90, 748 * MIB, 166 * MIB),
            PassRecord(2, 1.84, 166 * MIB, 52 * MIB),
            PassRecord(3, 0.71, 52 * MIB, 11 * MIB),
        ),
        plan=MigrationPlan(
            capabilities=("multifd", "return-path", "switchover-ack", "events"),
            channels=2,
            cipher="NORMAL:-CIPHER-ALL:+AES-128-GCM",
            compression="none",
            max_bandwidth_bytes_s=0,
            downtime_limit_s=0.12,
            max_suspend_s=0.3,
            reasons={
                "channels": "2 connections, as each encrypts on a CPU of its own",
                "encryption": "AES-128-GCM, as both processors have AES instructions",
                "suspension": "first tried with 120 ms, raised to 300 ms if that does not do",
                "bandwidth": "not limited",
            },
        ),
        findings=(
            Finding(
                "guest-cpus",
                Severity.WARNING,
                "ldg1 has 2 CPUs; a database should keep at least 8",
                "Add CPUs with ldm add-vcpu.",
            ),
        ),
        clock=ClockReading(0.00042, 0.00015),
        guest_clock=GuestClock(-0.0563, 0.0004) if done else None,
        stopped_at=at - 0.264 if done else 0.0,
        resumed_at=at - 0.2097 if done else 0.0,
        downtime_s=0.036 if done else None,
        stop_resume_s=0.0543 if done else None,
        transferred_bytes=977 * MIB,
        bandwidth_bytes_s=118.4 * MIB,
        throttle_percent=20,
        cause="" if done else "the connection to t4-2 was reset while memory was copied",
    )


def _load(windows: dict[Stretch, Window]) -> LoadRecord:
    rates = {Stretch.BEFORE: 198.2, Stretch.DURING: 167.9, Stretch.AFTER: 196.4}
    slower = {Stretch.BEFORE: 1.0, Stretch.DURING: 2.3, Stretch.AFTER: 1.1}
    kinds = (("nc", "New Customer", 0.15), ("op", "Order Products", 0.3), ("bp", "Browse Products", 0.55))
    return LoadRecord(
        name="orderentry",
        settings={"users": "50", "rate": "200 /s", "customers": "2,000", "warehouses": "50", "warm-up": "20 s"},
        windows={
            stretch: WindowFigures(
                window=window,
                transactions=round(rates[stretch] * window.seconds),
                failed=0,
                tps=rates[stretch],
                latency=_percentiles(slower[stretch]),
                service=_percentiles(slower[stretch] * 0.9),
                longest_gap=Gap(window.begin + 5, 0.04 * slower[stretch] ** 2),
            )
            for stretch, window in windows.items()
        },
        kinds={
            stretch: tuple(
                KindFigures(
                    kind,
                    title,
                    round(rates[stretch] * share * window.seconds),
                    0,
                    0.009 * slower[stretch],
                    0.0064 * slower[stretch],
                    0.021 * slower[stretch],
                    0.048 * slower[stretch],
                    0.117 * slower[stretch],
                )
                for kind, title, share in kinds
            )
            for stretch, window in windows.items()
        },
    )


def _percentiles(times: float) -> Percentiles:
    return Percentiles(0.0071 * times, 0.0232 * times, 0.0518 * times, 0.131 * times)


def _series(measured: Window, report: MigrationReport, cpus: int) -> Iterator[Series]:
    moments = [measured.begin + second for second in range(1, math.floor(measured.seconds) + 1)]
    moving = [report.started_at < at <= report.ended_at + 1 for at in moments]
    copying = [at for at in moments if report.started_at + 2 < at <= report.ended_at]

    def line(group: str, name: str, unit: str, idle: float, busy: float) -> Series:
        values = [
            (busy if moves else idle) * (1 + 0.12 * math.sin(1.7 * at + len(name)))
            for at, moves in zip(moments, moving, strict=True)
        ]
        return Series(group, name, unit, tuple(moments), tuple(values))

    yield line("throughput", "transactions", "1/s", 198, 164)
    for name, idle, busy in (("median", 7.1, 16.0), ("95 %", 23, 54), ("99 %", 52, 120), ("max", 131, 300)):
        yield line("latency", name, "ms", idle, busy)
    for cpu in range(cpus):
        yield _without(line("guest-cpu", f"cpu{cpu} usr", "%", 41 + 3 * cpu, 62), report.ended_at)
    for column, idle, busy in (("usr", 42, 62), ("sys", 11, 20), ("idle", 47, 18)):
        yield _without(line("guest-cpu-all", column, "%", idle, busy), report.ended_at)
    yield line("host-cpu", "vCPU threads", "%", 92, 131)
    yield line("host-cpu", "migration threads", "%", 0.0, 74)
    yield _within(line("migration", "sent", "bytes/s", 0, 96 * MIB), copying)
    yield _within(line("migration", "changed by the guest", "bytes/s", 0, 24 * MIB), copying)
    yield _within(line("migration-left", "left to send", "bytes", 0, 310 * MIB), copying)
    yield _within(line("migration-throttle", "throttle", "%", 0, 20), copying)
    for probe, usual in (("tcp", 6.0), ("sql", 11.0), ("icmp", 5.2)):
        found = line("probes", probe, "ms", usual, usual * 1.6)
        at = min(range(len(moments)), key=lambda index: abs(moments[index] - report.ended_at))
        spiked = (*found.values[:at], 121.7 + usual, *found.values[at + 1 :])
        yield Series(found.group, found.name, found.unit, found.times, spiked)


def _within(series: Series, moments: Sequence[float]) -> Series:
    kept = [(at, value) for at, value in zip(series.times, series.values, strict=True) if at in moments]
    times, values = zip(*kept, strict=True) if kept else ((), ())
    return Series(series.group, series.name, series.unit, times, values)


def _without(series: Series, moment: float) -> Series:
    """Without the samples of two seconds, as when the guest stood still."""
    kept = [at for at in series.times if not moment - 1 < at <= moment + 1]
    return _within(series, kept)


def _probes(windows: dict[Stretch, Window]) -> dict[str, dict[Stretch, ProbeFigures]]:
    gaps = {Stretch.BEFORE: 0.021, Stretch.DURING: 0.1217, Stretch.AFTER: 0.026}
    return {
        name: {
            stretch: ProbeFigures(
                window=window,
                answers=round(window.seconds / interval),
                lost=11 if name == "icmp" and stretch is Stretch.DURING else 0,
                median_gap_s=interval,
                p99_gap_s=interval * 2.2,
                median_round_trip_s=0.0004,
                longest_gap=Gap(window.end - 0.4, gaps[stretch]),
                connection_lost=False,
            )
            for stretch, window in windows.items()
        }
        for name, interval in (("tcp", 0.005), ("sql", 0.01), ("icmp", 0.005))
    }


def _database() -> DatabaseReport:
    return DatabaseReport(
        header=(("Server", "PostgreSQL 15.14"), ("Database", "bench"), ("Instance", "10.77.0.10:5432")),
        tables=(
            Table(
                "Load Profile (during)",
                ("", "Per Second", "Per Transaction"),
                (
                    ("Transactions", 167.9, 1.0),
                    ("Block changes", 1284.5, 7.65),
                    ("Logical reads (blocks)", 41210.0, 245.4),
                    ("Physical reads (blocks)", 12.25, 0.073),
                    ("WAL bytes", 412345.0, 2455.9),
                    ("Logons", None, None),
                ),
                "From pg_stat_database, pg_stat_wal and pg_stat_statements.",
            ),
            Table(
                "SQL ordered by Elapsed Time",
                ("Elapsed s", "Executions", "Mean ms", "% Total", "SQL Text"),
                (
                    (4.211, 1020, 4.128, 31.2, "select orderentry.order_products($1, $2, $3)"),
                    (2.107, 1832, 1.150, 15.6, "select p.product_id, p.list_price, i.quantity_on_hand from products p "
                     "join inventories i using (product_id) where p.category_id = $1 order by p.list_price limit $2"),
                ),
            ),
            Table("Wait Events", ("Event", "Class", "Samples", "% Samples"), (("WALSync", "IO", 318, 41.2),)),
        ),
        block_changes_s={Stretch.BEFORE: 1501.2, Stretch.DURING: 1284.5, Stretch.AFTER: 1490.0},
    )  # fmt: skip
