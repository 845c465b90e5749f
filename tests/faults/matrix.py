"""Which cells the fault matrix has: pure, made from the table of phases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from ldoms.migration.phases import PHASES
from ldoms.model.phases import Phase

COPYING = "copying"
"""Not a gate: memory is flowing, slowly."""

INSIDE: dict[Phase, tuple[str, ...]] = {
    Phase.CHECK: (),
    Phase.PREPARE: ("target-prepare", "target-prepared"),
    Phase.COPY: (COPYING,),
    Phase.SUSPEND: (),
    Phase.HAND_OFF: (
        *("source-sent-all", "source-handing-off", "target-take-over", "target-taken", "target-running"),
        "source-peer-took",
    ),
}
"""Gates within each phase; the edge into it is the gate ``source-PHASE``."""
STORAGES = ("shared",)
"""To be added: ``copied``."""
WAYS = ("precopy",)
"""To be added: ``postcopy``."""
SOURCE, TARGET, BOTH, LINK = "source", "target", "both", "link"


@dataclass(frozen=True)
class Fault:
    """One thing that breaks, and where.

    Attributes:
        hold_s: how long it lasts, after which it is mended; 0 = what it does is done at once.
    """

    kind: str
    place: str
    hold_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind} {self.hold_s:g} s" if self.place == LINK and self.hold_s else self.kind


CUTS = ("cut-control", "cut-data", "cut-both", "cut-to-target", "cut-to-source")
FAULTS: tuple[Fault, ...] = (
    *(Fault(kind, place) for kind, place in product(("qemu-killed", "ldmd-killed"), (SOURCE, TARGET))),
    Fault("ldmd-killed", BOTH),
    *(Fault(kind, place, 12.0) for kind, place in product(("qemu-hung", "ldmd-hung"), (SOURCE, TARGET))),
    *(Fault("host-gone", place, 10.0) for place in (SOURCE, TARGET)),
    *(Fault("disk-full", place, 10.0) for place in (SOURCE, TARGET)),
    *(Fault("clock-step", place) for place in (SOURCE, TARGET)),
    *(Fault(cut, LINK, hold_s) for hold_s, cut in product((5.0, 60.0), CUTS)),
    *(Fault(kind, LINK, 12.0) for kind in ("loss-5-percent", "rate-10-mbit")),
    Fault("image-gone", SOURCE, 10.0),
    Fault("port-taken", TARGET),
    Fault("ldm-killed", SOURCE),
)


@dataclass(frozen=True)
class Point:
    """Where a migration is when something breaks."""

    phase: Phase
    gate: str

    @property
    def is_edge(self) -> bool:
        """Whether the phase has just been entered."""
        return self.gate == f"source-{self.phase.value}"


def points() -> Iterator[Point]:
    """The edge into each phase, and the gates within it."""
    for phase in PHASES:
        yield from (Point(phase, gate) for gate in (f"source-{phase.value}", *INSIDE[phase]))


POINTS = tuple(points())
GATES = tuple(point.gate for point in POINTS)


@dataclass(frozen=True)
class Cell:
    """One fault at one point, for one kind of migration."""

    fault: Fault
    point: Point
    storage: str = STORAGES[0]
    way: str = WAYS[0]

    @property
    def name(self) -> str:
        """What the results are kept under."""
        return f"{self.fault.place} {self.fault} at {self.point.gate} ({self.storage}, {self.way})"

    @property
    def left_out(self) -> str:
        """Why it makes no sense; empty = it does."""
        return next((reason for reason, applies in _RULES.items() if applies(self)), "")


def _has_target_qemu(cell: Cell) -> bool:
    return cell.point.gate not in ("source-check", "source-prepare", "target-prepare")


_RULES = {
    "hosts of a lab share the clock of the machine; on fakes, `tests/unit/migration/test_faults.py` steps it": (
        lambda cell: cell.fault.kind == "clock-step"
    ),
    "the target has no QEMU yet": (
        lambda cell: cell.fault.place == TARGET and "qemu" in cell.fault.kind and not _has_target_qemu(cell)
    ),
    "the port is held by QEMU": (lambda cell: cell.fault.kind == "port-taken" and _has_target_qemu(cell)),
}


def cells() -> tuple[Cell, ...]:
    """The full matrix, those that are left out included."""
    return tuple(Cell(*axes) for axes in product(FAULTS, POINTS, STORAGES, WAYS))


def sample() -> tuple[Cell, ...]:
    """Few cells that hit every fault, in every place, and every point: one for each fault, the points in turn.

    Of those that last for a minute, one is enough.
    """
    chosen: list[Cell] = []
    missing = list(POINTS)
    for fault in FAULTS:
        if fault.hold_s >= 60 and fault.kind != "cut-both":
            continue
        possible = [Cell(fault, point) for point in (*missing, *POINTS) if not Cell(fault, point).left_out]
        if possible:
            chosen.append(possible[0])
            if possible[0].point in missing:
                missing.remove(possible[0].point)
        if not missing:
            missing = list(POINTS)
    return tuple(chosen)
