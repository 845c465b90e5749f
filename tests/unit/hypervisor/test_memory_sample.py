"""Samples of a process's memory, taken from this very process; and QEMU's list of a guest's blocks."""

from __future__ import annotations

import ctypes
import mmap
import os

import pytest

from ldoms.hypervisor.memory_sample import PAGE_BYTES, Block, compressed_share, sample_memory
from ldoms.hypervisor.qemu_memory import parse_blocks

PAGES = 4096

LISTING = """\
              Block Name    PSize              Offset               Used              Total                HVA  RO
                  pc.ram    4 KiB  0x0000000000000000 0x0000000010000000 0x0000000010000000 0x00007f0083e00000  rw
    /rom@etc/acpi/tables    4 KiB  0x0000000010080000 0x0000000000020000 0x0000000000200000 0x00007f00d9200000  ro
 /objects/added-memory-b    2 MiB  0x0000000020000000 0x0000000040000000 0x0000000040000000 0x00007f0183e00000  rw
                 pc.bios    4 KiB  0x0000000010000000 0x0000000000040000 0x0000000000040000 0x00007f00d9800000  ro
"""


@pytest.mark.skipif(not os.access("/proc/self/mem", os.R_OK), reason="the memory of a process cannot be read here")
@pytest.mark.parametrize("filled", [0, PAGES // 4, PAGES])
def test_the_share_that_is_not_zero(filled: int) -> None:
    """To within a few percent; and what was never touched stays so."""
    with mmap.mmap(-1, PAGES * PAGE_BYTES) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(filled):
            memory[page * PAGE_BYTES + 17] = 1
        view = ctypes.c_char.from_buffer(memory)
        found = sample_memory(os.getpid(), [Block(ctypes.addressof(view), PAGES * PAGE_BYTES)], 1024).nonzero_bytes
        del view
    assert found == pytest.approx(filled * PAGE_BYTES, abs=0.03 * PAGES * PAGE_BYTES)


def test_pages_that_were_written_with_zeros_are_zero() -> None:
    """They are there, and need not be sent."""
    with mmap.mmap(-1, 64 * PAGE_BYTES) as memory:
        for page in range(64):
            memory[page * PAGE_BYTES] = 0
        view = ctypes.c_char.from_buffer(memory)
        assert sample_memory(os.getpid(), [Block(ctypes.addressof(view), 64 * PAGE_BYTES)]).nonzero_bytes == 0
        del view


def test_a_process_that_is_gone() -> None:
    """It is an error, not an empty memory."""
    with pytest.raises(OSError, match="No such file"):
        sample_memory((1 << 22) + 1, [Block(0, PAGE_BYTES)])


@pytest.mark.parametrize(("random_bytes", "share"), [(PAGE_BYTES, 1.0), (PAGE_BYTES // 2, 0.5), (0, 0.0)])
def test_what_can_be_compressed(random_bytes: int, share: float) -> None:
    """As much as each page repeats itself; memory that cannot be never counts for more than it is."""
    pages = [os.urandom(random_bytes).ljust(PAGE_BYTES, b"x") for _ in range(64)]
    assert compressed_share(pages) == pytest.approx(share, abs=0.03)


def test_no_pages_gain_nothing() -> None:
    """A guest that has written nothing."""
    assert compressed_share([]) == 1.0


def test_blocks_are_read_from_qemus_words() -> None:
    """All of the guest's own memory, and no firmware."""
    blocks = parse_blocks(LISTING)
    assert blocks["pc.ram"] == Block(0x7F0083E00000, 256 << 20)
    assert len(blocks) == 2
