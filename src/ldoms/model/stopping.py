"""How a domain is stopped: what ``ldm stop-domain`` can ask for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

STOP_S = 100.0
"""How long a guest may take to shut down when nothing else is said."""
MAX_STOP_S = 86400.0


class StopMode(StrEnum):
    """In which way."""

    SHUT_DOWN = "shut-down"
    """Ask the guest to shut down, and wait."""
    HALT = "halt"
    """The same, and never anything quicker. ``-h``"""
    REBOOT = "reboot"
    """Ask the guest to restart. ``-r``"""
    QUICK = "quick"
    """Have the guest write what it must and switch off, without ending its services. ``-q``"""
    FORCE = "force"
    """End it without asking it. ``-f``"""


@dataclass(frozen=True, slots=True)
class StopOptions:
    """What was asked for.

    Attributes:
        limit_s: how long the guest may take; None = `STOP_S`. A guest that was given a limit of its own, and does not
            keep it, is stopped as with `StopMode.QUICK`.
        message: for the users of the guest, before it shuts down.
    """

    mode: StopMode = StopMode.SHUT_DOWN
    limit_s: float | None = None
    message: str = ""
