"""The page of a run: everything of the record is on it, nothing of the record can break it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest

from ldoms.bench.page import write_page
from ldoms.bench.page.command import find_run, main_report
from ldoms.bench.page.drawing import COLOURS, FRAMES
from ldoms.bench.page.grid import grid, grid_of
from ldoms.bench.page.lines import MAX_POINTS, broken, charts_of, thinned, title_of
from ldoms.bench.page.render import SECTIONS, render
from ldoms.bench.page.summary import outcome
from ldoms.bench.page.tables import block_changes, forecast
from ldoms.bench.page.units import byte_scale, duration, milliseconds, number, size
from ldoms.bench.record import (
    CheckItem,
    Conditions,
    DatabaseReport,
    LoadRecord,
    RunRecord,
    Series,
    Stretch,
    Table,
    read_record,
    write_record,
)
from ldoms.model.errors import RequestError
from ldoms.model.migration import Outcome
from records import BEGUN, plausible_record

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """A page: its tags, its text outside of scripts and styles, and tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.mistakes: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.mistakes += [f"<{tag}> is not closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.mistakes.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


@pytest.fixture(scope="module")
def whole() -> str:
    """The page of a record that has everything."""
    return render(plausible_record())


@pytest.fixture(scope="module")
def bare() -> RunRecord:
    """A record that has only what every record has."""
    full = plausible_record(outcome=Outcome.FAILED)
    migration = dataclasses.replace(full.migration, phases=(), passes=(), plan=None, findings=(), clock=None)
    return RunRecord(
        id="bare",
        measured=full.measured,
        conditions=Conditions("", 0, 0, "", "kvm", 0.0),
        migration=migration,
        suspension_ms={},
        load=LoadRecord("sleep 60", {}),
        series=(),
        probes={},
    )


def test_the_page_is_whole(whole: str) -> None:
    """Tags are closed in order, ids are unique, and each entry of the contents leads to a section."""
    page = Page(whole)
    assert page.mistakes == []
    ids = page.ids()
    assert sorted(ids) == sorted(set(ids))
    targets = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert [target for target in targets if target.startswith("#") and target[1:] not in ids] == []
    assert {name for name, _ in SECTIONS} <= set(ids)


def test_the_page_asks_for_nothing(whole: str) -> None:
    """No address of anything that a browser would fetch; the one link is to the record beside it."""
    page = Page(whole)
    fetched = [
        value
        for tag, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "action", "data", "poster") and not value.startswith("#")
    ]
    assert sorted(fetched) == ["data:,", "run.json"]
    style = whole[whole.index("<style>") : whole.index("</style>")]
    assert "@import" not in style
    assert "url(" not in style


def test_every_part_is_on_the_page(whole: str) -> None:
    text = Page(whole).text
    for words in [
        "ldg1: t4-1 → t4-2",
        "The domain has moved and nothing was lost",
        "6e1f3a58-9a0c-4cf7-b7f2-0d5b7d1b9a77",
        "Encryption NORMAL:-CIPHER-ALL:+AES-128-GCM AES-128-GCM, as both processors have AES instructions",
        "ldg1 has 2 CPUs; a database should keep at least 8",
        "hand-off +11.85 s 210 ms",
        "Total time 11.2 s ± 2.0 s 12.1 s",
        "Slow-down of the guest 12 % less throughput 15.3 % less throughput",
        "QEMU's 36.0 ms",
        "Hosts' 54.3 ms",
        "Client's 122 ms",
        "during 12.1 s 2,026 168 0 16.3 ms 53.4 ms 119 ms 301 ms 212 ms",
        "New Customer 304 0",
        "icmp during 2,413 11",
        "Block changes 1,284 7.65",
        "WALSync IO 318 41.2",
        "order totals holds: 0 of 8 120 orders have a wrong total",
        "Guest, before the move 1.20 ms 0.800 ms from outside",
        "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz, 8 CPUs",
        "QEMU emulates the processor",
        "link of the lab veth, not shaped",
        "That keeps the promise of 300 ms.",
    ]:
        assert words in text, words


