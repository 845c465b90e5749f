"""What `ldmd` writes into its log, by sort of message."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LogKind(StrEnum):
    """A sort of message that can be switched on and off."""

    CMD = "cmd"
    """Each command that changes something: who, what, and whether it worked."""
    DEBUG = "debug"
    FATAL = "fatal"
    """What went wrong."""
    INFO = "info"
    NOTICE = "notice"
    """What happens to domains."""
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class LogSwitch:
    """Whether messages of a kind are logged, and whether they are by default."""

    kind: LogKind
    is_on: bool
    default: bool
