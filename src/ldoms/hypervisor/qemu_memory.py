"""What a QEMU's guest does with its memory: what of it is in use, and how fast it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from ldoms.hypervisor.command_line import ADDED_MEMORY
from ldoms.hypervisor.memory_sample import Block, sample_memory
from ldoms.hypervisor.qmp import Monitor
from ldoms.model.errors import HostError
from ldoms.model.forecast import MemoryUse
from ldoms.model.sizes import MIB

SAMPLES_PER_GIB = 4096
LEAST_WINDOW_S = 0.05
"""QEMU's (migration/dirtyrate.h)."""
OVERDUE_S = 5.0
POLL_S = 0.02
ALIGNMENT = 2 * MIB
"""Smaller blocks are firmware and tables; all of a guest's own memory comes in whole huge pages."""


class QemuMemory:
    """The memory of one guest. The promises are those of `ldoms.hypervisor.engine.Guest`."""

    def __init__(self, name: str, monitor: Monitor, pid: int) -> None:
        """Prepare for domain `name` in process `pid`."""
        self._name = name
        self._monitor = monitor
        self._pid = pid

    async def use(self) -> MemoryUse:
        """How much there is, how much of it is not zero, and how far that can be compressed."""
        listing = await self._monitor.execute("human-monitor-command", {"command-line": "info ramblock"})
        blocks = parse_blocks(listing)
        try:
            sample = await asyncio.to_thread(sample_memory, self._pid, tuple(blocks.values()))
        except OSError as error:
            raise HostError(f"the memory of LDom {self._name} cannot be looked at: {error}", code="no-look") from error
        # What a guest could be given, and has not, is there in name only: it is not even looked through.
        total = sum(block.size_bytes for name, block in blocks.items() if ADDED_MEMORY not in name)
        return MemoryUse(max(total, sample.nonzero_bytes), sample.nonzero_bytes, sample.compressed_share)

    async def dirty_rate(self, window_s: float) -> float:
        """Bytes per second that changed within a window."""
        await self._monitor.execute(
            "calc-dirty-rate",
            {
                "calc-time": round(max(LEAST_WINDOW_S, window_s) * 1000),
                "calc-time-unit": "millisecond",
                # The other modes see nothing under TCG, or need KVM's ring.
                "mode": "page-sampling",
                "sample-pages": SAMPLES_PER_GIB,
            },
        )
        await asyncio.sleep(window_s)
        try:
            async with asyncio.timeout(OVERDUE_S):
                while (answer := await self._monitor.execute("query-dirty-rate"))["status"] != "measured":
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise HostError(
                f"the QEMU of LDom {self._name} does not say how fast memory changes", code="qemu-silent"
            ) from error
        return float(answer["dirty-rate"] * MIB)


def parse_blocks(listing: str) -> Mapping[str, Block]:
    """By name, the blocks of guest memory in the answer to ``info ramblock``."""
    blocks = {}
    for line in listing.splitlines()[1:]:
        words = line.split()
        if len(words) < 6 or "rw" not in words:
            continue
        used, address = int(words[-4], 16), int(words[-2], 16)
        if used >= ALIGNMENT:
            blocks[" ".join(words[:-7])] = Block(address, used)
    return blocks
