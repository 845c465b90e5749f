"""How fast the host's CPUs run: the difference between UTIL and NORM."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import psutil

Frequencies = Callable[[], Sequence[tuple[float, float]]]
"""For each CPU its frequency now and at most; 0 = the machine does not tell."""

KEPT_S = 1.0


def read_frequencies() -> Sequence[tuple[float, float]]:
    """As the kernel has them."""
    try:
        return [(one.current, one.max) for one in psutil.cpu_freq(percpu=True) or ()]
    except (OSError, NotImplementedError):
        return ()


class Speedometer:
    """The speed of each host CPU as a share of its full speed: less while power management slows it down."""

    def __init__(self, read: Frequencies = read_frequencies, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._read_at = -KEPT_S
        self._shares: tuple[float, ...] = ()

    def share(self, cpu: int) -> float:
        """Between 0 and 1; 1 where the machine does not tell, as most virtual machines."""
        if self._clock() - self._read_at >= KEPT_S:
            self._shares = tuple(min(1.0, now / most) if most > 0 else 1.0 for now, most in self._read())
            self._read_at = self._clock()
        return self._shares[cpu] if cpu < len(self._shares) else 1.0
