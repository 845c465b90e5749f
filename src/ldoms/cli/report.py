"""The report of a migration as text: in a list, and in full."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from ldoms.cli.forecast import comparison_lines
from ldoms.cli.plan import reason_lines
from ldoms.cli.text import PARSE_VERSION, columns, record
from ldoms.model.boost import Boost
from ldoms.model.guest import GuestTime
from ldoms.model.migration import LimitChange, MigrationReport, Outcome, Postcopy, Stall
from ldoms.model.phases import QUEUED
from ldoms.model.queue import Queued

_WIDTHS = (8, 15, 16, 12, 12, 10, 8)


def migration_lines(reports: Sequence[MigrationReport]) -> Iterable[str]:
    """One line for each migration."""
    yield columns(_WIDTHS, ["ID", "STARTED", "DOMAIN", "SOURCE", "TARGET", "OUTCOME", "TOTAL", "SUSPENDED"])
    for report in reports:
        yield columns(
            _WIDTHS,
            [
                *(report.id[:8], _moment(report.started_at), report.domain, report.source, report.target),
                *(_outcome(report), f"{report.total_s:.1f}s", milliseconds(report.stop_resume_s)),
            ],
        )


def migration_records(reports: Sequence[MigrationReport]) -> Iterable[str]:
    """The same for programs; times in seconds."""
    yield PARSE_VERSION
    for report in reports:
        yield record(
            "MIGRATION",
            id=report.id,
            domain=report.domain,
            target_domain=report.target_name,
            source=report.source,
            target=report.target,
            outcome=report.outcome.value,
            started=f"{report.started_at:.3f}",
            total=f"{report.total_s:.3f}",
            downtime="" if report.downtime_s is None else f"{report.downtime_s:.3f}",
            suspended="" if report.stop_resume_s is None else f"{report.stop_resume_s:.3f}",
            bytes=report.transferred_bytes,
        )


def report_lines(report: MigrationReport) -> Iterable[str]:
    """Everything about one migration."""
    name = report.domain if report.domain == report.target_name else f"{report.domain} (as {report.target_name})"
    yield f"Migration {report.id}"
    yield f"    LDom {name}, {report.source} -> {report.target}, by {report.user}: {report.outcome.value}"
    if report.cause:
        yield f"    {report.cause}"
    yield f"    started {datetime.fromtimestamp(report.started_at).isoformat(sep=' ', timespec='milliseconds')}"
    yield ""
    yield f"    {'PHASE':<12} {'SECONDS':>9}"
    for phase in report.phases:
        yield f"    {phase.name.value:<12} {phase.seconds:>9.3f}"
    yield f"    {'total':<12} {report.total_s:>9.3f}"
    if report.passes:
        yield ""
        yield f"    {'PASS':<6} {'SECONDS':>9} {'SENT':>12} {'LEFT DIRTY':>12}"
        for entry in report.passes:
            sent, dirty = mebibytes(entry.sent_bytes), mebibytes(entry.dirty_bytes)
            yield f"    {entry.number:<6} {entry.seconds:>9.3f} {sent:>12} {dirty:>12}"
    if report.storage:
        yield ""
        yield f"    {'DISK':<12} {'SECONDS':>9} {'SIZE':>12} {'COPIED':>12}  TO"
        for disk in report.storage:
            size, copied = mebibytes(disk.size_bytes), mebibytes(disk.copied_bytes)
            yield f"    {disk.disk:<12} {disk.seconds:>9.3f} {size:>12} {copied:>12}  {disk.path}"
    if report.active:
        yield ""
        yield f"    suspended    {_suspended(report)}"
        yield f"                 {milliseconds(report.downtime_s)} by QEMU"
        bandwidth = f"{mebibytes(report.bandwidth_bytes_s)}/s in the last part"
        yield f"    sent         {mebibytes(report.transferred_bytes)}, {bandwidth}"
        yield f"    throttled    {_throttled(report)}"
    if report.stall is not None:
        yield from _stall_lines(report.stall)
    if report.earlier:
        yield f"    second try   the last part of the first one came too late: {report.earlier}"
    if report.postcopy is not None:
        yield from _postcopy_lines(report.postcopy, report)
    if report.queued is not None:
        yield f"    queued       {_waited(report.queued)}"
    if report.boost is not None:
        yield from _boost_lines(report.boost, report)
    yield from _change_lines(report.changes)
    if report.clock is not None:
        offset, uncertainty = report.clock.offset_s, report.clock.uncertainty_s
        yield f"    host clocks  {offset * 1000:+.1f} ms apart (measured to within {uncertainty * 1000:.1f} ms)"
    if report.guest_time is not None:
        before = report.guest_time.offset_s
        yield f"    guest time   {before * 1000:+.0f} ms off before the move, {_kept(report.guest_time)}"
    if report.guest_clock is not None:
        before, after = report.guest_clock.error_before_s, report.guest_clock.error_after_s
        kept = report.guest_time is not None and report.guest_time.is_synchronised
        then = "left to the guest to correct" if kept else f"{after * 1000:+.0f} ms after correction"
        yield f"    guest clock  {before * 1000:+.0f} ms off on arrival, {then}"
    if report.forecast is not None:
        yield ""
        yield from (f"    {line}" for line in comparison_lines(report))
    if report.plan is not None:
        yield ""
        yield from reason_lines(report.plan)
    if report.findings:
        yield ""
        for finding in report.findings:
            yield f"    {finding.severity.value:<12} {finding.message}"


def _outcome(report: MigrationReport) -> str:
    """The outcome, or the place in the queue of one that waits."""
    if report.outcome is Outcome.UNDER_WAY and report.queued is not None and report.queued.position:
        return f"{QUEUED} {report.queued.position}"
    return report.outcome.value


def _suspended(report: MigrationReport) -> str:
    """By the hosts' clocks, on the way to the target or back."""
    if report.stop_resume_s is None and report.stopped_at and report.resumed_at:
        return f"{milliseconds(report.resumed_at - report.stopped_at)}, then resumed on {report.source}"
    return f"{milliseconds(report.stop_resume_s)} from stop to resumption by the hosts' clocks"


