"""Charts as drawings: Vega-Lite makes SVG of them when the page is written, so that it needs no script to be read.

Colours are the page's own, ``var(--...)``: one drawing serves light, dark and paper. Nothing that a record says stands
in a drawing: names are in the page around it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from ldoms.bench.page.lines import Chart
from ldoms.bench.page.tables import PHASES
from ldoms.bench.page.units import duration
from ldoms.model.migration import PhaseRecord

COLOURS = 8
DASHES = ((1, 0), (7, 3), (2, 3))
"""A chart with more than `COLOURS` lines uses these in turn."""
_VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
_STEP = 22
_FONT = "system-ui, sans-serif"


@dataclass(frozen=True, slots=True)
class Frame:
    """A size of drawing, in pixels: what is around the plot, and the plot."""

    name: str
    width: int
    height: int
    left: int = 52
    right: int = 14
    top: int = 8
    bottom: int = 24
    ticks: int = 10


FRAMES = (Frame("wide", 780, 190), Frame("narrow", 280, 170, ticks=5))
"""Each chart is drawn in both, and the page shows the one that fits."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart in one frame."""

    frame: Frame
    svg: str


def colour(index: int) -> str:
    """Of a line, by its place in the chart."""
    return f"var(--line-{index % COLOURS + 1})"


def dash(index: int) -> tuple[int, int]:
    """Of a line, by its place in the chart."""
    return DASHES[index // COLOURS % len(DASHES)]


def draw(chart: Chart, span: tuple[float, float], phases: Sequence[tuple[str, float, float]]) -> tuple[Drawing, ...]:
    """Draw a chart in every frame.

    Args:
        span: begin and end of the time axis, which all charts of a page share.
        phases: name, begin and end of each; shaded. Seconds since the begin of the migration.
    """
    return tuple(
        Drawing(frame, _svg(_plot(chart, span, phases, frame), frame, chart.key, chart.text)) for frame in FRAMES
    )


def draw_phases(phases: Sequence[PhaseRecord], begin: float, total_s: float) -> tuple[Drawing, ...]:
    """Draw how long each phase took, one below the other."""
    text = "Phases: " + ", ".join(f"{one.name.value} {duration(one.seconds)}" for one in phases)
    frames = [
        Frame(one.name, one.width, _STEP * len(phases), left=74, right=70, ticks=one.ticks)
        for one in (Frame("wide", 700, 0), Frame("narrow", 200, 0, ticks=4))
    ]
    return tuple(Drawing(frame, _svg(_bars(phases, begin, total_s, frame), frame, "phases", text)) for frame in frames)


def _plot(chart: Chart, span: tuple[float, float], phases: Sequence[tuple[str, float, float]], frame: Frame) -> Any:
    time = alt.X(
        "t:Q",
        scale=alt.Scale(domain=list(span), nice=False),
        axis=alt.Axis(title=None, tickCount=frame.ticks, labelExpr="(datum.value > 0 ? '+' : '') + datum.label"),
    )
    shades = alt.Chart(_values([{"t": t, "end": e, "ink": f"var(--phase-{name})"} for name, t, e in phases]))
    drawn = shades.mark_rect(clip=True, strokeWidth=1).encode(
        x=time, x2="end:Q", color=alt.Color("ink:N", scale=None), stroke=alt.Stroke("ink:N", scale=None)
    )
    points = [
        {"t": t, "v": v, "line": at, "ink": colour(at)} for at, line in enumerate(chart.lines) for t, v in line.points
    ]
    lines = alt.Chart(_values(points)).mark_line(
        interpolate="step-before", strokeWidth=1.6, strokeCap="round", clip=True, invalid="break-paths-filter-domains"
    )
    dashes = alt.Scale(domain=list(range(len(chart.lines))), range=[list(dash(at)) for at in range(len(chart.lines))])
    return drawn + lines.encode(
        x=time,
        y=alt.Y("v:Q", scale=_scale(chart), axis=alt.Axis(title=None, tickCount=4)),
        color=alt.Color("ink:N", scale=None),
        strokeDash=alt.StrokeDash("line:O", scale=dashes, legend=None),
        detail="line:O",
    )


def _scale(chart: Chart) -> alt.Scale:
    if chart.is_logarithmic:
        return alt.Scale(type="log")
    if chart.unit == "%":
        top = max((value for line in chart.lines for _, value in line.points if value is not None), default=0.0)
        return alt.Scale(domain=[0, max(100.0, top)], nice=False)
    return alt.Scale(zero=True)


def _bars(phases: Sequence[PhaseRecord], begin: float, total_s: float, frame: Frame) -> Any:
    rows = [
        {
            "name": one.name.value,
            "t": one.started_at - begin,
            "end": one.started_at - begin + one.seconds,
            "ink": f"var(--phase-{one.name.value}-full)",
            "text": duration(one.seconds),
        }
        for one in phases
    ]
    time = alt.X(
        "t:Q",
        scale=alt.Scale(domain=[0, max(total_s, 0.001)], nice=False),
        axis=alt.Axis(title=None, tickCount=frame.ticks),
    )
    name = alt.Y(
        "name:N",
        sort=[phase.value for phase in PHASES],
        title=None,
        axis=alt.Axis(grid=False, ticks=False, labelPadding=6),
    )
    base = alt.Chart(_values(rows)).encode(y=name)
    bars = base.mark_bar(height=14, strokeWidth=1.5).encode(
        x=time, x2="end:Q", color=alt.Color("ink:N", scale=None), stroke=alt.Stroke("ink:N", scale=None)
    )
    words = base.mark_text(align="left", dx=6, fontSize=12, color="var(--ink)").encode(x="end:Q", text="text:N")
    return bars + words


def _values(rows: list[dict[str, Any]]) -> alt.Data:
    return alt.Data(values=rows)  # type: ignore[no-untyped-call]


def _svg(chart: Any, frame: Frame, key: str, text: str) -> str:
    """The drawing of a chart, as one image with a text in its place for who cannot see it."""
    axis = {
        "labelColor": "var(--muted)",
        "gridColor": "var(--grid)",
        "domainColor": "var(--axis)",
        "tickColor": "var(--axis)",
        "labelFontSize": 11,
    }
    padding = {"left": frame.left, "right": frame.right, "top": frame.top, "bottom": frame.bottom}
    made = chart.properties(
        width=frame.width,
        height=frame.height,
        padding=padding,
        autosize=alt.AutoSizeParams(type="none"),
        background="transparent",
    ).configure(aria=False, font=_FONT, axis=axis, view={"stroke": None})
    return _as_image(vl_convert.vegalite_to_svg(made.to_dict(), vl_version=_VEGA_LITE), frame, key, text)


def _as_image(svg: str, frame: Frame, key: str, text: str) -> str:
    wide, high = frame.left + frame.width + frame.right, frame.top + frame.height + frame.bottom
    body = svg[svg.index(">") + 1 : svg.rindex("</svg>")]
    # Ids are unique in one drawing only, and the page has many.
    body = re.sub(r'(\bid="|url\(#)', rf"\g<1>{key}-{frame.name}-", body)
    cursor = f'<line class="cursor" y1="{frame.top}" y2="{frame.top + frame.height}" x1="0" x2="0"/>'
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing {frame.name}" role="img" viewBox="0 0 {wide} {high}"'
        f' width="{wide}" height="{high}" data-left="{frame.left}" data-width="{frame.width}"'
        f' aria-label="{html.escape(text)}">'
    )
    return opening + body + cursor + "</svg>"
