"""What a reader wants first: how it ended, a handful of figures, and findings in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ldoms.bench.page.tables import slow_down, suspension_s
from ldoms.bench.page.units import NOTHING, duration, milliseconds, number, size
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
        yield Tile("Longest wait of a client", milliseconds(client), "between two answers")
    before, during = record.load.windows.get(Stretch.BEFORE), record.load.windows.get(Stretch.DURING)
    if before is not None and during is not None:
        yield Tile("Throughput during the move", f"{number(during.tps)} /s", f"{number(before.tps)} /s before")
        if before.latency and during.latency:
            yield Tile("Latency, 95 %", duration(during.latency.p95_s), f"{duration(before.latency.p95_s)} before")
    if record.checks:
        held = sum(item.holds for item in record.checks)
        yield Tile("Checks of the data", f"{held} of {len(record.checks)}", "hold")


def sentences(record: RunRecord) -> tuple[str, ...]:
    """Findings in words, for a record that has none of its own."""
    return tuple(_sentences(record))


def _sentences(record: RunRecord) -> Iterator[str]:
    report = record.migration
    kept = suspension_s(record)
    if kept is not None and report.plan is not None:
        promised = report.plan.max_suspend_s
        verb = "kept" if kept <= promised else "broken"
        yield f"The guest stood still for {duration(kept)}; at most {duration(promised)} were promised: {verb}."
    share = slow_down(record.load)
    if share is not None:
        after = record.load.windows.get(Stretch.AFTER)
        word = "lost" if share >= 0 else "gained"
        yield (
            f"The load {word} {number(100 * abs(share))} % of its throughput while the domain moved"
            + (f", and ran at {number(after.tps)} transactions/s afterwards." if after else ".")
        )
    if report.throttle_percent:
        yield f"The guest was held back by up to {report.throttle_percent} % so that the copy could end."
    lost = record.load.connections_lost
    if record.load.windows:
        yield "No connection was lost." if not lost else f"{number(lost)} connections were lost."
    for item in record.checks:
        if not item.holds:
            yield f"{item.name} does not hold: {item.detail or NOTHING}."
