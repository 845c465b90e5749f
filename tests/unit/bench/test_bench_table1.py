"""Table 1: the order of runs, figures of a run, curves and where they flatten, the table, the picture, the options."""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldoms.bench.figures import Window
from ldoms.bench.record import CheckItem, Conditions, LoadRecord, RunRecord, Series
from ldoms.bench.table1.cells import PAPER, Attempt, CellRun, cell_run, cells_of, losses, order
from ldoms.bench.table1.command import Table1Options, add_table1, options_of
from ldoms.bench.table1.drawing import chart, write_drawing
from ldoms.bench.table1.fit import Curve, Fit, enough_cpus, fit_curves, last_step_that_helped
from ldoms.bench.table1.report import Result, lines, sentences
from ldoms.model.errors import RequestError
from ldoms.model.migration import MigrationReport, Outcome, PhaseRecord
from ldoms.model.phases import Phase

BEGUN = 1_700_000_000.0
REPORT = MigrationReport(
    *("0a1b", "ldg1", "ldg1", "b0b0", "t4-1", "t4-2", "root", True, Outcome.DONE),
    *(BEGUN, BEGUN + 10.0),
    phases=(PhaseRecord(Phase.CHECK, BEGUN, 1.0), PhaseRecord(Phase.COPY, BEGUN + 1.0, 8.0)),
    transferred_bytes=600 << 20,
)


def series(group: str, name: str, value: float) -> Series:
    """The same all the time."""
    times = tuple(BEGUN - 5 + second for second in range(25))
    return Series(group, name, "%", times, tuple(value for _ in times))


RECORD = RunRecord(
    id="table1-8-1",
    measured=Window(BEGUN - 5, BEGUN + 15),
    conditions=Conditions("a processor", 2, 8192, "10.0.2", "tcg", 1.5),
    migration=REPORT,
    suspension_ms={"qemu": 50.0, "stop_resume": 120.0, "client": 300.0},
    load=LoadRecord("orderentry", {}),
    series=(
        *(series("guest-cpu-all", "idle", 20.0), series("guest-cpu-all", "iowait", 5.0)),
        *(series("host-cpu", "t4-1 vcpu0", 12.0), series("host-cpu", "t4-1 vcpu1", 13.0)),
        *(series("host-cpu", "t4-2 vcpu0", 90.0), series("host-cpu", "t4-1 migration", 40.0)),
    ),
    probes={},
    checks=(CheckItem("ledger", holds=True, detail="500 transactions"),),
    runs_on="t4-2",
)


def run(cpus: int, total_s: float, number: int = 1, **changes: object) -> CellRun:
    """A run that took so long."""
    return replace(cell_run(RECORD, cpus, number, 0.5), total_s=total_s, **changes)  # type: ignore[arg-type]


def result(*times: tuple[int, float], **changes: object) -> Result:
    """An experiment with these times."""
    runs = tuple(run(cpus, seconds, number) for number, (cpus, seconds) in enumerate(times, start=1))
    made = Result(runs, {"strands per CPU": "32"}, RECORD.conditions)
    return replace(made, **changes)  # type: ignore[arg-type]


# Runs and cells


@given(st.lists(st.integers(1, 64), min_size=1, max_size=5, unique=True), st.integers(1, 6))
def test_cells_take_turns(cells: list[int], rounds: int) -> None:
    """Each is in each round once, and after one round another one begins."""
    found = order(cells, rounds)
    assert Counter(found) == Counter({(cell, number): 1 for cell in cells for number in range(1, rounds + 1)})
    firsts = [found[number * len(cells)][0] for number in range(rounds)]
    assert len(cells) == 1 or all(one != other for one, other in pairwise(firsts))


def test_the_figures_of_a_run() -> None:
    """Of the time of the migration; the guest's CPU as it counts it itself, and as the host does."""
    made = cell_run(RECORD, 8, 2, strands_worth=0.5)
    assert (made.control_cpus, made.round, made.run) == (8, 2, "table1-8-1")
    assert (made.total_s, made.copy_s, made.transferred_mib) == (10.0, 8.0, 600.0)
    assert (made.suspension_s, made.client_s) == (0.12, 0.3)
    assert made.guest_cpu_percent == pytest.approx(75.0)
    assert made.strands_percent == pytest.approx(50.0)
    assert made.lost == ()


def test_what_is_not_known_of_a_run_stays_unknown() -> None:
    """A guest without an agent, a manager that was restarted."""
    made = cell_run(replace(RECORD, series=(), suspension_ms={}), 8, 1, 0.5)
    assert (made.suspension_s, made.client_s, made.guest_cpu_percent, made.strands_percent) == (None, None, None, None)
    (cell,) = cells_of([made])
    assert cell.spread("suspension_s") is None


