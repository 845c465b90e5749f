"""Facts about what happened, for the command line, the web and other programs; logs are for the operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EventKind(StrEnum):
    """What happened."""

    DOMAIN_ADDED = "domain-added"
    DOMAIN_CHANGED = "domain-changed"
    DOMAIN_REMOVED = "domain-removed"
    DOMAIN_BOUND = "domain-bound"
    DOMAIN_UNBOUND = "domain-unbound"
    DOMAIN_STARTED = "domain-started"
    DOMAIN_STOPPED = "domain-stopped"
    DOMAIN_RESET = "domain-reset"
    DOMAIN_CRASHED = "domain-crashed"
    DOMAIN_PANICKED = "domain-panicked"
    DOMAIN_SILENT = "domain-silent"
    """Its QEMU is there, and does not answer."""
    DOMAIN_ANSWERS = "domain-answers"
    FAILURE_POLICY_APPLIED = "failure-policy-applied"
    POLICY_APPLIED = "policy-applied"
    """A resource management policy has given or taken virtual CPUs."""
    DOMAIN_DOUBLED = "domain-doubled"
    """A migration was settled by force although the other host was not lost: the guest may run twice."""
    DISK_FAILED = "disk-failed"
    DISK_RESTORED = "disk-restored"
    SERVICES_CHANGED = "services-changed"
    CONFIGURATIONS_CHANGED = "configurations-changed"
    CONFIGURATION_RESTORED = "configuration-restored"
    """The host was off, and this is what came back."""
    MIGRATION_PHASE_ENTERED = "migration-phase-entered"
    MIGRATION_ENDED = "migration-ended"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on this host.

    Attributes:
        sequence: grows by one with every event of the host.
        at: seconds since 1970.
        domain: the name of the domain that it is about, or empty.
        data: what explains it; keys carry their units.
    """

    sequence: int
    at: float
    kind: EventKind
    domain: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """One line of ``ldm list-history``: who asked for what, and whether it worked.

    Attributes:
        succeeded: None as long as an operation that it began is under way.
        operations: that it began, by their ids.
    """

    at: float
    user: str
    command: str
    succeeded: bool | None
    operations: tuple[str, ...] = ()
