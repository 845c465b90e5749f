"""Strands and memory, handed out and taken back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.model.domain import Bindings, MemoryBlock, VcpuBinding
from ldoms.model.errors import NoResources
from ldoms.model.partition import HostSize, Partition, shrink_memory

SIZE = HostSize(cpus=(0, 1, 4, 5), strands_per_cpu=2, memory_mib=8192)


def held(strands: tuple[int, ...] = (), *memory: tuple[int, int]) -> Bindings:
    """Bindings on those strands, with memory as (first MiB, length)."""
    vcpus = tuple(VcpuBinding(vid, strand, strand // 2) for vid, strand in enumerate(strands))
    return Bindings(vcpus, tuple(MemoryBlock(0, start, length) for start, length in memory))


def test_strands_are_parts_of_cpus() -> None:
    """Two to a CPU, whatever number the CPU has."""
    assert list(SIZE.strands) == list(range(8))
    assert [SIZE.cpu_of(strand) for strand in SIZE.strands] == [0, 0, 1, 1, 4, 4, 5, 5]
    assert SIZE.cpus_of((1, 2, 3)) == {0, 1}


def test_whole_cpus_are_taken_first() -> None:
    """A guest shares a CPU only when it must."""
    partition = Partition(SIZE, {"primary": held((0,))})
    assert partition.pick_strands(2, "ldg1") == (2, 3)
    assert partition.pick_strands(7, "ldg1") == (1, 2, 3, 4, 5, 6, 7)


def test_too_many_cpus_are_refused_with_the_figures() -> None:
    """What was asked for, what is free, and the command that would free the rest."""
    partition = Partition(SIZE, {"primary": held((0, 1, 2, 3, 4, 5))})
    with pytest.raises(NoResources) as caught:
        partition.pick_strands(4, "ldg1")
    assert caught.value.message == (
        "LDom ldg1 cannot get 4 virtual CPUs: it needs 4 free strands, and 2 of this host's 8 are free;"
        " 'ldm set-vcpu 4 primary' would free the rest"
    )
    assert caught.value.details == {"wanted": 4, "free": 2}


def test_no_relief_is_offered_where_there_is_none() -> None:
    """The control domain keeps its last CPU."""
    with pytest.raises(NoResources) as caught:
        Partition(SIZE, {"primary": held((0,))}).pick_strands(8, "ldg1")
    assert "primary" not in caught.value.message


def test_too_much_memory_is_refused_with_the_figures() -> None:
    """In MiB, with the command that would free the rest."""
    partition = Partition(SIZE, {"primary": held((), (0, 7168))})
    with pytest.raises(NoResources) as caught:
        partition.pick_memory(2048, "ldg1")
    assert caught.value.message == (
        "LDom ldg1 cannot get 2048M of memory: 1024M of this host's 8192M are free;"
        " 'ldm set-memory 6144M primary' would free the rest"
    )
    assert caught.value.code == "no-memory"


def test_memory_is_one_range_if_one_is_large_enough() -> None:
    """The smallest that fits, so that large ones stay large."""
    partition = Partition(SIZE, {"a": held((), (1024, 1024)), "b": held((), (4096, 1024))})
    assert partition.free_memory == ((0, 1024), (2048, 2048), (5120, 3072))
    assert partition.pick_memory(1000, "ldg1") == (MemoryBlock(0, 0, 1000),)
    assert partition.pick_memory(2048, "ldg1") == (MemoryBlock(0, 2048, 2048),)


def test_memory_is_several_ranges_if_it_must_be() -> None:
    """Adjacent for the guest."""
    partition = Partition(SIZE, {"a": held((), (1024, 1024)), "b": held((), (4096, 1024))})
    blocks = partition.pick_memory(4096, "ldg1", real_address_mib=256)
    assert blocks == (MemoryBlock(256, 5120, 3072), MemoryBlock(3328, 2048, 1024))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=8), st.integers(1, 8192))
def test_memory_is_never_given_twice(taken: list[tuple[int, int]], wanted: int) -> None:
    """Whatever is held already, what is picked is free, and as much as was asked for."""
    bindings, used = {}, set[int]()
    for number, (start, length) in enumerate(taken):
        cells = set(range(start * 256, start * 256 + length * 256))
        if cells & used or max(cells) >= SIZE.memory_mib:
            continue
        used |= cells
        bindings[f"d{number}"] = held((), (start * 256, length * 256))
    partition = Partition(SIZE, bindings)
    assert partition.free_memory_mib == SIZE.memory_mib - len(used)
    if wanted > partition.free_memory_mib:
        with pytest.raises(NoResources):
            partition.pick_memory(wanted, "ldg1")
        return
    blocks = partition.pick_memory(wanted, "ldg1")
    picked = [mib for one in blocks for mib in range(one.physical_address_mib, one.physical_address_mib + one.size_mib)]
    assert len(picked) == len(set(picked)) == wanted
    assert not set(picked) & used
    assert [one.real_address_mib for one in blocks] == [
        sum(before.size_mib for before in blocks[:number]) for number in range(len(blocks))
    ]


@given(st.sets(st.integers(0, 7)), st.integers(1, 8))
def test_strands_are_never_given_twice(taken: set[int], wanted: int) -> None:
    """Whatever is held already."""
    partition = Partition(SIZE, {"primary": held(tuple(sorted(taken)))})
    if wanted > 8 - len(taken):
        with pytest.raises(NoResources):
            partition.pick_strands(wanted, "ldg1")
        return
    picked = partition.pick_strands(wanted, "ldg1")
    assert len(set(picked)) == wanted
    assert not set(picked) & taken


def test_shrinking_keeps_the_beginning() -> None:
    """The guest's lowest addresses stay where they are."""
    blocks = (MemoryBlock(0, 4096, 1024), MemoryBlock(1024, 0, 1024))
    assert shrink_memory(blocks, 1536) == (MemoryBlock(0, 4096, 1024), MemoryBlock(1024, 0, 512))
    assert shrink_memory(blocks, 1024) == (MemoryBlock(0, 4096, 1024),)
