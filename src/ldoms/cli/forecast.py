"""What is expected of a migration, as text: before it, and beside what came of it."""

from __future__ import annotations

from collections.abc import Iterable

from ldoms.model.forecast import Forecast, ForecastBasis, LinkSource, Range
from ldoms.model.migration import MigrationReport, Outcome

_LINK = {
    LinkSource.PROBE: "tried just now, from QEMU to QEMU",
    LinkSource.EARLIER_PROBE: "tried for an earlier dry run",
    LinkSource.HISTORY: "as in earlier migrations",
    LinkSource.ASSUMED: "assumed: nothing is known of it",
}
_MIB = 1 << 20


def forecast_lines(forecast: Forecast) -> Iterable[str]:
    """What a dry run shows: the figures, and what they stand on."""
    yield f"{'FORECAST':<16} {'EXPECTED':>10}   BETWEEN"
    for name, expected, between in _figures(forecast):
        yield f"{name:<16} {expected:>10}   {between}"
    if not forecast.converges:
        yield "The guest changes its memory too fast for what is promised: the migration would be given up."
    yield "Basis"
    for name, text in basis(forecast.basis):
        yield f"    {name:<15} {text}"


def comparison_lines(report: MigrationReport) -> Iterable[str]:
    """What a report shows: the figures beside the facts, as far as there are any."""
    if report.forecast is None:
        return
    done = report.outcome is Outcome.DONE
    facts = [
        seconds(report.total_s),
        seconds(report.stop_resume_s) if report.stop_resume_s is not None else "-",
        mebibytes(report.transferred_bytes),
        percent(report.slowdown_percent) if report.slowdown_percent is not None else "-",
    ]
    yield f"{'FORECAST':<16} {'EXPECTED':>10} {'FACT':>10}   BETWEEN"
    for (name, expected, between), fact in zip(_figures(report.forecast), facts, strict=True):
        yield f"{name:<16} {expected:>10} {fact if done else '-':>10}   {between}"
    for name, text in basis(report.forecast.basis):
        yield f"  {name:<14} {text}"


def basis(known: ForecastBasis) -> Iterable[tuple[str, str]]:
    """What a forecast stands on, in words."""
    if known.memory is None:
        yield "memory", "could not be looked at: all of it counts"
    else:
        total, used = known.memory.total_bytes, known.memory.nonzero_bytes
        share = known.memory.compressed_share
        packed = f"; compressed, {100 * share:.0f} % would be left of that" if share else ""
        yield "memory", f"{mebibytes(used)} of {mebibytes(total)} are not zero{packed}"
    rates = [f"{mebibytes(one.bytes_s)}/s within {one.window_s:g} s" for one in known.dirty_rates]
    again = f"; {mebibytes(known.working_set_bytes)} again and again" if known.working_set_bytes else ""
    yield "changes", (", ".join(rates) or "not measured") + again
    yield "link", f"{mebibytes(known.link.bytes_s)}/s, {_LINK[known.link.source]}"
    shared = ", shared with guests" if known.control_shared else ""
    yield "control domain", f"{known.control_cpus:g} CPUs, {100 * known.control_busy:.0f} % busy{shared}"
    yield "earlier moves", f"{known.migrations} of this domain" if known.migrations else "none of this domain is known"


def seconds(value: float) -> str:
    """A length of time."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def mebibytes(value: float) -> str:
    """A number of bytes."""
    size = value / _MIB
    return f"{size:.0f} MiB" if size >= 10 or size == 0 else f"{size:.1f} MiB"


def percent(value: float) -> str:
    """A share."""
    return f"{value:.0f} %"


def _figures(forecast: Forecast) -> Iterable[tuple[str, str, str]]:
    for name, value, show in (
        ("total time", forecast.total_s, seconds),
        ("suspension", forecast.suspension_s, seconds),
        ("memory sent", forecast.bytes, mebibytes),
        ("slow-down", forecast.slowdown_percent, percent),
    ):
        known: Range = value
        yield name, show(known.expected), f"{show(known.low)} .. {show(known.high)}"
