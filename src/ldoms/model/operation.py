"""Long work as an object: what is going on, how far it is, and whether it may be stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class OperationStatus(StrEnum):
    """Where an operation stands."""

    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Operation:
    """A piece of work on one domain that outlives the request that began it.

    Attributes:
        kind: the verb, such as ``migrate-domain``.
        domain: name of the domain that is held while it runs.
        phase: where it is, in words of its own; for a migration the name of the `Phase`.
        progress: percent.
        figures: how far it is in figures of its own; for a migration the fields of `ldoms.model.migration.Progress`,
            renewed several times a second while memory is copied. They are not written down before its end.
        may_cancel: whether stopping it is still possible.
        error: ``code``, ``message`` and ``details`` of the error that ended it.
        result: what it made, such as the migration report.
        asked: what was asked for, as far as it must be known to go on after a restart of the manager.
    """

    id: str
    kind: str
    domain: str
    user: str
    started_at: float
    status: OperationStatus = OperationStatus.RUNNING
    phase: str = ""
    progress: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)
    may_cancel: bool = False
    ended_at: float = 0.0
    error: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.status is not OperationStatus.RUNNING
