"""Which cells the fault matrix has: pure, made from the table of phases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from ldoms.migration.phases import PHASES
from ldoms.model.phases import Phase

COPYING, DISKS_COPYING, FETCHING = "copying", "disks-copying", "fetching"
"""Not gates: memory, or the disks, are flowing, slowly; or the guest runs on the target and lacks memory."""
SHARED, COPIED = "shared", "copied"
PRECOPY, POSTCOPY = "precopy", "postcopy"

INSIDE: dict[Phase, tuple[str, ...]] = {
    Phase.CHECK: (),
    Phase.PREPARE: ("target-prepare", "target-images-made", "target-prepared"),
    Phase.COPY: (DISKS_COPYING, "source-disks-copied", COPYING),
    Phase.SUSPEND: (),
    Phase.HAND_OFF: (
        *("source-sent-all", "source-handing-off", "target-take-over", "target-taken", "target-running"),
        *("source-peer-took", FETCHING),
    ),
}
"""Gates within each phase; the edge into it is the gate ``source-PHASE``."""
OF_COPIED_STORAGE = ("target-images-made", DISKS_COPYING, "source-disks-copied")
STORAGES = (SHARED, COPIED)
WAYS = (PRECOPY, POSTCOPY)
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
    *(Fault("clock-step", place, 3.0) for place in (SOURCE, TARGET)),
    *(Fault(cut, LINK, hold_s) for hold_s, cut in product((5.0, 60.0), CUTS)),
    *(Fault(kind, LINK, 12.0) for kind in ("loss-5-percent", "rate-10-mbit")),
    *(Fault("image-gone", place, 5.0) for place in (SOURCE, TARGET)),
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


BEFORE_IMAGES = ("source-check", "source-prepare", "target-prepare")
IN_PARTS = INSIDE[Phase.HAND_OFF]
"""With postcopy, the guest is in parts: it needs both hosts."""


def _has_target_qemu(cell: Cell) -> bool:
    return cell.point.gate not in (*BEFORE_IMAGES, "target-images-made")


_RULES = {
    "with precopy a guest lacks nothing where it runs": (
        lambda cell: cell.way == PRECOPY and cell.point.gate == FETCHING
    ),
    "--copy-storage and postcopy exclude each other": lambda cell: (cell.storage, cell.way) == (COPIED, POSTCOPY),
    "nothing was sent yet, so that it is as with precopy": (
        lambda cell: cell.way == POSTCOPY and cell.point.phase in (Phase.CHECK, Phase.PREPARE)
    ),
    "no disk is copied": lambda cell: cell.storage == SHARED and cell.point.gate in OF_COPIED_STORAGE,
    "the target has no image yet, so that it is as with shared storage": (
        lambda cell: cell.storage == COPIED and cell.point.gate in BEFORE_IMAGES
    ),
    "it is the image of both hosts": (
        lambda cell: cell.storage == SHARED and (cell.fault.kind, cell.fault.place) == ("image-gone", TARGET)
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

    Of those that last for a minute, one is enough. Points that only copied storage has come last.
    """
    chosen: list[Cell] = []
    missing = list(POINTS)
    for fault in FAULTS:
        if fault.hold_s >= 60 and fault.kind != "cut-both":
            continue
        kinds = tuple(product(STORAGES, WAYS))
        order = [(point, kind) for points in (missing, POINTS) for kind in kinds for point in points]
        possible = (Cell(fault, point, *kind) for point, kind in order)
        cell = next((cell for cell in possible if not cell.left_out), None)
        if cell is not None:
            chosen.append(cell)
            missing = [point for point in missing if point != cell.point] or list(POINTS)
    return tuple(sorted(chosen, key=lambda cell: (STORAGES.index(cell.storage), WAYS.index(cell.way))))