def test_every_series_has_its_line_in_every_frame(whole: str) -> None:
    """Drawn as often as there are frames, named with its means, and its values are there for the cursor."""
    record = plausible_record()
    charts = charts_of(record)
    assert sum(len(chart.lines) for chart in charts) == len(record.series)
    assert whole.count('class="mark-line') == len(FRAMES) * len(record.series)
    data = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', whole)]
    assert [len(lines) for lines in data] == [len(chart.lines) for chart in charts]
    assert all(len(line["t"]) == len(line["v"]) > 1 for lines in data for line in lines)
    labels = [attributes["aria-label"] for tag, attributes in Page(whole).tags if attributes.get("role") == "img"]
    assert len(labels) == len(FRAMES) * (len(charts) + 1)
    assert "Latency in ms over time, means by stretch. median: 7.14 before, 16.0 during" in "".join(labels)


def test_all_charts_have_one_axis_of_time(whole: str) -> None:
    """The marks of the first chart's axis are those of all others."""
    drawings = re.findall(r'<svg [^>]*class="drawing wide".*?</svg>', whole, re.DOTALL)[1:]
    axes = [re.findall(r">([+−]?\d+)</text>", drawing)[:7] for drawing in drawings]
    assert axes[0] == ["−20", "−15", "−10", "−5", "0", "+5", "+10"]
    assert all(axis == axes[0] for axis in axes)


def test_phases_are_shaded_in_every_chart(whole: str) -> None:
    charts = re.findall(r'<figure class="chart".*?</figure>', whole, re.DOTALL)
    assert charts
    for chart in charts:
        for phase in ("check", "prepare", "copy", "suspend", "hand-off"):
            assert chart.count(f'fill="var(--phase-{phase})"') == len(FRAMES)


def test_nothing_of_a_record_is_taken_for_markup(whole: str) -> None:
    """Names from guests, databases and people are text wherever they stand."""
    full = plausible_record(name=HOSTILE, outcome=Outcome.FAILED)
    migration = dataclasses.replace(full.migration, source=HOSTILE, user=HOSTILE, cause=HOSTILE)
    record = dataclasses.replace(
        full,
        id=HOSTILE,
        migration=migration,
        conditions=dataclasses.replace(full.conditions, facts={HOSTILE: HOSTILE}),
        suspension_ms={HOSTILE: 1.0},
        load=dataclasses.replace(full.load, name=HOSTILE, settings={HOSTILE: HOSTILE}),
        series=(Series(HOSTILE, HOSTILE, HOSTILE, (BEGUN, BEGUN + 1), (1.0, 2.0)),),
        probes={HOSTILE: full.probes["tcp"]},
        checks=(CheckItem(HOSTILE, False, HOSTILE),),
        database=DatabaseReport(
            ((HOSTILE, HOSTILE),), (Table(HOSTILE, (HOSTILE, "n"), ((HOSTILE, 1),), HOSTILE),) * 5, {}
        ),
        forecast={HOSTILE: HOSTILE},
        findings=(HOSTILE,),
    )
    text = render(record)
    page, harmless = Page(text), Page(whole)
    assert page.mistakes == []
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in harmless.tags}
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{"type": "application/json"}, {}]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "{{ 7*7 }}" in page.text
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', text)[0])
    assert data[0]["v"] == [None, 1.0, 1.0, 2.0]


def test_a_name_that_is_no_text_keeps_no_page_from_being_written(tmp_path: Path) -> None:
    """Half of a surrogate pair can stand in JSON, and not in a file."""
    record = dataclasses.replace(plausible_record(), series=(), findings=("half \ud83d",))
    assert "half ?" in write_page(record, tmp_path).read_text()


def test_what_is_missing_is_said(bare: RunRecord) -> None:
    page = Page(render(bare))
    assert page.mistakes == []
    for words in [
        "The domain did not move",
        "Why it did not succeed: the connection to t4-2 was reset while memory was copied",
        "The managers made no forecast for this move.",
        "The load was a command, which tells nothing of its throughput.",
        "Nothing was observed over time in this run.",
        "Nobody asked from outside in this run.",
        "No database was read in this run.",
        "The data were not checked in this run.",
        "QEMU's –",
    ]:
        assert words in page.text, words