def _waited(queued: Queued) -> str:
    """How long it has waited for its turn, or that it does, and for what."""
    if queued.position:
        return f"number {queued.position}: {queued.reason}"
    return f"{queued.seconds:.1f}s; at last: {queued.reason}"


def _boost_lines(boost: Boost, report: MigrationReport) -> Iterable[str]:
    """What was lent to the control domains, how much, and when."""
    since = f"{boost.lent_at - report.started_at:.1f}s"
    until = f"{boost.returned_at - report.started_at:.1f}s after the start" if boost.returned_at else "now"
    taken = f"; {boost.taken} given to a domain before" if boost.taken else ""
    yield f"    boost        {boost.source_strands} strands lent to primary from {since} to {until}{taken}"
    yield f"                 {boost.target_strands} on the target; {boost.reason}"


def milliseconds(seconds: float | None) -> str:
    """A short time, or a dash if it is not known."""
    return "-" if seconds is None else f"{seconds * 1000:.0f}ms"


def mebibytes(size: float) -> str:
    """A number of bytes in MiB."""
    return f"{size / (1 << 20):.1f} MiB"


def _throttled(report: MigrationReport) -> str:
    if not report.throttled_s:
        return f"{report.throttle_percent} %"
    cost = f"{report.held_back_s:.1f} s of CPU time held back from each virtual CPU"
    return f"{report.throttle_percent} % at most, for {report.throttled_s:.1f} s: {cost}"


def _stall_lines(stall: Stall) -> Iterable[str]:
    dirty, sent = mebibytes(stall.dirty_bytes_s), mebibytes(stall.bandwidth_bytes_s)
    done = ", then ".join(stall.measures)
    yield f"    stalled      after {stall.passes} passes and {stall.after_s:.1f} s: {dirty}/s changed, {sent}/s sent,"
    yield f"                 at best {milliseconds(stall.left_s)} of suspension needed; {done}"


def _postcopy_lines(part: Postcopy, report: MigrationReport) -> Iterable[str]:
    """How the rest came of a guest that ran on the target before it was there."""
    lasts = f"for {part.seconds:.1f} s" if part.seconds else "under way"
    missing, sent = mebibytes(part.missing_bytes), mebibytes(part.sent_bytes)
    yield f"    postcopy     {lasts}, from {part.began_at - report.started_at:.1f} s after the start"
    yield f"                 {missing} were missing, {sent} sent"
    if part.recoveries:
        yield f"                 connected anew {part.recoveries} times, {part.broken_s:.1f} s without a connection"
    if part.is_lost:
        yield "                 the guest has ended before it had all of its memory"


def _change_lines(changes: Iterable[LimitChange]) -> Iterable[str]:
    for change in changes:
        is_rate = change.name.endswith("_bytes_s")
        name = change.name.removesuffix("_bytes_s" if is_rate else "_s").replace("_", "-")
        before, after = (
            f"{mebibytes(value)}/s" if is_rate else f"{value:g} s" for value in (change.before, change.after)
        )
        yield f"    changed      {name} from {before} to {after} by {change.user}, {_moment(change.changed_at)}"


def _kept(time: GuestTime) -> str:
    if time.service is None:
        return "kept by nobody that is known"
    if not time.service.synchronised:
        return f"not synchronised by {time.service.program}"
    return f"synchronised by {time.service.program}" + (f" with {time.service.source}" if time.service.source else "")


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%b %d %H:%M:%S")
