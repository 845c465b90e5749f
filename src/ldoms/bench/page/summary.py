"""What a reader wants first: how it ended, and a handful of figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ldoms.bench.page.tables import suspension_s
from ldoms.bench.page.units import duration, number, size
from ldoms.bench.record import RunRecord, Stretch
from ldoms.model.migration import Outcome

_TONES = {Outcome.DONE: "good", Outcome.FAILED: "bad", Outcome.CANCELLED: "warn"}
_SAID = {
    Outcome.DONE: "The domain has moved",
    Outcome.FAILED: "The domain did not move",
    Outcome.CANCELLED: "The move was cancelled",
    Outcome.UNDECIDED: "Undecided: the target's answer is missing",
    Outcome.UNDER_WAY: "The move had not ended",
}


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure, and what to read it against."""

    name: str
    value: str
    detail: str = ""


def outcome(record: RunRecord) -> tuple[str, str, str]:
    """How it ended: ``good``, ``bad`` or ``warn``; as a title; and in a sentence with what else went wrong."""
    report = record.migration
    wrong = losses(record)
    arrow = f"{report.source} → {report.target}"
    verdict = _SAID[report.outcome]
    if wrong:
        return "bad", f"{report.domain}: {arrow}", f"{verdict}, but {'; '.join(wrong)}"
    kept = " and nothing was lost" if report.outcome is Outcome.DONE and record.checks else ""
    return _TONES.get(report.outcome, "warn"), f"{report.domain}: {arrow}", verdict + kept


def losses(record: RunRecord) -> tuple[str, ...]:
    """What must not happen, and did."""
    found = [f"'{item.name}' does not hold" for item in record.checks if not item.holds]
    if record.load.connections_lost:
        found.append(f"{number(record.load.connections_lost)} connections were lost")
    report = record.migration
    if report.outcome is Outcome.DONE and record.runs_on and record.runs_on != report.target:
        found.append(f"it runs on {record.runs_on}")
    return tuple(found)


def tiles(record: RunRecord) -> tuple[Tile, ...]:
    """The figures at the top of the page."""
    return tuple(_tiles(record))


def _tiles(record: RunRecord) -> Iterator[Tile]:
    report = record.migration
    yield Tile("Whole move", duration(report.total_s), f"{size(report.transferred_bytes)} sent")
    promised = f"promised: {duration(report.plan.max_suspend_s)}" if report.plan else ""
    yield Tile("Suspension", duration(suspension_s(record)), promised)
    client = record.suspension_ms.get("client")
    if client is not None:
        yield Tile("Longest wait of a client", duration(client / 1000), "between two answers")
    before, during = record.load.windows.get(Stretch.BEFORE), record.load.windows.get(Stretch.DURING)
    if before is not None and during is not None:
        yield Tile("Throughput during the move", f"{number(during.tps)} /s", f"{number(before.tps)} /s before")
        if before.latency and during.latency:
            yield Tile("Latency, 95 %", duration(during.latency.p95_s), f"{duration(before.latency.p95_s)} before")
    if record.checks:
        held = sum(item.holds for item in record.checks)
        yield Tile("Checks of the data", f"{held} of {len(record.checks)}", "hold")