def test_a_move_that_ended_before_it_took_any_time(bare: RunRecord) -> None:
    """Such as one that was refused: no division by nothing, no empty axis."""
    moment = bare.measured.begin
    migration = dataclasses.replace(plausible_record().migration, started_at=moment, ended_at=moment, passes=())
    window = dataclasses.replace(bare.measured, end=moment)
    series = (Series("guest-cpu", "cpu0", "%", (moment,), (50.0,)), Series("x", "empty", "", (), ()))
    text = render(dataclasses.replace(bare, migration=migration, measured=window, series=series))
    assert Page(text).mistakes == []
    assert text.count('class="mark-line') == len(FRAMES)


@pytest.mark.parametrize(
    ("change", "tone", "verdict"),
    [
        ({}, "good", "The domain has moved and nothing was lost"),
        ({"checks": ()}, "good", "The domain has moved"),
        ({"checks": (CheckItem("stock", False, ""),)}, "bad", "The domain has moved, but 'stock' does not hold"),
        ({"runs_on": "t4-1"}, "bad", "The domain has moved, but it runs on t4-1"),
        ({"load": LoadRecord("x", {}, connections_lost=2)}, "bad", "The domain has moved, but 2 connections were lost"),
    ],
)
def test_the_verdict(change: dict[str, object], tone: str, verdict: str) -> None:
    """Good only if nothing that must not happen did."""
    record = dataclasses.replace(plausible_record(), **change)  # type: ignore[arg-type]
    found, _, said = outcome(record)
    assert (found, said) == (tone, verdict)


def test_a_failed_move_is_no_loss_where_the_domain_stays() -> None:
    record = dataclasses.replace(plausible_record(outcome=Outcome.FAILED), runs_on="t4-1")
    assert outcome(record)[::2] == ("bad", "The domain did not move")


def test_a_promise_is_set_beside_the_fact_without_a_forecast() -> None:
    record = dataclasses.replace(plausible_record(), forecast={})
    assert forecast(record).rows == (("Suspension, promised", "at most 300 ms", "54.3 ms"),)


def test_block_changes_are_set_beside_the_dirty_rate_once() -> None:
    """By the passes: 229 MiB changed in 9.45 s; not again where the database report has such a table."""
    record = plausible_record()
    found = block_changes(record)
    assert found is not None
    assert found.rows[1] == ("during", "1,284", "10.0 MiB/s", "24.2 MiB/s")
    assert record.database is not None
    tables = (Table("Block Changes and Dirty Rate", ("", "Value"), ()),)
    report = dataclasses.replace(record.database, tables=tables)
    assert block_changes(dataclasses.replace(record, database=report)) is None


def test_a_line_is_broken_where_samples_are_missing() -> None:
    """And begins a second before its first sample, because that is the second which the sample is of."""
    points = broken([(1.0, 5.0), (2.0, 6.0), (3.0, 7.0), (8.0, 9.0)])
    assert points == [
        (0.0, None),
        (0.0, 5.0),
        (1.0, 5.0),
        (2.0, 6.0),
        (3.0, 7.0),
        (7.0, None),
        (7.0, 9.0),
        (8.0, 9.0),
    ]


def test_many_samples_are_thinned_and_spikes_stay() -> None:
    samples: list[tuple[float, float | None]] = [(float(at), math.sin(at)) for at in range(50_000)]
    samples[31_111] = (31_111.0, 99.0)
    samples[41_111] = (41_111.0, -99.0)
    kept = thinned(samples)
    assert len(kept) <= MAX_POINTS
    assert {(31_111.0, 99.0), (41_111.0, -99.0)} <= set(kept)
    assert kept == sorted(kept)


