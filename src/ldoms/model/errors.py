"""Everything that can go wrong, sorted by who can do something about it.

::

    LdomsError
    ├── RequestError        you: the request cannot be carried out as it stands
    │   ├── NotFound        the thing named does not exist
    │   ├── AlreadyExists   the name is taken
    │   ├── Busy            another operation holds the thing
    │   ├── NoResources     more was asked for than is free
    │   └── NotAuthorized   you may not
    ├── CheckFailed         you: requirements are not met; the findings say which
    ├── HostError           this host: QEMU, the kernel, a file, a port
    ├── PeerError           the other host, or the way to it
    ├── MigrationError      a migration ended without moving the domain; phase and cause
    └── Cancelled           nobody: somebody asked for an end, and everything is undone

Each error has a stable ``code`` for scripts, and a sentence for people.
"""

from __future__ import annotations

from collections.abc import Sequence

TYPE_CHECKING = False  # as in `typing`, which takes its time to import
if TYPE_CHECKING:
    from ldoms.model.findings import Finding
    from ldoms.model.phases import Phase


class LdomsError(Exception):
    """Root of every error that ldoms raises on purpose.

    Attributes:
        code: stable short name for scripts, such as ``domain-busy``.
        message: one sentence that names the thing, what was wrong with it, and what to do.
        details: the values that explain it; they can be sent as JSON.
    """

    default_code = "error"

    def __init__(self, message: str, *, code: str | None = None, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.details = details


class RequestError(LdomsError):
    """The request cannot be carried out as it stands; changing it helps."""

    default_code = "bad-request"


class NotFound(RequestError):
    """The thing named does not exist."""

    default_code = "not-found"


class AlreadyExists(RequestError):
    """The name is taken."""

    default_code = "already-exists"


class Busy(RequestError):
    """Another operation holds the thing; it is named in the message."""

    default_code = "domain-busy"


class NoResources(RequestError):
    """More was asked for than is free; the message has both figures."""

    default_code = "no-resources"


class NotAuthorized(RequestError):
    """The caller may not do this."""

    default_code = "not-authorized"


class CheckFailed(LdomsError):
    """Requirements are not met.

    Attributes:
        findings: every finding of the check, warnings included.
    """

    default_code = "check-failed"

    def __init__(
        self, message: str, findings: Sequence[Finding] = (), *, code: str | None = None, **details: object
    ) -> None:
        super().__init__(message, code=code, **details)
        self.findings = tuple(findings)


class HostError(LdomsError):
    """Something on this host failed: QEMU, the kernel, a file, a port."""

    default_code = "host-error"


class PeerError(LdomsError):
    """The other host could not be reached, or answered with an error of its own."""

    default_code = "peer-error"


class MigrationError(LdomsError):
    """A migration ended without moving the domain, which runs where it ran before.

    But for code ``guest-lost``: the domain has moved, and its guest has ended over it.

    Attributes:
        phase: the phase in which it ended.
    """

    default_code = "migration-failed"

    def __init__(self, message: str, *, phase: Phase, code: str | None = None, **details: object) -> None:
        super().__init__(message, code=code, **details)
        self.phase = phase


class Cancelled(LdomsError):
    """It was stopped because somebody asked for it, and what it had done is undone."""

    default_code = "cancelled"
