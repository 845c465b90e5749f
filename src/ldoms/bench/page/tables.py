"""The tables of the page: what a record says, in rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from ldoms.bench.figures import Percentiles, Window
from ldoms.bench.page.grid import Grid, measured
from ldoms.bench.page.units import NOTHING, duration, milliseconds, moment, number, offset, size
from ldoms.bench.record import KindFigures, LoadRecord, RunRecord, Series, Stretch
from ldoms.model.forecast import Range
from ldoms.model.migration import MigrationPlan, MigrationReport
from ldoms.model.phases import Phase

BLOCK_BYTES = 8192
"""Of PostgreSQL's blocks, unless it was built otherwise."""

PHASES: Mapping[Phase, str] = {
    Phase.CHECK: "hosts describe themselves, every rule is checked",
    Phase.PREPARE: "the target makes the domain that receives, the source begins to track changed memory",
    Phase.COPY: "memory is copied while the guest runs",
    Phase.SUSPEND: "the guest stands still, the rest is copied",
    Phase.HAND_OFF: "the target takes over, the source removes its copy",
}
CLOCKS: Mapping[str, tuple[str, str]] = {
    "qemu": ("QEMU's", "counted on the source; does not see the resumption on the target"),
    "stop_resume": ("Hosts'", "from the stop on the source to the resumption on the target"),
    "client": ("Client's", "longest wait between two answers to a client outside; includes what is usual between them"),
}
"""Names and meanings of the clocks that measure a suspension."""

Pairs = tuple[tuple[str, str], ...]
T = TypeVar("T")


def moved(record: RunRecord) -> Pairs:
    """What was moved, from where to where."""
    report = record.migration
    name = report.domain if report.target_name in ("", report.domain) else f"{report.domain}, now {report.target_name}"
    runs_on = record.runs_on or NOTHING
    return (
        ("Domain", name),
        ("UUID", report.uuid),
        ("From", report.source),
        ("To", report.target),
        ("Asked for by", report.user or NOTHING),
        ("State", "active: a guest ran" if report.active else "not active: no memory to copy"),
        ("Outcome", report.outcome.value),
        ("Runs on", runs_on),
        ("Began", moment(report.started_at)),
        ("Took", duration(report.total_s)),
        ("Memory sent", size(report.transferred_bytes)),
        ("Bandwidth", f"{size(report.bandwidth_bytes_s)}/s" if report.bandwidth_bytes_s else NOTHING),
        ("Held back at most", f"{report.throttle_percent} %" if report.throttle_percent else "not at all"),
        ("Migration", report.id),
    )


def plan(made: MigrationPlan) -> Grid:
    """How the memory was copied, each choice with its reason."""
    first = duration(made.downtime_limit_s)
    limit = f"{size(made.max_bandwidth_bytes_s)}/s" if made.max_bandwidth_bytes_s else "none"
    chosen = {
        "channels": ("Channels", str(made.channels)),
        "encryption": ("Encryption", made.cipher or "none"),
        "compression": ("Compression", made.compression or "none"),
        "bandwidth": ("Limit of bandwidth", limit),
        "suspension": ("Suspension", f"at most {duration(made.max_suspend_s)}, QEMU may use {first} at first"),
        "capabilities": ("Capabilities", ", ".join(made.capabilities) or "none"),
    }
    rows = [(*choice, made.reasons.get(name, "")) for name, choice in chosen.items()]
    rows += [(name, "", reason) for name, reason in made.reasons.items() if name not in chosen]
    return measured("The plan", ("Choice", "Value", "Reason"), rows, text=3)


def phases(report: MigrationReport) -> Grid:
    """The phases that were entered."""
    rows = [
        (
            one.name.value,
            offset(one.started_at - report.started_at),
            duration(one.seconds),
            f"{100 * one.seconds / report.total_s:.1f} %" if report.total_s else NOTHING,
            PHASES[one.name],
        )
        for one in report.phases
    ]
    whole = [("whole move", "", duration(report.total_s), "", "from the request to the end")]
    return measured("", ("Phase", "Began", "Took", "Share", "What happens"), rows + whole, last_is_text=True)


def passes(report: MigrationReport) -> Grid:
    """The passes over the guest's memory."""
    rows = [
        (
            str(one.number),
            duration(one.seconds),
            size(one.sent_bytes),
            size(one.dirty_bytes),
            f"{size(one.dirty_bytes / one.seconds)}/s" if one.seconds > 0 else NOTHING,
        )
        for one in report.passes
    ]
    names = ("Pass", "Took", "Sent", "Changed meanwhile", "Dirty rate")
    return measured("Passes over memory", names, rows, "What changed is where the next pass starts.")


def suspension(record: RunRecord) -> Grid:
    """The suspension by each clock."""
    clock = record.migration.clock
    exact = f"; exact to ±{milliseconds(clock.uncertainty_s * 1000)}" if clock else ""
    rows = []
    for key in [*CLOCKS, *(key for key in record.suspension_ms if key not in CLOCKS)]:
        name, meaning = CLOCKS.get(key, (key, "as seen from outside"))
        rows.append((name, _from_ms(record.suspension_ms.get(key)), meaning + exact * (key == "stop_resume")))
    return measured("", ("Clock", "Suspension", "What it measures"), rows, last_is_text=True)


