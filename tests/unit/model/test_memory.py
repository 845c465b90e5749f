"""How much memory, in which steps, and where the guest sees it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.model.domain import Bindings, MemoryBlock
from ldoms.model.errors import RequestError
from ldoms.model.memory import adjust, as_before, at_start, check_step, lay_out, memory_maximum_mib


@pytest.mark.parametrize(
    ("bound", "host", "most"),
    [
        (512, 8192, 8192),
        (512, 65536, 16384),
        (8192, 1 << 20, 32768),
        (1 << 18, 1 << 20, 1 << 19),
    ],
)
def test_room_for_more(bound: int, host: int, most: int) -> None:
    """At least 16 GiB, or four times as much, as far as the host and the addresses of a CPU reach."""
    assert memory_maximum_mib(bound, host) == most


def test_added_memory_is_laid_out_behind() -> None:
    """A block that is partly of the start is two."""
    blocks = (MemoryBlock(7, 100, 50), MemoryBlock(9, 300, 40))
    assert lay_out(blocks, 60, 4096) == (
        MemoryBlock(0, 100, 50),
        MemoryBlock(50, 300, 10),
        MemoryBlock(4096, 310, 30),
    )


def test_a_start_makes_it_one_piece() -> None:
    """What was added before is memory like any other afterwards."""
    grown = Bindings((), (MemoryBlock(0, 0, 512), MemoryBlock(4096, 2048, 256)), boot_memory_mib=512)
    assert grown.added_memory_mib == 256
    started = at_start(grown)
    assert started.memory == (MemoryBlock(0, 0, 512), MemoryBlock(512, 2048, 256))
    assert (started.first_memory_mib, started.added_memory_mib) == (768, 0)


def test_a_moved_guest_sees_what_it_has_seen() -> None:
    """Whatever the target has given: real addresses are part of the machine."""
    moved = Bindings((), (MemoryBlock(0, 0, 512), MemoryBlock(4096, 2048, 256)), boot_memory_mib=512)
    here = Bindings((), (MemoryBlock(0, 8192, 768),))
    arrived = as_before(here, moved)
    assert arrived.memory == (MemoryBlock(0, 8192, 512), MemoryBlock(4096, 8704, 256))
    assert (arrived.first_memory_mib, arrived.added_memory_mib) == (512, 256)


def test_a_guest_of_an_earlier_release_moves_too() -> None:
    """Its record does not say what it was started with: that was all."""
    arrived = as_before(Bindings((), (MemoryBlock(0, 8192, 768),)), Bindings((), (MemoryBlock(0, 0, 768),)))
    assert arrived == Bindings((), (MemoryBlock(0, 8192, 768),))


@given(
    st.lists(st.integers(1, 64), min_size=1, max_size=6),
    st.integers(1, 400),
)
def test_laying_out_loses_nothing(sizes: list[int], boot: int) -> None:
    """The same physical memory, in the same order, at real addresses without overlap."""
    blocks = tuple(MemoryBlock(0, 1000 * number, size) for number, size in enumerate(sizes))
    laid = lay_out(blocks, boot, 4096)
    cells = [block.physical_address_mib + offset for block in laid for offset in range(block.size_mib)]
    assert cells == [block.physical_address_mib + offset for block in blocks for offset in range(block.size_mib)]
    real = [block.real_address_mib + offset for block in laid for offset in range(block.size_mib)]
    below, total = min(boot, sum(sizes)), sum(sizes)
    assert real == [*range(below), *range(4096, 4096 + total - below)]


@pytest.mark.parametrize(
    ("now", "wanted", "active", "adjusted"),
    [
        (1024, 1025, True, 1280),
        (1024, 1536, True, 1536),
        (1024, 700, True, 768),
        (1028, 1029, True, 1284),
        (1024, 1025, False, 1280),
        (1024, 700, False, 768),
        (0, 100, False, 256),
    ],
)
def test_adjusting(now: int, wanted: int, active: bool, adjusted: int) -> None:
    """While it runs the change is rounded, up when it grows and down when it shrinks; else the result is, up."""
    assert adjust("set-memory", "ldg1", now, wanted, active=active) == adjusted


def test_the_words_of_ldoms() -> None:
    """The refusal that LDoms prints for the same figures."""
    with pytest.raises(RequestError) as caught:
        check_step("set-memory", "primary", 32544, 4096)
    assert caught.value.message == (
        "A ldm set-mem 4G command would remove 28448MB, which is not a\n"
        "multiple of 256MB. Instead, run ldm set-mem 4128M primary\n"
        "to ensure a 256MB alignment."
    )
