"""The migration that is measured: typed on its source as an administrator types it, and called off by Ctrl-C."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ldoms.bench.observe.hosts import Place
from ldoms.bench.server import run_program
from ldoms.bench.stage import ADMINISTRATOR, SOURCE, TARGET, Stage, say
from ldoms.model.codec import from_wire
from ldoms.model.errors import HostError
from ldoms.model.migration import MigrationReport, Outcome

ASK_S = 60.0
CALLED_OFF_S = 120.0
"""How long a migration that was called off may take to be so."""


@dataclass(frozen=True, slots=True)
class Move:
    """What is moved, and where.

    Attributes:
        to: the target as ``ldm migrate-domain`` takes it, ``[USER@]HOST[:NEWNAME]``.
        options: of that command.
        source: where it is typed.
        target: where the domain goes; None = nothing can be run there.
    """

    domain: str
    to: str
    source: Place
    target: Place | None = None
    options: tuple[str, ...] = ()

    @property
    def new_name(self) -> str:
        """What the domain is called on the target."""
        host = self.to.rpartition("@")[2]
        return host.rpartition(":")[2] if ":" in host and not host.endswith("]") else self.domain

    @property
    def places(self) -> tuple[Place, ...]:
        """The hosts on which something can be run, the source first."""
        return (self.source,) if self.target is None else (self.source, self.target)


def move_in_lab(stage: Stage, domain: str, source: str = SOURCE, options: Sequence[str] = ()) -> Move:
    """The move of a lab's domain to the other host."""
    target = TARGET if source == SOURCE else SOURCE
    return Move(
        domain,
        f"{ADMINISTRATOR}@{target}",
        Place(source, tuple(stage.prefix(source))),
        Place(target, tuple(stage.prefix(target))),
        (*options, "-p", stage.password_file),
    )


def migrate(move: Move) -> bool:
    """Move the domain, and return whether it worked; what was wrong has been said.

    An interrupt calls the migration off, waits until everything is as before, and goes on.

    Raises:
        HostError: the command cannot be run.
    """
    words = ["ldm", "migrate-domain", *move.options, move.domain, move.to]
    say(f"{move.source.name}# {shlex.join(words)}")
    try:
        child = subprocess.Popen(move.source.words(*words))
    except OSError as error:
        raise HostError(f"ldm cannot be run on {move.source.name}: {error}", code="no-program") from error
    try:
        return child.wait() == 0
    except BaseException:
        _call_off(move, child)
        raise


def _call_off(move: Move, child: subprocess.Popen[bytes]) -> None:
    """Whether the command has heard of the interrupt or not: over ssh it has not."""
    with suppress(OSError):
        child.send_signal(signal.SIGINT)
    with suppress(HostError):  # it may be over already, or be called off
        run_program(move.source.words("ldm", "cancel-operation", "migration", move.domain), timeout_s=CALLED_OFF_S)
    try:
        child.wait(CALLED_OFF_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def require_domain(move: Move) -> None:
    """Make sure that the source answers and has the domain, before anything is begun for it.

    Raises:
        HostError: it does not, or has not.
    """
    _ask(move.source, ["ldm", "list", "--json", move.domain])


def find_report(move: Move, after: float) -> MigrationReport | None:
    """The report of the migration that was just made; None if it never began.

    Args:
        after: it began later than that, by the clock of the source.

    Raises:
        HostError: the source does not answer.
    """
    listed = _ask(move.source, ["ldm", "list-history", "-o", "migration", "--json"])
    reports = [from_wire(MigrationReport, one) for one in listed]
    found = [one for one in reports if one.domain == move.domain and one.started_at >= after]
    return found[-1] if found else None


def find_hosts(move: Move, report: MigrationReport) -> str:
    """The hosts on which the domain is active now: one, if all is well.

    Where nothing can be run on the target, the report is believed.
    """
    names = {move.source.name: move.domain}
    if move.target is not None:
        names[move.target.name] = move.new_name
    found = [place.name for place in move.places if _is_active(place, names[place.name])]
    if move.target is None and report.outcome is Outcome.DONE:
        found.append(report.target)
    return " and ".join(found) or "nowhere"


def shifted(report: MigrationReport, offset_s: float) -> MigrationReport:
    """A report whose moments are those of a clock that is `offset_s` behind that of the source."""
    if not offset_s:
        return report

    def moved(at: float) -> float:
        return at - offset_s if at else at

    return replace(
        report,
        started_at=moved(report.started_at),
        ended_at=moved(report.ended_at),
        stopped_at=moved(report.stopped_at),
        resumed_at=moved(report.resumed_at),
        phases=tuple(replace(phase, started_at=moved(phase.started_at)) for phase in report.phases),
    )


def _is_active(place: Place, domain: str) -> bool:
    with suppress(HostError):  # it does not know the domain
        return any(view["status"]["state"] == "active" for view in _ask(place, ["ldm", "list", "--json", domain]))
    return False


def _ask(place: Place, words: Sequence[str]) -> list[Any]:
    output = run_program(place.words(*words), timeout_s=ASK_S)
    try:
        return list(json.loads(output))
    except ValueError as error:
        raise HostError(f"'{shlex.join(words)}' on {place.name} does not print JSON", code="program-failed") from error
