"""What a check found: facts about a requirement that is not met, or only just."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding weighs."""

    ERROR = "error"
    """The operation would fail, or would harm the guest. ``-f`` does not help."""
    OVERRIDABLE = "overridable"
    """The operation is refused unless it is forced with ``-f``."""
    WARNING = "warning"
    """Worth knowing; the operation goes on."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement that is not met.

    Attributes:
        rule: stable name of the rule, such as ``cpu-features``.
        severity: how much it weighs.
        message: one sentence that names the thing and what is wrong with it.
        remedy: what the administrator can do about it, preferably as a command.
    """

    rule: str
    severity: Severity
    message: str
    remedy: str


def blocking(findings: Iterable[Finding], *, force: bool) -> tuple[Finding, ...]:
    """The findings that stop an operation; ``force`` lets the overridable ones pass."""
    stops = {Severity.ERROR} if force else {Severity.ERROR, Severity.OVERRIDABLE}
    return tuple(finding for finding in findings if finding.severity in stops)