def forecast(record: RunRecord) -> Grid:
    """What was promised and forecast, and what came of it."""
    rows = []
    plan_made = record.migration.plan
    kept = suspension_s(record)
    if plan_made is not None:
        rows.append(("Suspension, promised", f"at most {duration(plan_made.max_suspend_s)}", duration(kept)))
    known = record.forecast or forecast_texts(record.migration)
    rows += [(name, value, _fact(name, record)) for name, value in known.items()]
    note = "" if known else "The managers made no forecast for this move."
    return measured("", ("What", "Beforehand", "Fact"), rows, note)


def forecast_texts(report: MigrationReport) -> dict[str, str]:
    """The managers' forecast, in words."""
    made = report.forecast
    if made is None:
        return {}

    def text(known: Range, show: Callable[[float], str]) -> str:
        return f"{show(known.expected)} ({show(known.low)} to {show(known.high)})"

    return {
        "Total time": text(made.total_s, duration),
        "Suspension": text(made.suspension_s, duration),
        "Memory sent": text(made.bytes, size),
        "Slow-down of the guest": text(made.slowdown_percent, lambda value: f"{number(value)} %"),
    }


def suspension_s(record: RunRecord) -> float | None:
    """The suspension that counts: by the hosts' clocks, else by QEMU's."""
    report = record.migration
    return report.stop_resume_s if report.stop_resume_s is not None else report.downtime_s


def _fact(name: str, record: RunRecord) -> str:
    """What the forecast of this name is compared with."""
    report, said = record.migration, name.lower()
    if "suspen" in said or "downtime" in said:
        return duration(suspension_s(record))
    if "slow" in said or "throughput" in said:
        return slow_down_text(record.load)
    if "dirty" in said:
        rate = dirty_rate(record)
        return f"{size(rate)}/s" if rate is not None else NOTHING
    if "bandwidth" in said:
        return f"{size(report.bandwidth_bytes_s)}/s" if report.bandwidth_bytes_s else NOTHING
    if any(word in said for word in ("byte", "data", "sent", "transfer")):
        return size(report.transferred_bytes)
    if "pass" in said or "round" in said:
        return str(len(report.passes) + 1) if report.passes else NOTHING
    if any(word in said for word in ("time", "total", "duration", "whole")):
        return duration(report.total_s)
    return NOTHING


def slow_down(load: LoadRecord) -> float | None:
    """The share of its throughput that the load lost while the domain moved."""
    before, during = load.windows.get(Stretch.BEFORE), load.windows.get(Stretch.DURING)
    if before is None or during is None or before.tps <= 0:
        return None
    return 1 - during.tps / before.tps


def slow_down_text(load: LoadRecord) -> str:
    """The same, to be read."""
    share = slow_down(load)
    return NOTHING if share is None else f"{number(100 * share)} % less throughput"


def throughput(load: LoadRecord) -> Grid:
    """The load in each stretch."""
    rows = [
        (
            stretch.value,
            duration(one.window.seconds),
            number(one.transactions),
            number(one.tps),
            number(one.failed),
            *_latency(one.latency),
            duration(one.longest_gap.seconds),
        )
        for stretch, one in _in_order(load.windows)
    ]
    names = (
        "Stretch",
        "Length",
        "Transactions",
        "Per second",
        "Failed",
        "Median",
        "95 %",
        "99 %",
        "Max",
        "Longest gap",
    )
    note = "Latency is what a user waits, from when the transaction was due. A gap is a time without any commit."
    return measured("In each stretch", names, rows, note)


def kinds(load: LoadRecord) -> tuple[Grid, ...]:
    """The load by kind of transaction, a grid for each stretch."""
    return tuple(_kinds(stretch, figures) for stretch, figures in _in_order(load.kinds) if figures)


def _kinds(stretch: Stretch, figures: tuple[KindFigures, ...]) -> Grid:
    rows = [
        (
            one.title or one.kind,
            number(one.transactions),
            number(one.failed),
            *(duration(value) for value in (one.mean_s, one.median_s, one.p95_s, one.p99_s, one.max_s)),
        )
        for one in figures
    ]
    names = ("Transaction", "Count", "Failed", "Mean", "Median", "95 %", "99 %", "Max")
    return measured(f"By kind, {stretch.value} the move", names, rows)


def probes(record: RunRecord) -> Grid:
    """What each client outside saw in each stretch."""
    rows = [
        (
            name,
            stretch.value,
            number(one.answers),
            number(one.lost),
            duration(one.median_round_trip_s),
            duration(one.median_gap_s),
            duration(one.p99_gap_s),
            duration(one.longest_gap.seconds),
            offset(one.longest_gap.at - record.migration.started_at),
            "lost" if one.connection_lost else "kept",
        )
        for name, stretches in record.probes.items()
        for stretch, one in _in_order(stretches)
    ]
    names = (
        "Probe",
        "Stretch",
        "Answers",
        "Lost",
        "Round trip",
        "Gap, median",
        "Gap, 99 %",
        "Longest gap",
        "at",
        "Connection",
    )
    note = "A gap is the time between two answers. Times begin with the request to move the domain."
    return measured("", names, rows, note, text=2, last_is_text=True)


