"""A measured migration on a terminal: a pure function of its record."""

from __future__ import annotations

from collections.abc import Iterator

from ldoms.bench.figures import Percentiles
from ldoms.bench.record import RunRecord, Stretch

_CLOCKS = {
    "qemu": "by QEMU",
    "stop_resume": "from stop to resumption by the hosts' clocks",
    "client": "without an answer, seen from outside",
}


def summary(record: RunRecord) -> list[str]:
    """Lines: phases, suspension, load, probes, checks, findings."""
    return [line for part in (_phases, _suspension, _load, _probes, _checks, _findings) for line in part(record)]


def _phases(record: RunRecord) -> Iterator[str]:
    report = record.migration
    for phase in report.phases:
        yield f"  {phase.name.value:<18} {phase.seconds:9.3f} s"
    yield f"  {'total':<18} {report.total_s:9.3f} s"


def _suspension(record: RunRecord) -> Iterator[str]:
    label = "Suspension"
    for name, words in _CLOCKS.items():
        value = record.suspension_ms.get(name)
        yield f"{label:<20} {'unknown' if value is None else f'{value:.0f} ms':>9} {words}"
        label = ""


def _load(record: RunRecord) -> Iterator[str]:
    windows = record.load.windows
    if not windows:
        return
    yield f"{'Load':<20} {'':>9} {'median':>9} {'95 %':>9} {'99 %':>9} {'longest':>9}"
    for stretch in Stretch:
        if (one := windows.get(stretch)) is not None:
            yield f"  {stretch.value:<18} {f'{one.tps:.1f} tps':>9} {_times(one.latency)}"


def _times(found: Percentiles | None) -> str:
    if found is None:
        return "no transaction"
    cells = [f"{seconds * 1000:.0f} ms" for seconds in (found.median_s, found.p95_s, found.p99_s, found.max_s)]
    return " ".join(f"{cell:>9}" for cell in cells)


def _probes(record: RunRecord) -> Iterator[str]:
    if not record.probes:
        return
    yield f"{'Longest wait':<20} " + " ".join(f"{stretch.value:>9}" for stretch in Stretch)
    for name, by in record.probes.items():
        cells = [f"{by[one].longest_gap.seconds * 1000:.0f} ms" if one in by else "-" for one in Stretch]
        yield f"  {name:<18} " + " ".join(f"{cell:>9}" for cell in cells)


def _checks(record: RunRecord) -> Iterator[str]:
    for item in record.checks:
        yield f"{'Check':<20} {item.name}: {'holds' if item.holds else 'DOES NOT HOLD'} ({item.detail})"
    if record.load.windows:
        yield f"{'Connections lost':<20} {record.load.connections_lost}"
    yield f"{record.migration.domain + ' runs on':<20} {record.runs_on}"


def _findings(record: RunRecord) -> Iterator[str]:
    yield ""
    for sentence in record.findings:
        yield f"- {sentence}"
