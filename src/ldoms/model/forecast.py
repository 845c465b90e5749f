"""What is expected of a migration before it begins, and on what ground."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LinkSource(StrEnum):
    """Where the bandwidth of a forecast comes from."""

    PROBE = "probe"
    """Measured just now, from QEMU to QEMU."""
    EARLIER_PROBE = "earlier-probe"
    """Measured for a dry run a short while ago."""
    HISTORY = "history"
    """What earlier migrations of the domain have reached."""
    ASSUMED = "assumed"
    """Nothing is known of the link."""


@dataclass(frozen=True, slots=True)
class Range:
    """A figure with what it is thought to lie between: about nine times in ten."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, slots=True)
class DirtyRate:
    """How fast a guest changes memory, seen over one window of time; what changes twice counts once."""

    window_s: float
    bytes_s: float


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """A guest's memory, and what of it is not zero: all that has to be sent; found by looking at samples of it.

    Attributes:
        compressed_share: what zlib leaves of the bytes that are not zero, at its fastest; 0 = nobody has tried.
    """

    total_bytes: int
    nonzero_bytes: int
    compressed_share: float = 0.0


@dataclass(frozen=True, slots=True)
class LinkSpeed:
    """What the way of guest memory carries, encryption included.

    Attributes:
        spread: how far it may be off: 0.2 = a fifth, to either side.
    """

    bytes_s: float
    spread: float
    source: LinkSource


@dataclass(frozen=True, slots=True)
class ForecastBasis:
    """What a forecast stands on.

    Attributes:
        memory: what there is to send; None = it could not be looked at, and all of it counts.
        dirty_rates: by window, the shortest first.
        working_set_bytes: what the guest is thought to change again and again; 0 = no end of it was seen.
        round_trip_s: between the managers.
        control_cpus: CPUs of the source's control domain.
        control_busy: their share that was busy, 0 to 1.
        control_shared: guests run on them, too.
        check_s: how long the checks took.
        fixed_s: what a migration takes besides the checks and the copy, as earlier ones of the domain have taught.
        migrations: earlier ones that the forecast has learnt from.
        copy_correction, suspension_correction: factors that it has learnt from them.
    """

    memory: MemoryUse | None
    dirty_rates: tuple[DirtyRate, ...]
    link: LinkSpeed
    working_set_bytes: int = 0
    round_trip_s: float = 0.0
    control_cpus: float = 0.0
    control_busy: float = 0.0
    control_shared: bool = False
    check_s: float = 0.0
    fixed_s: float = 0.0
    migrations: int = 0
    copy_correction: float = 1.0
    suspension_correction: float = 1.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of a migration.

    Attributes:
        total_s: from the request to the end.
        suspension_s: from the guest's stop to its resumption.
        bytes: of memory that are sent.
        slowdown_percent: of its speed that the guest loses from the begin of the copy to its resumption.
        passes: over the guest's memory.
        converges: it comes to its end within what is promised. If not, the figures are those up to where it is given
            up, and the guest is not suspended.
    """

    total_s: Range
    suspension_s: Range
    bytes: Range
    slowdown_percent: Range
    passes: int
    converges: bool
    basis: ForecastBasis
