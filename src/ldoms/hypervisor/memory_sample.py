"""How much of a process's memory is not zero, from samples of its pages: cheap, whatever the size of the memory."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass

PAGE_BYTES = 4096
SAMPLES = 4096
"""Of each block: its share is right to 0.8 percent of the block (one standard deviation), or better."""
_ZERO = bytes(PAGE_BYTES)
_IS_THERE = 0b11 << 62
"""Bits of an entry of pagemap: in memory, or swapped out (Documentation/admin-guide/mm/pagemap.rst)."""


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of a process's memory."""

    address: int
    size_bytes: int


def nonzero_bytes(pid: int, blocks: Sequence[Block], samples: int = SAMPLES) -> int:
    """Bytes in pages of the blocks that are not all zero, from one page in each of so many equal stretches.

    A page that was never touched is not touched by this either.

    Raises:
        OSError: the process is gone, or may not be looked into.
    """
    pages = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
        try:
            return sum(_nonzero(pages, memory, block, samples) for block in blocks)
        finally:
            os.close(memory)
    finally:
        os.close(pages)


def _nonzero(pages: int, memory: int, block: Block, samples: int) -> int:
    stride = max(PAGE_BYTES, block.size_bytes // samples // PAGE_BYTES * PAGE_BYTES)
    found = looked_at = 0
    for begin in range(0, block.size_bytes, stride):
        room = min(stride, block.size_bytes - begin) // PAGE_BYTES
        page = (block.address + begin) // PAGE_BYTES + random.randrange(max(1, room))  # noqa: S311
        looked_at += 1
        (entry,) = struct.unpack("Q", os.pread(pages, 8, page * 8))
        if entry & _IS_THERE and os.pread(memory, PAGE_BYTES, page * PAGE_BYTES) != _ZERO:
            found += 1
    return block.size_bytes * found // looked_at if looked_at else 0
