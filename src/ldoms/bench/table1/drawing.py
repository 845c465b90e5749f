"""Table 1 as a picture: every run as a point, medians, the fitted curve, and the paper's figures beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from ldoms.bench.table1.cells import PAPER, Cell
from ldoms.bench.table1.fit import Fit
from ldoms.bench.table1.report import Result

_VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
_OURS, _THEIRS = "#1f77b4", "#b35900"
_WIDTH, _HEIGHT = 300, 230
_CURVE_POINTS = 40
_SCALE = 2.0

Row = dict[str, Any]


def write_drawing(result: Result, directory: Path) -> list[Path]:
    """Write ``table1.svg`` and ``table1.png`` into a directory that exists; returns their paths."""
    described = chart(result).to_dict()
    svg, png = directory / "table1.svg", directory / "table1.png"
    svg.write_text(vl_convert.vegalite_to_svg(described, vl_version=_VEGA_LITE))
    png.write_bytes(vl_convert.vegalite_to_png(described, vl_version=_VEGA_LITE, scale=_SCALE))
    return [svg, png]


def chart(result: Result) -> Any:
    """The four panels."""
    cells = result.cells
    panels = [
        _times(cells, result.fits[0] if result.fits else None),
        _relative(cells),
        _compared(cells, "suspension_s", "Suspension, s (logarithmic)", log=True),
        _compared(cells, "guest_cpu_percent", "Guest CPU, %", log=False),
    ]
    return (
        alt.concat(*panels, columns=2)
        .resolve_scale(x="independent", y="independent", color="independent")
        .properties(title=alt.Title("CPUs of the control domain", subtitle=_conditions(result)))
        .configure(background="white", font="sans-serif")
        .configure_view(stroke=None)
    )


def _times(cells: Sequence[Cell], fit: Fit | None) -> Any:
    """Overall time: runs, medians, curve."""
    runs = [{"cpus": run.control_cpus, "value": run.total_s} for cell in cells for run in cell.runs]
    layers = [_points(runs, "Overall time, s"), _medians(_of_cells(cells, "total_s"), _OURS)]
    if fit is not None:
        least, most = cells[0].control_cpus, cells[-1].control_cpus
        xs = [least + (most - least) * number / _CURVE_POINTS for number in range(_CURVE_POINTS + 1)]
        curve = [{"cpus": x, "value": fit.at(x)} for x in xs]
        layers.append(_base(curve).mark_line(color="#777777", strokeDash=[4, 3]).encode(y="value:Q"))
    return _panel(layers, f"Overall time: {fit.formula}" if fit else "Overall time")


def _relative(cells: Sequence[Cell]) -> Any:
    """Times by the one with the fewest CPUs: the shape, on both machines."""
    ours = _of_cells(cells, "total_s")
    rows = [row | {"who": "here"} for row in _by_first(ours)]
    theirs = [{"cpus": cpus, "value": row.total_s} for cpus, row in PAPER.items()]
    rows += [row | {"who": "paper"} for row in _by_first(theirs)]
    return _panel(_two(rows, "Share of the time with the fewest, %"), "The shape, and the paper's")


def _compared(cells: Sequence[Cell], figure: str, title: str, *, log: bool) -> Any:
    rows = [row | {"who": "here"} for row in _of_cells(cells, figure)]
    rows += [{"cpus": cpus, "value": getattr(row, figure), "who": "paper"} for cpus, row in PAPER.items()]
    return _panel(_two(rows, title, log=log), title.partition(",")[0])


def _two(rows: Sequence[Row], title: str, *, log: bool = False) -> list[Any]:
    scale = alt.Scale(type="log") if log else alt.Scale(zero=True)
    colour = alt.Color(
        "who:N", title=None, scale=alt.Scale(domain=["here", "paper"], range=[_OURS, _THEIRS]), legend=_legend()
    )
    y = alt.Y("value:Q", title=title, scale=scale)
    return [
        _base(rows).mark_line().encode(y=y, color=colour),
        _base(rows).mark_point(filled=True, size=60).encode(y=y, color=colour),
    ]


def _points(rows: Sequence[Row], title: str) -> Any:
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=True))
    return _base(rows).mark_point(size=50, color=_OURS, opacity=0.7).encode(y=y)


def _medians(rows: Sequence[Row], colour: str) -> Any:
    return _base(rows).mark_tick(orient="horizontal", thickness=3, size=24, color=colour).encode(y="value:Q")


def _base(rows: Sequence[Row]) -> Any:
    x = alt.X("cpus:Q", title="control CPUs", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(zero=False, padding=18))
    return alt.Chart({"values": list(rows)}).encode(x=x)


def _panel(layers: Sequence[Any], title: str) -> Any:
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT, title=title)


def _legend() -> alt.Legend:
    return alt.Legend(orient="bottom")


def _of_cells(cells: Sequence[Cell], figure: str) -> list[Row]:
    known: Iterator[Row] = (
        {"cpus": cell.control_cpus, "value": spread.median} for cell in cells if (spread := cell.spread(figure))
    )
    return list(known)


def _by_first(rows: Sequence[Row]) -> list[Row]:
    return [row | {"value": 100 * row["value"] / rows[0]["value"]} for row in rows]


def _conditions(result: Result) -> str:
    known, runs = result.conditions, [len(cell.runs) for cell in result.cells]
    said = f"{min(runs)} runs of each" if min(runs) == max(runs) else f"{min(runs)} to {max(runs)} runs of each"
    if known is None:
        return said
    strands = result.settings["strands per CPU"]
    return f"{said}; QEMU {known.qemu}, {known.accelerator}, {known.cpus} CPUs of {strands} strands"
