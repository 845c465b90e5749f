"""What a guest, or its QEMU, says of itself: states, events, and answers; and the words for what it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class DiskState:
    """How a disk of a guest does.

    Attributes:
        path: what is behind it; None = it was cut.
        has_failed: a request has failed since the guest was last resumed.
        is_direct: it is opened without the host's page cache.
    """

    path: Path | None
    has_failed: bool
    is_direct: bool = False


@dataclass(frozen=True, slots=True)
class MirrorState:
    """How the copy of a disk to another host does.

    Attributes:
        sent_bytes: dealt with so far, empty parts of a raw image included.
        total_bytes: that are known to be needed: it grows when the guest writes.
        is_ready: both sides were the same at some moment, and the copy follows the guest's writes.
        is_tied: no write of the guest is over before both sides have it, and all earlier ones have arrived.
        error: why it has ended; empty = it goes on.
    """

    sent_bytes: int
    total_bytes: int
    is_ready: bool
    is_tied: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class AddedMemory:
    """What a guest has beyond the memory that it was started with.

    Attributes:
        address_mib: where the guest sees the first of it.
        size_mib: that the guest has taken, rounded up.
        requested_mib: that it is asked to have; it takes or gives back until it has it, also when it restarts.
        maximum_mib: that it can be asked to have.
    """

    address_mib: int
    size_mib: int
    requested_mib: int
    maximum_mib: int


class RunState(StrEnum):
    """What a guest does, as far as a manager needs to tell the difference."""

    RUNNING = "running"
    PAUSED = "paused"
    """Stopped, may be resumed."""
    INCOMING = "incoming"
    """Waits for, or receives, another host's memory."""
    SENT = "sent"
    """Stopped because its memory has gone to another host."""
    SHUT_DOWN = "shut-down"
    CRASHED = "crashed"
    STALLED = "stalled"
    """Stopped because a disk does not work; the requests that failed are tried again when it is resumed."""
    SILENT = "silent"
    """Its QEMU was found, and has not answered yet: it may run."""


class GuestEventKind(StrEnum):
    """What a guest, or its QEMU, reports by itself."""

    STOPPED = "stopped"
    RESUMED = "resumed"
    RESET = "reset"
    SHUT_DOWN = "shut-down"
    PANICKED = "panicked"
    MIGRATION = "migration"
    """The state of a migration changed; data: ``status``."""
    MIGRATION_PASS = "migration-pass"  # noqa: S105
    """A new pass over memory began; data: ``pass``."""
    DISK_FAILED = "disk-failed"
    """A disk does not work, and the guest is stopped for it; data: ``reason``."""
    DEVICE_GONE = "device-gone"
    """The guest has let a device go, and its back end is closed; data: ``device``."""
    GONE = "gone"
    """The process has ended; always the last one; data: ``boot_fault`` if it was by a fault of QEMU's at the start."""


@dataclass(frozen=True, slots=True)
class GuestEvent:
    """Something that a guest reported.

    Attributes:
        at: seconds since 1970, by the clock of this host, taken where it happened.
    """

    kind: GuestEventKind
    at: float
    data: Mapping[str, Any] = field(default_factory=dict)


class MigrationStatus(StrEnum):
    """QEMU's words for the state of a migration that a manager acts on; any other means: still under way."""

    NONE = "none"
    SETUP = "setup"
    ACTIVE = "active"
    PRE_SWITCHOVER = "pre-switchover"
    DEVICE = "device"
    POSTCOPY_ACTIVE = "postcopy-active"
    POSTCOPY_PAUSED = "postcopy-paused"
    POSTCOPY_RECOVER_SETUP = "postcopy-recover-setup"
    POSTCOPY_RECOVER = "postcopy-recover"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({MigrationStatus.COMPLETED, MigrationStatus.FAILED, MigrationStatus.CANCELLED})
IN_POSTCOPY = frozenset(status for status in MigrationStatus if status.startswith("postcopy-"))
"""The source's guest never runs again; the target's may, and lacks pages."""


class MigrationEnd(StrEnum):
    """Which end of a migration a guest is."""

    SEND = "send"
    RECEIVE = "receive"


class PowerWish(StrEnum):
    """What a guest can be asked to do; the words are those of the guest agent."""

    OFF = "powerdown"
    RESTART = "reboot"


@dataclass(frozen=True, slots=True)
class GuestVcpu:
    """A virtual CPU as the system in the guest sees it.

    Attributes:
        vid: the guest's own number. It is ours, too, as long as the CPUs of a machine have no gaps.
        fixed: the guest cannot do without it.
    """

    vid: int
    online: bool
    fixed: bool = False
