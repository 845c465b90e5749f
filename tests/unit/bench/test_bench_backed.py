"""Memory that is held for others: they find it as if no hypervisor took any back."""

from __future__ import annotations

import mmap
import subprocess
import sys
import time

import psutil
import pytest

from ldoms.bench.backed import backed_memory, memory_mib, unused_mib
from ldoms.model.errors import HostError

MEMINFO = """MemTotal:       24000000 kB
MemFree:         2097152 kB
MemAvailable:    8000000 kB
"""


def test_free_is_what_nobody_uses() -> None:
    """Not what could be had."""
    assert memory_mib(MEMINFO, "MemFree") == 2048


@pytest.mark.parametrize(
    ("now", "freed", "unused"),
    [(1000, 0, 0), (1064, 64, 64), (1000, 64, 0), (900, 64, 0), (1200, 64, 64)],
    ids=["nothing freed", "nothing used", "all used", "others use more", "others free some"],
)
def test_what_was_freed_and_not_used(now: int, freed: int, unused: int) -> None:
    """Of 1000 MiB that were free before."""
    assert unused_mib(1000, now, freed) == unused


def test_held_memory_is_given_to_who_uses_it() -> None:
    """As much as was held can be used meanwhile, and the holder ends."""
    with backed_memory(64) as about_to_use, mmap.mmap(-1, 96 << 20) as memory:
        about_to_use()
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1


def test_it_ends_with_whoever_has_started_it() -> None:
    """Also if that is killed, before or while the memory is used."""
    for about_to_use in ("", "go()"):
        code = f"""
import os, signal, subprocess
from ldoms.bench.backed import backed_memory
with backed_memory(32) as go:
    {about_to_use}
    print(subprocess.check_output(["pgrep", "-P", str(os.getpid()), "-f", "ldoms.bench.backed"], text=True), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
        holder = int(done.stdout)
        deadline = time.monotonic() + 10
        while psutil.pid_exists(holder) and psutil.Process(holder).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "it goes on"
            time.sleep(0.02)


def test_memory_that_is_not_there_cannot_be_held() -> None:
    """It is refused in a sentence."""
    with pytest.raises(HostError, match=r"no 1073741824 MiB of memory"), backed_memory(1 << 30):
        pass