@pytest.mark.parametrize(
    ("record", "loss"),
    [
        (replace(RECORD, runs_on="t4-1 and t4-2"), "runs on t4-1 and t4-2, not on t4-2"),
        (replace(RECORD, runs_on="nowhere"), "runs on nowhere"),
        (replace(RECORD, migration=replace(REPORT, outcome=Outcome.FAILED, cause="too slow")), "too slow"),
        (replace(RECORD, checks=(CheckItem("ledger", holds=False, detail="1 missing"),)), "ledger: 1 missing"),
        (replace(RECORD, load=replace(RECORD.load, connections_lost=2)), "2 connections were lost"),
    ],
)
def test_a_loss_is_seen(record: RunRecord, loss: str) -> None:
    """Whatever it is, and it shows in the whole result."""
    (found,) = losses(record)
    assert loss in found
    whole = Result((cell_run(record, 8, 1, 0.5),), {"strands per CPU": "32"})
    assert any(loss in line for line in sentences(whole))


def test_a_run_that_never_came_about_is_a_loss() -> None:
    """The table is not whole then, and says so."""
    made = result((8, 10.0), wanted=((8, 1), (16, 1)))
    assert made.losses == ("16 CPUs, round 1: it could not be measured",)


# Curves


@settings(deadline=None)
@given(st.floats(0.5, 50), st.floats(1, 500))
def test_a_curve_is_found_again(first: float, second: float) -> None:
    """Points that lie on it are not off."""
    points = [(cpus, first + second / cpus) for cpus in (8, 16, 24, 32)]
    fit = next(fit for fit in fit_curves(points) if fit.curve is Curve.INVERSE)
    assert fit.residual_s == pytest.approx(0, abs=1e-6)
    assert (fit.first, fit.second) == (pytest.approx(first, rel=1e-3, abs=1e-3), pytest.approx(second, rel=1e-3))


@settings(deadline=None, max_examples=30)
@given(st.floats(1, 500), st.floats(0.2, 2.5))
def test_a_power_is_found_again(first: float, second: float) -> None:
    """And its points are not off it."""
    points = [(cpus, first * cpus**-second) for cpus in (8, 16, 24)]
    fit = next(fit for fit in fit_curves(points) if fit.curve is Curve.POWER)
    assert fit.residual_s == pytest.approx(0, abs=1e-4)
    assert fit.second == pytest.approx(second, rel=1e-3)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from([8, 16, 24]), st.floats(1, 100)), min_size=4, max_size=9))
def test_no_other_curve_is_nearer(points: list[tuple[int, float]]) -> None:
    """Least squares: whatever is changed a little makes it worse. A fixed part is never below zero."""
    if len({cpus for cpus, _ in points}) < 3:
        return
    for fit in fit_curves(points):
        assert fit.first >= 0
        for dx in (0.99, 1.01):
            for changed in (replace(fit, first=fit.first * dx), replace(fit, second=fit.second * dx)):
                off = sum((changed.at(cpus) - seconds) ** 2 for cpus, seconds in points)
                assert off >= fit.residual_s**2 * len(points) * (1 - 1e-3) - 1e-9


def test_the_paper_s_times_fall_faster_than_work_can_be_shared() -> None:
    """So that a power fits them better, and its end is far from what was measured."""
    best, other = fit_curves([(cpus, row.total_s) for cpus, row in PAPER.items()])
    assert best.curve is Curve.POWER
    assert best.second > 1
    assert best.residual_s < other.residual_s
    assert last_step_that_helped([(cpus, row.total_s) for cpus, row in PAPER.items()]) is None
    assert (enough_cpus(best, 8, 8) or 0) > 24


def test_one_number_of_cpus_makes_no_curve() -> None:
    """Nor does nothing."""
    assert fit_curves([(8, 10.0), (8, 11.0)]) == ()
    assert fit_curves([]) == ()


def test_where_more_cpus_stop_helping() -> None:
    """By a curve, and in what was measured."""
    assert enough_cpus(Fit(Curve.INVERSE, 5.0, 40.0, 0.1), 8, 8) == 24
    assert enough_cpus(Fit(Curve.INVERSE, 10.0, 0.0, 0.1), 8, 8) == 8
    assert enough_cpus(Fit(Curve.POWER, 10.0, 100.0, 0.1), 8, 8) is not None
    assert last_step_that_helped([(8, 20.0), (16, 10.0), (24, 9.5)]) == 16
    assert last_step_that_helped([(8, 20.0), (16, 21.0)]) == 8
    assert last_step_that_helped([(8, 20.0)]) is None


