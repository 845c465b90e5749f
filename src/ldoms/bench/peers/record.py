"""What was measured of each run, the table of it, and the targets that it is held against: all pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FLOOR = "floor"
MOVED, REFUSED, ENDLESS, FAILED, LOST = "moved", "refused", "does not end", "failed", "lost"


@dataclass(frozen=True, slots=True)
class PeerRun:
    """One run of one tool.

    Attributes:
        run: its round, from 1.
        total_s: of the whole command, or of all of them where many guests move.
        suspension_ms: the longest time without an answer to ping, asked every few milliseconds; of many guests the
            longest. None for the floor.
        bytes: that the source has sent over the link, control connections included.
        cpu_s: of the QEMUs on both hosts, from the begin of the command to its end; for the floor, of its two ends.
        tps_loss_pct: by how much the guest rewrote memory more slowly than before; None if it does not.
        outcome: ``moved``, ``refused`` (by the tool, which has said why), ``does not end`` (called off at the limit),
            ``failed``, or ``lost`` (the guest answers nowhere).
        target_cpu_s: of the QEMUs on the target: with more of it, their memory was colder.
        copy_s, own_ms: of `ldm` alone: the copy and the suspension as its report has them; what it took between the
            stop of the guest and its resumption, beyond QEMU's own.
        limit_ms: the suspension that QEMU was told to keep to; None = by default.
        load: average of the last minute, before the run.
        reason: in the tool's own words, where it did not succeed.
    """

    scenario: str
    tool: str
    encrypted: bool
    run: int
    total_s: float
    suspension_ms: float | None
    bytes: int
    cpu_s: float
    tps_loss_pct: float | None
    outcome: str
    target_cpu_s: float = 0.0
    copy_s: float | None = None
    own_ms: float | None = None
    limit_ms: float | None = None
    load: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What was wanted, and what was found.

    Attributes:
        found: a ratio or milliseconds; None = not measured in this run.
        detail: with what it was compared.
    """

    scenario: str
    what: str
    limit: float
    found: float | None
    detail: str = ""

    @property
    def kept(self) -> bool:
        """Whether it was reached."""
        return self.found is not None and self.found <= self.limit

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.scenario}: {self.what}: not measured"
        verdict = "kept" if self.kept else "MISSED"
        return f"{self.scenario}: {self.what} {self.found:.3g}, at most {self.limit:g}: {verdict}{self.detail}"


Figure = Callable[[PeerRun], float | None]


def median_of(runs: Sequence[PeerRun], figure: Figure) -> float | None:
    """The median of a figure over those runs that have it; None if there are none."""
    values = [value for run in runs if (value := figure(run)) is not None]
    return statistics.median(values) if values else None


def moved(runs: Sequence[PeerRun], scenario: str, tool: str) -> list[PeerRun]:
    """The runs of a tool in a scenario in which the guests moved."""
    return [run for run in runs if (run.scenario, run.tool, run.outcome) == (scenario, tool, MOVED)]


def tools_of(runs: Sequence[PeerRun], scenario: str) -> list[str]:
    """The tools that took part, in alphabetical order."""
    return sorted({run.tool for run in runs if run.scenario == scenario})


def least_bytes(runs: Sequence[PeerRun], scenario: str) -> int:
    """What at least had to be moved: the least that any tool has; 0 = none has moved the guests."""
    return min((run.bytes for run in runs if run.scenario == scenario and run.outcome == MOVED), default=0)


def targets(runs: Sequence[PeerRun]) -> list[Target]:
    """Every target that these runs can tell about."""
    found = []
    for scenario in dict.fromkeys(run.scenario for run in runs):
        if scenario == "hot":
            found += _ends(runs, scenario)
            continue
        for tool in ("ldm", "ldm --no-encryption"):
            found += _against_virsh(runs, scenario, tool)
            found += _against_floor(runs, scenario, tool)
    return found


