"""What a measured migration shows, in words: a pure function of its record."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ldoms.bench.figures import Window
from ldoms.bench.observe.observation import CLIENTS, SQL
from ldoms.bench.observe.series import CHANGED, COPY, GUEST_ALL, HELD_BACK, HOST_CPU, SENT, THROTTLE, mean_between
from ldoms.bench.observe.usage import EMULATOR, MIGRATION
from ldoms.bench.record import RunRecord, Series, Stretch
from ldoms.model.migration import Outcome
from ldoms.model.phases import Phase

MIB = 1 << 20
BUSY_PERCENT = 90.0
"""A thread that uses so much of a CPU has nothing left of it."""
NOTABLE_PERCENT = 5.0
"""Differences of throughput below it are no finding on a machine that does other things, too."""
CROWDED = 1.0
"""Load average for each CPU above which figures say as much about the machine as about the migration."""

Rule = Callable[[RunRecord], Iterator[str]]


def findings(record: RunRecord) -> tuple[str, ...]:
    """Sentences, the most important first."""
    return tuple(sentence for rule in _RULES for sentence in rule(record))


def went_well(record: RunRecord) -> bool:
    """Whether the domain has moved, and nothing was lost over it."""
    report = record.migration
    return (
        report.outcome is Outcome.DONE
        and (record.runs_on == report.target or not report.active)
        and all(item.holds for item in record.checks)
        and not record.load.connections_lost
        and not any(one.connection_lost for by in record.probes.values() for one in by.values())
    )


def _outcome(record: RunRecord) -> Iterator[str]:
    report = record.migration
    if report.outcome is Outcome.DONE:
        yield (
            f"{report.domain} moved from {report.source} to {report.target} in {report.total_s:.1f} s, of which memory"
            f" was copied for {_phase_s(record, Phase.COPY):.1f} s: {report.transferred_bytes / MIB:.0f} MiB in"
            f" {_counted(max(1, len(report.passes)), 'pass', 'passes')}."
            if report.active
            else f"{report.domain}, which was not active, moved from {report.source} to {report.target} in"
            f" {report.total_s:.1f} s."
        )
    else:
        cause = f": {report.cause}" if report.cause else ""
        yield f"{report.domain} did not move ({report.outcome.value}){cause}."
    wanted = report.target if report.outcome is Outcome.DONE else report.source
    if record.runs_on != wanted and report.active:
        yield f"{report.domain} was to run on {wanted} afterwards, and runs on {record.runs_on}."


def _losses(record: RunRecord) -> Iterator[str]:
    broken = [item for item in record.checks if not item.holds]
    for item in broken:
        yield f"The check '{item.name}' does not hold: {item.detail}."
    if record.load.connections_lost:
        yield f"Connections of the load that were lost: {record.load.connections_lost}."
    lost = [
        name for name, by in record.probes.items() if name == SQL and any(one.connection_lost for one in by.values())
    ]
    if lost:
        yield "The connection of the client that looked on was lost."
    if record.checks and not broken and not record.load.connections_lost and not lost:
        names = ", ".join(item.name for item in record.checks)
        yield f"No connection was lost, and every check of the data holds: {names}."


def _suspension(record: RunRecord) -> Iterator[str]:
    report, found = record.migration, record.suspension_ms
    if not report.resumed_at:
        return
    parts = []
    if (by_qemu := found.get("qemu")) is not None:
        parts.append(f"{by_qemu:.0f} ms by QEMU's clock")
    if (by_hosts := found.get("stop_resume")) is not None:
        parts.append(f"{by_hosts:.0f} ms from stop to resumption by the clocks of the hosts")
    if (by_client := found.get("client")) is not None:
        probe = next(name for name in CLIENTS if name in record.probes)
        usual = record.probes[probe].get(Stretch.BEFORE)
        before = f" (at most {usual.longest_gap.seconds * 1000:.0f} ms before the move)" if usual else ""
        parts.append(f"{by_client:.0f} ms without an answer for {CLIENTS[probe]}{before}")
    if parts:
        yield f"The guest stood still for {', '.join(parts)}."
    promised = report.plan.max_suspend_s * 1000 if report.plan else None
    if promised is not None and report.stop_resume_s is not None:
        kept = report.stop_resume_s * 1000 <= promised
        yield f"That {'keeps' if kept else 'breaks'} the promise of {promised:.0f} ms."


def _throughput(record: RunRecord) -> Iterator[str]:
    windows = record.load.windows
    before = windows.get(Stretch.BEFORE)
    if before is None or not before.tps:
        return
    figures = [f"{before.tps:.1f} transactions/s before the move"]
    for stretch, words in ((Stretch.DURING, "during it"), (Stretch.AFTER, "after it")):
        if (one := windows.get(stretch)) is not None:
            figures.append(f"{one.tps:.1f} {words} ({_change(one.tps, before.tps)})")
    yield f"Throughput was {', '.join(figures)}."
    times = [
        f"{one.latency.median_s * 1000:.0f} and {one.latency.p95_s * 1000:.0f} ms {stretch.value}"
        for stretch, one in windows.items()
        if one.latency is not None
    ]
    if times:
        yield f"Latency was, in the median and at 95 %, {', '.join(times)}."


def _guest_cpu(record: RunRecord) -> Iterator[str]:
    """What tracking its memory costs a guest: the paper's mpstat."""
    shown = {series.name: series for series in record.series if series.group == GUEST_ALL}
    copying = _copying(record)
    if "idle" not in shown or copying is None:
        return
    parts = []
    for words, window in (("before the move", record.stretches[Stretch.BEFORE]), ("while memory was copied", copying)):
        idle, usr = mean_between(shown["idle"], window), mean_between(shown["usr"], window)
        if idle is not None and usr is not None:
            parts.append(f"{100 - idle:.0f} % busy {words} (USR {usr:.0f} %)")
    if parts:
        yield f"The guest's CPUs were {', '.join(parts)}."