def test_values_that_are_no_numbers_break_the_line() -> None:
    record = dataclasses.replace(
        plausible_record(), series=(Series("a", "b", "ms", (BEGUN, BEGUN + 1, BEGUN + 2), (1.0, math.nan, 3.0)),)
    )
    (chart,) = charts_of(record)
    assert [value for _, value in chart.lines[0].points] == [None, 1.0, 1.0, None, 3.0]
    assert "NaN" not in render(record)


def test_times_with_a_spike_get_a_logarithmic_axis() -> None:
    moments = tuple(BEGUN + at for at in range(10))
    series = Series("latency", "max", "ms", moments, (5.0,) * 9 + (1000.0,))
    assert charts_of(dataclasses.replace(plausible_record(), series=(series,)))[0].is_logarithmic
    flat = dataclasses.replace(series, values=(5.0,) * 10)
    assert not charts_of(dataclasses.replace(plausible_record(), series=(flat,)))[0].is_logarithmic


def test_long_waits_are_shown_in_seconds() -> None:
    series = Series("probes", "sql", "ms", (BEGUN, BEGUN + 1), (500.0, 13_867.0))
    (chart,) = charts_of(dataclasses.replace(plausible_record(), series=(series,)))
    assert chart.unit == "s"
    assert [value for _, value in chart.lines[0].points] == [None, 0.5, 0.5, 13.867]


def test_lines_of_one_group_with_two_units_are_two_charts() -> None:
    moments = (BEGUN, BEGUN + 1)
    series = tuple(Series("disk", unit, unit, moments, (5e9, 6e9)) for unit in ("bytes/s", "1/s"))
    charts = charts_of(dataclasses.replace(plausible_record(), series=series))
    assert [(chart.title, chart.unit) for chart in charts] == [("Disk", "GiB/s"), ("Disk", "1/s")]


@pytest.mark.parametrize(
    ("group", "title"), [("guest-cpu", "CPUs of the guest"), ("disk-io", "Disk I/O"), ("", "Other"), ("wal", "WAL")]
)
def test_titles_of_charts(group: str, title: str) -> None:
    assert title_of(group) == title


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (number(1234567), "1,234,567"),
        (number(1284.5), "1,284"),
        (number(12.34), "12.3"),
        (number(0.0734), "0.0734"),
        (number(0.0), "0"),
        (number(0.0000123), "1.2e−05"),
        (number(-3.14159), "−3.14"),
        (number(math.nan), "–"),
        (number(None), "–"),
        (milliseconds(0.15), "0.150 ms"),
        (duration(0.0543), "54.3 ms"),
        (duration(12.064), "12.1 s"),
        (duration(492.4), "8 min 12 s"),
        (duration(None), "–"),
        (size(977 << 20), "977 MiB"),
        (size(3), "3 bytes"),
        (size(0), "0 bytes"),
        (byte_scale([1.0, 3e12])[1], "TiB"),
        (byte_scale([])[1], "bytes"),
    ],
)
def test_numbers_as_people_read_them(shown: str, text: str) -> None:
    assert shown == text


def test_a_column_is_one_of_numbers_if_most_of_its_cells_are() -> None:
    made = grid("", ("", "Value", "Text"), [("a", 1, "x"), ("b", None, 2), ("c", 2.5, "y"), ("d", "2026-11-25")])
    assert [column.is_number for column in made.columns] == [False, True, False]
    assert made.rows[1] == ("b", "–", "2")
    assert made.rows[3] == ("d", "2026-11-25", "–")


def test_colours_can_be_told_apart_from_the_paper() -> None:
    """By the contrast that WCAG 2.2 asks for: 4.5 for text, 3 for lines; in light and in dark."""
    style = resources.files("ldoms.bench.page").joinpath("style.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    for scheme in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", scheme))
        lines = {name for name in colours if name.startswith("line-")}
        assert len(lines) == COLOURS
        for name in ("ink", "muted", "link", "good", "bad", "warn"):
            for ground in ("paper", "raised"):
                assert contrast(colours[name], colours[ground]) >= 4.5, f"{name} on {ground}"
        for name in lines:
            assert contrast(colours[name], colours["paper"]) >= 3, name


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2, relative luminance)."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_figures_of_several_stretches_have_one_name_above_them() -> None:
    names = ("AWR", "before /s", "during /s", "after /s", "before /tx", "during /tx", "after /tx", "during")
    heads = grid("", names, [("a", *range(7))]).heads
    assert [(head.name, [column.name for column in head.columns], head.is_group) for head in heads] == [
        ("AWR", ["AWR"], False),
        ("/s", ["before", "during", "after"], True),
        ("/tx", ["before", "during", "after"], True),
        ("during", ["during"], False),
    ]