# The table and the picture


def test_the_table_has_the_paper_s_figures_beside_ours() -> None:
    """Medians with the least and the most, and what follows from them in words."""
    made = result((8, 20.0), (16, 10.0), (24, 9.6), (8, 22.0), (16, 11.0), (24, 9.8), (8, 30.0))
    text = "\n".join(lines(made))
    assert "22.00 [20.00 .. 30.00]" in text
    assert "492 s, 26 s, 70 %" in text
    assert "From 8 to 16 CPUs the time changes by -52 % (in the paper by -51 %)" in text
    assert "More than 16 CPUs saved less than a tenth" in text
    assert "longest suspension was 120 ms, below 1 s" in text
    assert "No transaction was lost, and no connection was dropped." in text
    assert "T = " in text


def test_a_long_suspension_is_said_plainly() -> None:
    """And so is a run that was made again."""
    made = result((8, 20.0), failed=(Attempt(8, 1, "the guest is gone"),))
    made = replace(made, runs=(replace(made.runs[0], suspension_s=1.5),))
    text = "\n".join(sentences(made))
    assert "1500 ms, NOT below 1 s" in text
    assert "Made again: 8 CPUs, round 1: the guest is gone" in text


def test_everything_is_kept(tmp_path: Path) -> None:
    """Every run, the spread of each figure, curves, and the paper's rows; as plain JSON."""
    kept = json.loads(json.dumps(result((8, 20.0), (16, 10.0), (8, 22.0)).to_wire()))
    assert [one["control_cpus"] for one in kept["cells"]] == [8, 16]
    assert kept["cells"][0]["total_s"] == {"median": 21.0, "least": 20.0, "most": 22.0}
    assert len(kept["runs"]) == 3
    assert {fit["curve"] for fit in kept["fits"]} == {"a + b/n", "c * n^-p"}
    assert kept["paper"]["24"]["suspension_s"] == 7.0


def test_the_picture_shows_every_run(tmp_path: Path) -> None:
    """As SVG and PNG, four panels, with the curve; also of one cell alone, which has none."""
    made = result((8, 20.0), (16, 10.0), (24, 9.6), (8, 22.0))
    svg, png = write_drawing(made, tmp_path)
    words = "".join(ElementTree.parse(svg).getroot().itertext())
    for expected in ("Overall time: T = ", "The shape, and the paper's", "Suspension", "Guest CPU", "paper"):
        assert expected in words
    assert png.read_bytes().startswith(b"\x89PNG")
    described = chart(made).to_dict()
    (points, *_) = described["concat"][0]["layer"]
    assert len(described["datasets"][points["data"]["name"]]) == 4
    assert all(path.exists() for path in write_drawing(result((8, 20.0)), tmp_path))


# The command line


def typed(*words: str, host_cpus: int = 2) -> Table1Options:
    """What is made of words."""
    parser = argparse.ArgumentParser()
    add_table1(parser.add_subparsers())
    return options_of(parser.parse_args(["table1", *words]), host_cpus)


def test_options() -> None:
    """The paper's cells by default; what is typed goes before what --quick means."""
    assert typed() == Table1Options()
    assert typed().cpus == tuple(PAPER)
    assert typed("--quick") == Table1Options().quick()
    quick = typed("--quick", "--rounds", "2", "--fill", "100", "--cpus", "16,4,16")
    assert (quick.rounds, quick.fill_mib, quick.cpus) == (2, 100, (4, 16))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--rounds", "0"), "--rounds must be above 0"),
        (("--vcpus", "-1"), "--vcpus must be above 0"),
        (("--cpus", "8,60"), "60 CPUs for the control domain and 8 for the guest are more than the 48 strands"),
        (("--strands-per-cpu", "4"), "more than the 8 strands"),
    ],
)
def test_options_that_do_not_fit(words: tuple[str, ...], sentence: str) -> None:
    """One sentence each, before anything is made."""
    with pytest.raises(RequestError, match=sentence):
        typed(*words)


@pytest.mark.parametrize("text", ["", "8,", "eight", "0,8", "-8"])
def test_a_list_of_cpus_that_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The usual error of a command line."""
    with pytest.raises(SystemExit):
        typed(f"--cpus={text}")
    assert "is not a list of numbers such as 8,16,24" in capsys.readouterr().err