def block_changes(record: RunRecord) -> Grid | None:
    """What the database changed, beside what the hypervisor saw of it; None where the report says so itself."""
    database = record.database
    if (
        database is None
        or not database.block_changes_s
        or any("Dirty Rate" in table.title for table in database.tables)
    ):
        return None
    rate = dirty_rate(record)
    rows = [
        (
            stretch.value,
            number(float(changes)),
            f"{size(changes * BLOCK_BYTES)}/s",
            f"{size(rate)}/s" if rate is not None and stretch is Stretch.DURING else NOTHING,
        )
        for stretch, changes in _in_order(database.block_changes_s)
    ]
    note = (
        "Each change counted as a whole block of 8 KiB. One block that changes often is one dirty page, and a guest"
        " writes more than its database: the two agree in their order of magnitude at best."
    )
    return measured("Block changes and dirty memory", ("Stretch", "Changes/s", "As blocks", "Dirty rate"), rows, note)


def dirty_rate(record: RunRecord) -> float | None:
    """Bytes of memory that the guest changed in a second while it was copied: by the passes, else as observed."""
    passes_ended = [one for one in record.migration.passes if one.seconds > 0]
    if passes_ended:
        return sum(one.dirty_bytes for one in passes_ended) / sum(one.seconds for one in passes_ended)
    observed = [
        one
        for one in record.series
        if one.unit == "bytes/s" and any(word in one.name.lower() for word in ("dirty", "changed"))
    ]
    return mean(observed[0], record.stretches[Stretch.DURING]) if observed else None


def mean(series: Series, window: Window) -> float | None:
    """Of the samples whose second ended in a window."""
    inside = [
        value
        for at, value in zip(series.times, series.values, strict=False)
        if window.begin < at <= window.end and value == value
    ]
    return sum(inside) / len(inside) if inside else None


def guest_clock(record: RunRecord) -> Grid | None:
    """The guest's clock, from outside and from the target."""
    rows = []
    seen, report = record.guest_clock, record.migration
    if seen is not None:
        exact = milliseconds(seen.uncertainty_s * 1000)
        rows.append(("Guest, before the move", _ahead(seen.before_s), exact, "from outside"))
        rows.append(("Guest, after the move", _ahead(seen.after_s), exact, "from outside"))
    if report.guest_clock is not None:
        rows.append(("Guest, on arrival", _ahead(report.guest_clock.error_before_s), NOTHING, "by the target's agent"))
        rows.append(("Guest, then", _ahead(report.guest_clock.error_after_s), NOTHING, "by the target's agent"))
    if report.clock is not None:
        exact = milliseconds(report.clock.uncertainty_s * 1000)
        rows.append(("Target against source", _ahead(report.clock.offset_s), exact, "in the managers' handshake"))
    if not rows:
        return None
    return measured("", ("Clock", "Ahead by", "Exact to ±", "Measured"), rows, _service(record), last_is_text=True)


def _service(record: RunRecord) -> str:
    """What the guest's own time service said."""
    seen = record.guest_clock
    if seen is None or seen.synchronised is None:
        return "The guest's time service was not asked."
    state = "was synchronised" if seen.synchronised else "was not synchronised"
    return f"The guest's time service {state} before the move" + (f", with {seen.source}." if seen.source else ".")


def conditions(record: RunRecord) -> Pairs:
    """The machine that the figures hold for."""
    here = record.conditions
    emulated = ": QEMU emulates the processor, figures are those of an emulated guest" * (here.accelerator == "tcg")
    return (
        ("Processor", f"{here.cpu_model}, {here.cpus} CPUs"),
        ("Memory", size(here.memory_mib * 2**20)),
        ("QEMU", here.qemu),
        ("Accelerator", here.accelerator + emulated),
        ("Load average", number(here.load_average)),
        ("Measured", f"{moment(record.measured.begin)}, for {duration(record.measured.seconds)}"),
        *here.facts.items(),
    )


def _from_ms(value: float | None) -> str:
    return NOTHING if value is None else duration(value / 1000)


def _ahead(seconds: float | None) -> str:
    return NOTHING if seconds is None else milliseconds(seconds * 1000)


def _latency(latency: Percentiles | None) -> tuple[str, ...]:
    if latency is None:
        return (NOTHING,) * 4
    return tuple(map(duration, (latency.median_s, latency.p95_s, latency.p99_s, latency.max_s)))


def _in_order(stretches: Mapping[Stretch, T]) -> list[tuple[Stretch, T]]:
    return [(stretch, stretches[stretch]) for stretch in Stretch if stretch in stretches]
