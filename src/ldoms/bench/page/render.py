"""A record as the text of its page."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ldoms import __version__
from ldoms.bench.page import tables
from ldoms.bench.page.drawing import Drawing, colour, dash, draw, draw_phases
from ldoms.bench.page.grid import grid_of
from ldoms.bench.page.lines import Chart, charts_of
from ldoms.bench.page.summary import outcome, tiles
from ldoms.bench.page.units import moment
from ldoms.bench.record import RECORD_NAME, RunRecord

SECTIONS = (
    ("summary", "Summary"),
    ("moved", "What was moved"),
    ("phases", "Phases"),
    ("forecast", "Forecast against fact"),
    ("suspension", "Suspension"),
    ("load", "Throughput and latency"),
    ("observed", "Observed over time"),
    ("probes", "Probes"),
    ("database", "Database report"),
    ("checks", "Checks of the data"),
    ("clock", "Guest clock"),
    ("conditions", "Conditions"),
)


@dataclass(frozen=True, slots=True)
class ShownChart:
    """A chart of the page: what it says, its drawings, and the values that its cursor shows."""

    chart: Chart
    drawings: tuple[Drawing, ...]
    data: list[dict[str, Any]]


def render(record: RunRecord) -> str:
    """The page of a record. It asks for nothing from anywhere, and can be read where scripts are forbidden."""
    environment = Environment(
        loader=PackageLoader("ldoms.bench.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _own("cursor.js")
    return environment.get_template("report.html.j2").render(
        style=_own("style.css"), script=script, script_hash=_hash(script), version=__version__, **_content(record)
    )


def _content(record: RunRecord) -> dict[str, Any]:
    report, span = record.migration, span_of(record)
    tone, title, verdict = outcome(record)
    return {
        "record": record,
        "report": report,
        "record_name": RECORD_NAME,
        "contents": SECTIONS,
        "tone": tone,
        "title": title,
        "verdict": verdict,
        "when": moment(report.started_at),
        "began": moment(report.started_at),
        "tiles": tiles(record),
        "moved": tables.moved(record),
        "plan": tables.plan(report.plan) if report.plan else None,
        "phases": tables.phases(report),
        "phase_drawings": draw_phases(report.phases, report.started_at, report.total_s) if report.phases else (),
        "passes": tables.passes(report),
        "forecast": tables.forecast(record),
        "suspension": tables.suspension(record),
        "load_settings": (("Load", record.load.name), *record.load.settings.items()),
        "throughput": tables.throughput(record.load),
        "kinds": tables.kinds(record.load),
        "span": span,
        "charts": [_shown(chart, record, span) for chart in charts_of(record)],
        "colour": colour,
        "dash": dash,
        "probes": tables.probes(record),
        "database": [grid_of(table) for table in record.database.tables] if record.database else [],
        "block_changes": tables.block_changes(record),
        "guest_clock": tables.guest_clock(record),
        "conditions": tables.conditions(record),
    }


def span_of(record: RunRecord) -> tuple[float, float]:
    """Begin and end of the time axis, in seconds since the begin of the migration."""
    begin = record.migration.started_at
    return record.measured.begin - begin, max(record.measured.end - begin, record.measured.begin - begin + 1.0)


def _shown(chart: Chart, record: RunRecord, span: tuple[float, float]) -> ShownChart:
    report = record.migration
    phases = [
        (one.name.value, one.started_at - report.started_at, one.started_at - report.started_at + one.seconds)
        for one in report.phases
    ]
    data = [
        {"t": [round(t, 3) for t, _ in line.points], "v": [None if v is None else _short(v) for _, v in line.points]}
        for line in chart.lines
    ]
    return ShownChart(chart, draw(chart, span, phases), data)


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _own(name: str) -> str:
    """A file of this package, which the template takes as it is."""
    return resources.files("ldoms.bench.page").joinpath(name).read_text()


def _hash(script: str) -> str:
    """By which the page's policy knows its one script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