def test_a_long_text_stands_below_its_row_where_there_is_no_room() -> None:
    """A statement in a table of many figures; its row has a cell less, and it a row of its own."""
    names = ("Id", *(f"{stretch} {what}" for what in ("s/s", "%", "ms") for stretch in Stretch), "SQL Text")
    statement = "select " + ", ".join(f"column_{at}" for at in range(40))
    table = Table("Statements", names, (("1", *range(9), statement),))
    assert grid_of(table).has_text_below
    assert not grid_of(dataclasses.replace(table, rows=(("1", *range(9), "select 1"),))).has_text_below
    full = plausible_record()
    text = render(dataclasses.replace(full, series=(), database=DatabaseReport((), (table,), {})))
    assert f'<td class="below" colspan="10">{statement}</td>' in text
    assert Page(text).mistakes == []


def test_a_domain_without_a_load_has_no_settings(bare: RunRecord) -> None:
    text = Page(render(dataclasses.replace(bare, load=LoadRecord("", {})))).text
    assert "this run put no load on it" in text


# --------------------------------------------------------------------------------------------- the command


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of which the one with the smaller id is the later."""
    for name, at in (("20260922-a1", 200), ("20260922-b2", 100)):
        directory = tmp_path / "runs" / name
        directory.mkdir(parents=True)
        record = dataclasses.replace(plausible_record(), id=name, series=())
        os.utime(write_record(record, directory), (at, at))
    return tmp_path / "runs"


def test_a_run_is_found_by_whatever_names_it(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = runs / "20260922-b2" / "run.json"
    monkeypatch.chdir(runs)
    for name in ("20260922-b2", "20260922-b", str(wanted.parent), str(wanted)):
        assert find_run(name, runs) == wanted
    assert find_run("run.json", runs) == Path("run.json")
    assert find_run("", runs) == runs / "20260922-a1" / "run.json"


def test_an_id_that_others_begin_with_is_found(runs: Path) -> None:
    longer = runs / "20260922-a12"
    longer.mkdir()
    write_record(plausible_record(), longer)
    assert find_run("20260922-a1", runs).parent.name == "20260922-a1"


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("2026", "ambiguous-run", "several runs: 20260922-a1, 20260922-b2"),
        ("nothing", "no-run", "there is no run 'nothing' below"),
        ("../x", "no-run", "there is no record of a run"),
    ],
)
def test_what_names_no_run_is_refused(runs: Path, name: str, code: str, sentence: str) -> None:
    with pytest.raises(RequestError, match=re.escape(sentence)) as caught:
        read_record(find_run(name, runs))
    assert caught.value.code == code


def test_the_command_prints_where_the_page_is(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_report(runs.parent, "") == 0
    path = Path(capsys.readouterr().out.strip())
    assert path == runs / "20260922-a1" / "report.html"
    assert path.read_text().startswith("<!DOCTYPE html>")


def test_the_command_says_in_a_sentence_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_report(tmp_path, "") == 1
    assert capsys.readouterr().err == f"ldoms-bench report: there is no run below {tmp_path / 'runs'}\n"
    broken_record = tmp_path / "run.json"
    broken_record.write_text("{}")
    assert main_report(tmp_path, str(broken_record)) == 1
    assert "is not the record of a run" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [broken_record]


def test_a_page_that_cannot_be_written_is_an_error(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "20260922-a1" / "report.html").mkdir()
    assert main_report(runs.parent, "") == 1
    assert "the report cannot be written to" in capsys.readouterr().err