def _copy(record: RunRecord) -> Iterator[str]:
    report = record.migration
    sent, changed = _line(record, COPY, SENT), _line(record, COPY, CHANGED)
    if sent is not None and changed is not None and sent.values and changed.values:
        yield (
            f"Up to {max(sent.values) / MIB:.0f} MiB/s were sent, while the guest changed up to"
            f" {max(changed.values) / MIB:.0f} MiB/s."
        )
    throttle = _line(record, THROTTLE, HELD_BACK)
    most = max([report.throttle_percent, *(throttle.values if throttle else ())])
    if most:
        yield f"Up to {most:.0f} % of the guest's CPU time was held back, so that the copy came to an end."


def _bound_by(record: RunRecord) -> Iterator[str]:
    """Whether what sends or receives had a CPU left."""
    copying = _copying(record)
    if copying is None:
        return
    report = record.migration
    for host, kind, words in (
        (report.source, MIGRATION, "sends memory"),
        (report.target, MIGRATION, "receives memory"),
        (report.target, EMULATOR, "takes memory in on"),
    ):
        series = _line(record, HOST_CPU, f"{host} {kind}")
        used = mean_between(series, copying) if series is not None else None
        if used is not None and used >= BUSY_PERCENT:
            whom = host if kind == MIGRATION else f"{host}, in QEMU's main loop,"
            yield f"What {words} {whom} used {used:.0f} % of a CPU: more channels and more CPUs there would help."


def _clock(record: RunRecord) -> Iterator[str]:
    clock = record.guest_clock
    if clock is None or clock.before_s is None or clock.after_s is None:
        return
    moved_s = clock.after_s - clock.before_s
    yield (
        f"The guest's clock was {clock.before_s * 1000:+.0f} ms off before the move and {clock.after_s * 1000:+.0f} ms"
        f" after it: {moved_s * 1000:+.0f} ms (measured to {clock.uncertainty_s * 1000:.0f} ms)."
    )


def _database(record: RunRecord) -> Iterator[str]:
    if record.database is None:
        return
    blocks = record.database.block_changes_s.get(Stretch.DURING)
    changed = _line(record, COPY, CHANGED)
    if blocks is not None and changed is not None and changed.values and max(changed.values) > 0:
        rate = max(changed.values) / MIB
        yield (
            f"The database made {blocks:.0f} block changes/s during the move, and the guest changed up to"
            f" {rate:.0f} MiB/s of its memory."
        )


def _conditions(record: RunRecord) -> Iterator[str]:
    conditions = record.conditions
    if conditions.accelerator == "tcg":
        yield "QEMU emulated the guest's processor: with KVM it does many times more, and loses less to the copy."
    if conditions.cpus and conditions.load_average / conditions.cpus > CROWDED:
        yield (
            f"The machine was busy with other things: load average {conditions.load_average:.1f} on {conditions.cpus}"
            " CPUs when the measurement began."
        )


_RULES: tuple[Rule, ...] = (
    _outcome,
    _losses,
    _suspension,
    _throughput,
    _guest_cpu,
    _copy,
    _bound_by,
    _clock,
    _database,
    _conditions,
)


def _phase_s(record: RunRecord, phase: Phase) -> float:
    return sum(one.seconds for one in record.migration.phases if one.name is phase)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _copying(record: RunRecord) -> Window | None:
    """The copy while the guest runs; values are of the second before them, so one second later."""
    for phase in record.migration.phases:
        if phase.name is Phase.COPY:
            return Window(phase.started_at + 0.5, phase.started_at + phase.seconds + 0.5)
    return None


def _line(record: RunRecord, group: str, name: str) -> Series | None:
    return next((one for one in record.series if (one.group, one.name) == (group, name)), None)


def _change(now: float, before: float) -> str:
    percent = 100 * (now / before - 1)
    return "no difference that counts" if abs(percent) < NOTABLE_PERCENT else f"{percent:+.0f} %"
