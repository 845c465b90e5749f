"""Numbers as people read them: few digits, thousands set apart, the unit behind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

NOTHING = "–"
"""Stands where there is no value."""
_LONG_MS = 10_000
"""Times up to it are shown in milliseconds."""
_BYTES = ("bytes", "KiB", "MiB", "GiB", "TiB")


def number(value: float | None) -> str:
    """A number with three digits or so; whole numbers stay whole."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    size = abs(value)
    if 0 < size < 0.0001:
        return f"{value:.1e}".replace("-", "−")
    digits = 0 if size >= 100 or size == 0 else 1 if size >= 10 else 2 if size >= 1 else 2 - _magnitude(size)
    return f"{value:,.{digits}f}".replace("-", "−")


def _magnitude(size: float) -> int:
    return math.floor(math.log10(size))


def duration(seconds: float | None) -> str:
    """A length of time, in the unit that fits it."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if abs(seconds) < 1:
        return milliseconds(seconds * 1000)
    if abs(seconds) < 120:
        return f"{number(float(seconds))} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest} s"


def milliseconds(value: float | None) -> str:
    """A time that is short as a rule."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{number(float(value))} ms"


def size(count: float | None) -> str:
    """An amount of memory or data."""
    if count is None or not math.isfinite(count):
        return NOTHING
    divisor, unit = byte_scale([count])
    return f"{number(count / divisor if divisor > 1 else round(count))} {unit}"


def byte_scale(values: Iterable[float]) -> tuple[float, str]:
    """What to divide amounts of bytes by so that the largest can be read, and the unit that this gives."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    power = 0
    while power < len(_BYTES) - 1 and largest >= 1024 ** (power + 1):
        power += 1
    return float(1024**power), _BYTES[power]


def scale_of(unit: str, values: Sequence[float]) -> tuple[float, str]:
    """The same for values of any unit: bytes, bytes per second and milliseconds are scaled, nothing else."""
    if unit == "ms" and max((abs(value) for value in values if math.isfinite(value)), default=0.0) >= _LONG_MS:
        return 1000.0, "s"
    base, slash, per = unit.partition("/")
    if base not in ("bytes", "byte", "B"):
        return 1.0, unit
    divisor, scaled = byte_scale(values)
    return divisor, scaled + slash + per


def moment(at: float) -> str:
    """A moment, UTC."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return NOTHING


def offset(seconds: float) -> str:
    """Where something lies on the time axis, from the begin of the migration."""
    return f"{seconds:+,.2f} s".replace("-", "−")