def _against_virsh(runs: Sequence[PeerRun], scenario: str, tool: str) -> list[Target]:
    ours = moved(runs, scenario, tool)
    if not ours:
        return []
    encrypted = ours[0].encrypted
    peers = [name for name in tools_of(runs, scenario) if name.startswith("virsh")]
    same = [name for name in peers if (done := moved(runs, scenario, name)) and done[0].encrypted == encrypted]
    total, suspension = median_of(ours, _total), median_of(ours, _suspension)
    limited = [name for name in same if "limit" in name]
    usual = "virsh --tls" if encrypted else "virsh"
    own = median_of(ours, lambda run: run.own_ms)
    return [
        _ratio(runs, scenario, f"{tool}: time, to virsh's best", 0.75, total, _total, same),
        _ratio(
            runs, scenario, f"{tool}: suspension, to virsh's with that limit", 0.7, suspension, _suspension, limited
        ),
        _ratio(runs, scenario, f"{tool}: suspension, to virsh's as called", 0.4, suspension, _suspension, [usual]),
        Target(scenario, f"{tool}: ms of our own between stop and resumption", 10.0, own),
    ]


def _against_floor(runs: Sequence[PeerRun], scenario: str, tool: str) -> list[Target]:
    ours = moved(runs, scenario, tool)
    if scenario not in ("10gbit", "1gbit", "1gbit-far") or not ours:
        return []
    floor = FLOOR if not ours[0].encrypted else f"{FLOOR}, TLS"
    copy = median_of(ours, lambda run: run.copy_s)
    return [_ratio(runs, scenario, f"{tool}: copy, to the floor", 1.15, copy, _total, [floor])]


def _ends(runs: Sequence[PeerRun], scenario: str) -> list[Target]:
    """As a share of runs that went on for ever: none of ours, all of virsh as it is called."""
    shares = []
    for tool in ("ldm", "ldm --no-encryption"):
        ours = [run for run in runs if (run.scenario, run.tool) == (scenario, tool)]
        if ours:
            good = sum(run.outcome in (MOVED, REFUSED) for run in ours)
            detail = f" ({good} of {len(ours)} ended)"
            shares.append(Target(scenario, f"{tool}: share that does not end", 0.0, 1 - good / len(ours), detail))
    return shares


def _ratio(
    runs: Sequence[PeerRun],
    scenario: str,
    what: str,
    limit: float,
    ours: float | None,
    figure: Figure,
    peers: Sequence[str],
) -> Target:
    medians = {name: median_of(moved(runs, scenario, name), figure) for name in peers}
    known = {name: value for name, value in medians.items() if value}
    if ours is None or not known:
        return Target(scenario, what, limit, None)
    best = min(known, key=lambda name: known[name])
    return Target(scenario, what, limit, ours / known[best], f" ({ours:.4g} to {known[best]:.4g} of {best})")


def _total(run: PeerRun) -> float | None:
    return run.total_s


def _suspension(run: PeerRun) -> float | None:
    return run.suspension_ms


COLUMNS: tuple[tuple[str, Figure], ...] = (
    ("total, s", _total),
    ("suspension, ms", _suspension),
    ("sent, MB", lambda run: run.bytes / 1e6),
    ("CPU, s", lambda run: run.cpu_s),
    ("of it target, s", lambda run: run.target_cpu_s),
    ("guest slower, %", lambda run: run.tps_loss_pct),
)


def table(runs: Sequence[PeerRun], scenario: str) -> list[str]:
    """A Markdown table of a scenario: medians, with the least and the most, over all runs of a tool."""
    head = ["Tool", "Encrypted", *(name for name, _ in COLUMNS), "Outcome"]
    lines = [_row(head), _row(["---"] * len(head))]
    for tool in tools_of(runs, scenario):
        mine = [run for run in runs if (run.scenario, run.tool) == (scenario, tool)]
        cells = [_cell(mine, figure) for _, figure in COLUMNS]
        outcomes = [run.outcome for run in mine]
        counted = ", ".join(f"{outcomes.count(one)} {one}" for one in dict.fromkeys(outcomes))
        lines.append(_row([tool, "yes" if mine[0].encrypted else "no", *cells, counted]))
    return lines


def _cell(runs: Sequence[PeerRun], figure: Figure) -> str:
    values = [value for run in runs if (value := figure(run)) is not None]
    if not values:
        return ""
    return f"{_short(statistics.median(values))} ({_short(min(values))} .. {_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
