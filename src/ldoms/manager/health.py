"""What the kernel knows of broken parts of the host."""

from __future__ import annotations

from pathlib import Path

from ldoms.model.host import OK, UNKNOWN

ONLINE = Path("/sys/devices/system/cpu/online")
MEMORY = Path("/proc/meminfo")


def online_cpus(path: Path = ONLINE) -> frozenset[int]:
    """Numbers of the CPUs that the kernel uses, from a list such as ``0-3,8``."""
    found: set[int] = set()
    for part in path.read_text().strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def memory_health(path: Path = MEMORY) -> str:
    """Whether all memory is fine; where some is broken, the kernel does not tell whose it is."""
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "HardwareCorrupted" and value.split()[0] != "0":
            return UNKNOWN
    return OK
