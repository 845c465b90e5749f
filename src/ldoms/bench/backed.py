"""Free memory that its machine really has: first use costs the same, whatever ran before.

A virtual machine may give memory that has been free for a second back to its hypervisor, and pays for it when it is
used again: ten times as much as for memory that it has. Then a copy takes as long as that, whoever makes it. Here a
program of its own holds memory that it has used, and frees it piece by piece as others come to need it. It runs as
``python -m ldoms.bench.backed MIB``.
"""

from __future__ import annotations

import mmap
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ldoms.model.errors import HostError

PIECE_MIB = 32
AHEAD_MIB = 64
"""So much is free that nobody has used yet; nothing waits for it."""
AGAIN_S = 0.25
"""After so long what is still free is used and freed once more, before anybody takes it away."""
POLL_S = 0.002
READY_S = 60.0
END_S = 10.0
_MEMINFO = Path("/proc/meminfo")
_POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE, since Linux 5.14; Python has no name for it."""


@contextmanager
def backed_memory(mib: int) -> Iterator[Callable[[], None]]:
    """Hold so much memory for others, who find it as if no hypervisor took any back.

    Yields:
        what is to be called when they are about to use it.

    Raises:
        HostError: there is not that much.
    """
    lacking = HostError(f"there are no {mib} MiB of memory to be held for the guests", code="not-held")
    if mib > memory_mib(_MEMINFO.read_text(), "MemAvailable"):
        raise lacking
    words = [sys.executable, "-m", "ldoms.bench.backed", f"{mib}"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            if not select.select([holder.stdout], [], [], READY_S)[0] or holder.stdout.readline() != "ready\n":
                raise lacking
            begin = holder.stdin

            def release() -> None:
                try:
                    begin.write("go\n")
                    begin.flush()
                except OSError:
                    raise lacking from None  # it has ended

            yield release
        finally:
            holder.kill()
            holder.wait(END_S)


def unused_mib(free_before_mib: int, free_mib: int, freed_mib: int) -> int:
    """How much of what was freed nobody has come to use."""
    return max(0, freed_mib - max(0, free_before_mib + freed_mib - free_mib))


def memory_mib(meminfo: str, name: str) -> int:
    """A line of ``/proc/meminfo``, such as ``MemFree``: memory that nobody uses for anything."""
    line = next(line for line in meminfo.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) // 1024


def _hold(mib: int) -> None:
    held = [_piece() for _ in range(-(-mib // PIECE_MIB))]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if not sys.stdin.readline():
        return
    before, freed, renewed_at = _free_now(), 0, 0.0
    while not select.select([sys.stdin], [], [], POLL_S)[0]:  # until whoever has started it has ended
        unused = unused_mib(before, _free_now(), freed)
        if held and time.monotonic() > renewed_at + AGAIN_S:
            again, renewed_at = unused // PIECE_MIB, time.monotonic()
            held += [_piece() for _ in range(again)]
            freed, unused = freed - again * PIECE_MIB, unused - again * PIECE_MIB
        while held and unused < AHEAD_MIB:
            held.pop().close()
            freed, unused = freed + PIECE_MIB, unused + PIECE_MIB


def _piece() -> mmap.mmap:
    piece = mmap.mmap(-1, PIECE_MIB << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    piece.madvise(mmap.MADV_HUGEPAGE)  # freed as it will be wanted
    piece.madvise(_POPULATE_WRITE)
    return piece


def _free_now() -> int:
    return memory_mib(_MEMINFO.read_text(), "MemFree")


if __name__ == "__main__":
    _hold(int(sys.argv[1]))
