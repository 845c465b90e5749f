"""Free strands that are lent to a control domain while a domain moves."""

from __future__ import annotations

from dataclasses import dataclass

AUTO = 0
"""In place of a number: as many as help."""


@dataclass(frozen=True, slots=True)
class Boost:
    """What was lent to the control domains of both hosts for one migration.

    Attributes:
        asked: strands that were asked for; 0 = as many as help.
        source_strands, target_strands: that were lent at first, on each host.
        lent_at, returned_at: on the source, in seconds since 1970 by its clock; 0 = not yet.
        taken: of the source's, how many a domain needed meanwhile, so that they were given back early.
        reason: why so many, in words.
    """

    asked: int
    source_strands: int
    lent_at: float
    target_strands: int = 0
    returned_at: float = 0.0
    taken: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BoostWish:
    """What the control domain of a host is to be lent.

    Attributes:
        asked: strands; `AUTO` = as many as help.
        threads: that work on the copy at the same time, on either end.
    """

    asked: int
    threads: int

    def strands(self, held: int, free: int, strands_per_cpu: int) -> int:
        """How many strands to lend, of those that are free.

        With `AUTO` the control domain has, together with its own, a whole CPU for each thread that works on the copy
        and one for what comes on top: QEMU's main loop, the manager, the kernel's network. More has nothing to run on
        it; see docs/performance.md for what less costs.

        Args:
            held: by the control domain itself.
            free: that nobody holds, and that are not lent already.
            strands_per_cpu: of the host.
        """
        if self.asked != AUTO:
            return min(self.asked, free)
        return max(0, min(free, (self.threads + 1) * strands_per_cpu - held))

    def reason(self, lent: int, held: int) -> str:
        """Why so many, in words for the report."""
        if self.asked != AUTO:
            return "as asked for"
        if lent == 0:
            return (
                f"none: {held} of its own do for {_threads(self.threads)} of the copy and one CPU more, or none is free"
            )
        return f"a CPU for each of {_threads(self.threads)} of the copy and one more, or what is free"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
