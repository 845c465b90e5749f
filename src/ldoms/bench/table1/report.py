"""What ``ldoms-bench table1`` prints and keeps: a pure function of its runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ldoms.bench.record import Conditions
from ldoms.bench.table1.cells import PAPER, Attempt, Cell, CellRun, Spread, cells_of
from ldoms.bench.table1.fit import Fit, enough_cpus, fit_curves, last_step_that_helped
from ldoms.model.codec import to_wire

STEP = 8
"""CPUs are added by so many in the paper: ``ldm add-vcpu 8 primary``."""
WORST_SUSPENSION_S = 1.0


@dataclass(frozen=True, slots=True)
class Result:
    """A whole experiment.

    Attributes:
        settings: how it was made, as would be typed.
        conditions: of the first run.
        failed: attempts that were made again.
    """

    runs: tuple[CellRun, ...]
    settings: dict[str, str]
    conditions: Conditions | None = None
    failed: tuple[Attempt, ...] = ()
    wanted: tuple[tuple[int, int], ...] = field(default=())

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The rows of the table."""
        return cells_of(self.runs)

    @property
    def fits(self) -> tuple[Fit, ...]:
        """Curves through all runs, the nearest first."""
        return fit_curves([(run.control_cpus, run.total_s) for run in self.runs])

    @property
    def missing(self) -> tuple[tuple[int, int], ...]:
        """Runs that were wanted and never came about: (control CPUs, round)."""
        made = {(run.control_cpus, run.round) for run in self.runs}
        return tuple(one for one in self.wanted if one not in made)

    @property
    def losses(self) -> tuple[str, ...]:
        """What must not happen, and did."""
        lost = [f"{run.control_cpus} CPUs, round {run.round}: {what}" for run in self.runs for what in run.lost]
        return (*lost, *(f"{cpus} CPUs, round {number}: it could not be measured" for cpus, number in self.missing))

    def to_wire(self) -> dict[str, Any]:
        """All of it, and what follows from it, for ``table1.json``."""
        figures = ("total_s", "copy_s", "suspension_s", "client_s", "guest_cpu_percent", "strands_percent")
        return {
            "settings": self.settings,
            "conditions": to_wire(self.conditions) if self.conditions else None,
            "paper": {str(cpus): to_wire(row) for cpus, row in PAPER.items()},
            "cells": [
                {"control_cpus": cell.control_cpus}
                | {figure: to_wire(cell.spread(figure)) if cell.spread(figure) else None for figure in figures}
                for cell in self.cells
            ],
            "fits": [to_wire(fit) | {"formula": fit.formula} for fit in self.fits],
            "runs": [to_wire(run) for run in self.runs],
            "failed": [to_wire(attempt) for attempt in self.failed],
        }


def lines(result: Result) -> Iterator[str]:
    """The table, the curve, and what there is to say."""
    yield f"{'Control CPUs':>12} {'Overall time, s':>24} {'Suspension, ms':>22} {'Guest CPU, %':>16}   The paper"
    for cell in result.cells:
        total = _shown(cell.spread("total_s"))
        suspension = _shown(cell.spread("suspension_s"), 1000, 0)
        busy = _shown(cell.spread("guest_cpu_percent"), 1, 0)
        yield f"{cell.control_cpus:>12} {total:>24} {suspension:>22} {busy:>16}   {_paper(cell.control_cpus)}"
    yield "Median [least .. most] of the runs. Guest CPU: busy virtual CPUs while it moved, as its mpstat says."
    yield ""
    yield from sentences(result)


def sentences(result: Result) -> Iterator[str]:
    """Findings, in words."""
    yield from _falls(result.cells)
    yield from _curves(result)
    yield from _suspensions(result.runs)
    if not result.losses:
        yield "- No transaction was lost, and no connection was dropped."
    for loss in result.losses:
        yield f"- LOST: {loss}"
    for attempt in result.failed:
        yield f"- Made again: {attempt.control_cpus} CPUs, round {attempt.round}: {attempt.reason}"


def _falls(cells: Sequence[Cell]) -> Iterator[str]:
    for one, other in pairwise(cells):
        before, after = one.spread("total_s"), other.spread("total_s")
        if before and after:
            said = f"- From {one.control_cpus} to {other.control_cpus} CPUs the time changes by"
            said += f" {100 * (after.median / before.median - 1):+.0f} %"
            if one.control_cpus in PAPER and other.control_cpus in PAPER:
                paper = PAPER[other.control_cpus].total_s / PAPER[one.control_cpus].total_s
                said += f" (in the paper by {100 * (paper - 1):+.0f} %)"
            yield f"{said}."


def _curves(result: Result) -> Iterator[str]:
    fits = result.fits
    if not fits:
        return
    best, *others = fits
    said = "".join(f"; {fit.formula} is off by {fit.residual_s:.2g} s" for fit in others)
    yield f"- {best.formula} fits best (least squares, off by {best.residual_s:.2g} s in the mean{said})."
    medians = [(cell.control_cpus, total.median) for cell in result.cells if (total := cell.spread("total_s"))]
    measured = last_step_that_helped(medians)
    if measured is not None:
        yield f"- More than {measured} CPUs saved less than a tenth in what was measured."
        return
    least, most = medians[0][0], medians[-1][0]
    enough = enough_cpus(best, least, STEP)
    if enough is None or enough > most:
        yield (
            f"- Every step up to {most} CPUs saved a tenth or more; by the curve that ends"
            + (f" at {enough}, which was not measured." if enough else " nowhere near.")
        )
    else:
        yield f"- By the curve, {STEP} CPUs more than {enough} save less than a tenth."


def _suspensions(runs: Sequence[CellRun]) -> Iterator[str]:
    known = [run.suspension_s for run in runs if run.suspension_s is not None]
    if known:
        longest = max(known)
        word = "below" if longest < WORST_SUSPENSION_S else "NOT below"
        limit = f"{WORST_SUSPENSION_S:g} s (paper: 7 to 26 s)"
        yield f"- The longest suspension was {longest * 1000:.0f} ms, {word} {limit}."


def _paper(cpus: int) -> str:
    if (row := PAPER.get(cpus)) is None:
        return "-"
    return f"{row.total_s:.0f} s, {row.suspension_s:.0f} s, {row.guest_cpu_percent:.0f} %"


def _shown(spread: Spread | None, factor: float = 1.0, digits: int = 2) -> str:
    if spread is None:
        return "unknown"
    median, least, most = (f"{value * factor:.{digits}f}" for value in (spread.median, spread.least, spread.most))
    return f"{median} [{least} .. {most}]"
