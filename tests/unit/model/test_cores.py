"""Virtual CPUs and whole cores: what a change asks for, and where they are put."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.model.cores import CpuChange, Layout, Unit, asked, cores_of, fresh, lay_out
from ldoms.model.domain import Bindings, Constraints, Threading, VcpuBinding
from ldoms.model.errors import LdomsError, NoResources
from ldoms.model.partition import HostSize, Partition

PER_CORE = 4
SIZE = HostSize(cpus=(0, 1, 2, 3), strands_per_cpu=PER_CORE, memory_mib=1024)
PLAIN = Constraints(vcpus=6)
WHOLE = Constraints(vcpus=8, whole_core=True)
IPC = Constraints(vcpus=2, whole_core=True, threading=Threading.MAX_IPC)


def on(*strands: int, idle: tuple[int, ...] = ()) -> Bindings:
    """Bindings on those strands."""
    vcpus = tuple(VcpuBinding(vid, strand, strand // PER_CORE) for vid, strand in enumerate(strands))
    return Bindings(vcpus, (), idle=idle)


def change(words: str, now: Constraints, *, bound: bool = True) -> Constraints:
    """What ``add-vcpu 2`` and the like make of the constraints."""
    command, amount = words.split()
    action, noun = command.split("-")
    return asked("ldg1", now, CpuChange(action, Unit(f"{noun}s"), int(amount)), PER_CORE, bound=bound)


@pytest.mark.parametrize(
    ("words", "now", "wanted"),
    [
        ("add-vcpu 2", PLAIN, replace(PLAIN, vcpus=8)),
        ("remove-vcpu 5", PLAIN, replace(PLAIN, vcpus=1)),
        ("set-vcpu 3", PLAIN, replace(PLAIN, vcpus=3)),
        ("set-core 2", PLAIN, replace(WHOLE, vcpus=8)),
        ("add-core 1", replace(PLAIN, vcpus=4), WHOLE),
        ("add-core 1", Constraints(), replace(WHOLE, vcpus=4)),
        ("add-core 1", WHOLE, replace(WHOLE, vcpus=12)),
        ("remove-core 1", WHOLE, replace(WHOLE, vcpus=4)),
        ("add-core 1", IPC, replace(IPC, vcpus=3)),
        ("set-core 1", replace(WHOLE, vcpus=5), replace(WHOLE, vcpus=4)),
    ],
)
def test_a_change_is_counted_in_what_it_says(words: str, now: Constraints, wanted: Constraints) -> None:
    """Cores have as many virtual CPUs as strands, or one; to count cores is to ask for whole ones."""
    assert change(words, now) == wanted


@pytest.mark.parametrize(
    ("words", "now", "code", "sentence"),
    [
        ("add-vcpu 4", WHOLE, "whole-core", "LDom ldg1 has whole cores: change their number ('ldm add-core')"),
        ("set-vcpu 4", WHOLE, "whole-core", "'ldm set-vcpu' on the inactive domain takes the constraint away"),
        ("add-core 1", PLAIN, "whole-core", "has 6 virtual CPUs, and no whole cores of 4 strands"),
        ("remove-core 2", WHOLE, "last-vcpu", "LDom ldg1 has 2 cores and must keep at least one"),
        ("set-vcpu 0", PLAIN, "last-vcpu", "LDom ldg1 has 6 virtual CPUs and must keep at least one"),
        ("add-core 1", replace(WHOLE, max_cores=2), "max-cores", "at most 2 cores (max-cores=2), and needs 3 for 12"),
        ("add-vcpu 3", replace(PLAIN, max_cores=2), "max-cores", "needs 3 for 9 virtual CPUs"),
    ],
)
def test_a_change_that_breaks_a_constraint_is_refused(words: str, now: Constraints, code: str, sentence: str) -> None:
    """With the way out."""
    with pytest.raises(LdomsError) as caught:
        change(words, now)
    assert caught.value.code == code
    assert sentence in caught.value.message


def test_the_inactive_domain_gives_the_constraint_up() -> None:
    """Only with set-vcpu, and then completely."""
    assert change("set-vcpu 3", IPC, bound=False) == Constraints(vcpus=3)
    with pytest.raises(LdomsError):
        change("add-vcpu 1", WHOLE, bound=False)


def test_whole_cores_are_given_whole() -> None:
    """Those that nobody has a strand of; a domain's own part of one counts as free."""
    partition = Partition(SIZE, {"primary": on(0), "ldg1": on(4, 5), "ldg2": on(8)})
    now = partition.bindings["ldg1"]
    layout = lay_out(partition, "ldg1", WHOLE, range(8), now)
    assert layout == Layout(on(4, 5, 6, 7, 12, 13, 14, 15).vcpus)
    with pytest.raises(NoResources) as caught:
        lay_out(partition, "ldg1", WHOLE, range(12), now)
    assert caught.value.message == (
        "LDom ldg1 cannot get 3 whole cores: 2 of this host's 4 are free or its own;"
        " 'ldm list-devices -a core' shows who has the others"
    )


