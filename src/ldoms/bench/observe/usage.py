"""CPU time of QEMU's threads by what they do, over threads that come and go."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MIGRATION = "migration"
"""Threads that send or receive memory."""
EMULATOR = "emulator"
"""All others but virtual CPUs: the main loop, which also takes in memory that comes over one channel, and devices."""

# QEMU's names, as `-name debug-threads=on` gives them to the kernel, which keeps 15 characters: "CPU 0/KVM",
# "mig/src/main", "mig/src/send_0", "mig/dst/recv_0" (QEMU 9.2 and later), "live_migration", "multifdsend_0" (earlier).
_VCPU = re.compile(r"CPU (\d+)/")
_MIGRATION = ("mig/", "live_migration", "multifd", "return path", "postcopy/", "dirtyrate", "bg_snapshot")


@dataclass(frozen=True, slots=True)
class ThreadTime:
    """A thread of a process, by the kernel's number of it, and the CPU time that it has used so far."""

    tid: int
    name: str
    seconds: float


def kind_of(name: str) -> str:
    """What a thread of that name does: ``vcpu0``, `MIGRATION` or `EMULATOR`."""
    if found := _VCPU.match(name):
        return f"vcpu{found[1]}"
    return MIGRATION if name.startswith(_MIGRATION) else EMULATOR


class Usage:
    """Adds up what threads use from the first look on.

    Attributes:
        seconds: by kind; they only grow.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last: dict[int, float] | None = None

    def look(self, threads: Iterable[ThreadTime]) -> None:
        """Take in the threads there are now.

        Those of the first look have worked before; one that comes later has done all its work since. What a thread did
        after the last look before its end is lost, so that looks must be frequent.
        """
        now = list(threads)
        before = {one.tid: one.seconds for one in now} if self._last is None else self._last
        for one in now:
            kind = kind_of(one.name)
            used = max(0.0, one.seconds - before.get(one.tid, 0.0))
            self.seconds[kind] = self.seconds.get(kind, 0.0) + used
        self._last = {one.tid: one.seconds for one in now}