def test_the_rest_of_a_whole_core_stays_idle() -> None:
    """With max-ipc, and when a guest has not let go of all of it."""
    partition = Partition(SIZE, {})
    assert lay_out(partition, "ldg1", IPC, range(2)) == Layout(on(0, 4).vcpus, (1, 2, 3, 5, 6, 7))
    now = on(*range(8))
    left = lay_out(Partition(SIZE, {"ldg1": now}), "ldg1", WHOLE, (0, 1, 2, 3, 6), now)
    assert [vcpu.vid for vcpu in left.vcpus] == [0, 1, 2, 3, 6]
    assert left.idle == (4, 5, 7)


def test_max_cores_keeps_a_domain_together() -> None:
    """New strands come from the cores that it is on; without the limit, from a core of its own."""
    partition = Partition(SIZE, {"ldg1": on(0)})
    now = partition.bindings["ldg1"]
    assert [one.strand for one in lay_out(partition, "ldg1", replace(PLAIN, max_cores=1), (0, 1), now).vcpus] == [0, 1]
    assert [one.strand for one in lay_out(partition, "ldg1", PLAIN, (0, 1), now).vcpus] == [0, 4]
    crowded = Partition(SIZE, {"ldg1": on(0), "ldg2": on(1, 2, 3)})
    with pytest.raises(NoResources, match="the free strands are on others"):
        lay_out(crowded, "ldg1", replace(PLAIN, max_cores=1), (0, 1), now)


@given(
    st.sets(st.integers(0, 15), max_size=8),
    st.lists(st.integers(0, 15), unique=True, max_size=6),
    st.sets(st.integers(0, 20), min_size=1, max_size=10),
    st.booleans(),
    st.sampled_from(Threading),
)
def test_no_strand_is_given_twice(
    others: set[int], own: list[int], vids: set[int], whole: bool, threading: Threading
) -> None:
    """Whoever holds what: never one of another domain, never one for two virtual CPUs, whole cores to nobody else."""
    mine = on(*(strand for strand in own if strand not in others))
    partition = Partition(SIZE, {"ldg1": mine, "ldg2": on(*sorted(others))})
    constraints = Constraints(
        vcpus=len(vids), whole_core=whole, threading=threading if whole else Threading("max-throughput")
    )
    try:
        layout = lay_out(partition, "ldg1", constraints, sorted(vids), mine)
    except NoResources:
        usable = len(partition.whole_cores("ldg1")) if whole else len(partition.free_strands)
        needed = cores_of(constraints, PER_CORE) if whole else len(vids - {vcpu.vid for vcpu in mine.vcpus})
        assert needed > usable
        return
    held = [vcpu.strand for vcpu in layout.vcpus] + list(layout.idle)
    assert [vcpu.vid for vcpu in layout.vcpus] == sorted(vids)
    assert len(held) == len(set(held))
    assert not others.intersection(held)
    if whole:
        assert len(held) == PER_CORE * cores_of(constraints, PER_CORE)
        assert len({strand // PER_CORE for strand in held}) == cores_of(constraints, PER_CORE)


def test_a_fresh_start_has_no_gaps_and_nothing_parked() -> None:
    """The machine is made anew."""
    used = tuple(replace(vcpu, vid=vid) for vcpu, vid in zip(on(5, 7).vcpus, (0, 3), strict=True))
    assert fresh(Bindings(used, (), parked=(1, 2))) == on(5, 7)
