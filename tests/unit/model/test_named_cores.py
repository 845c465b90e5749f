"""Cores that were named: what a change makes of them, and whether just these can be had."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldoms.model.cores import CpuChange, Unit, asked, lay_out, unfitting
from ldoms.model.domain import Bindings, Constraints, Domain, Threading, VcpuBinding
from ldoms.model.errors import LdomsError, NoResources
from ldoms.model.named_cores import kept_names, with_core_map
from ldoms.model.partition import HostSize, Partition

PER_CORE = 4
SIZE = HostSize(cpus=(0, 1, 2, 3), strands_per_cpu=PER_CORE, memory_mib=1024)
NAMED = Constraints(vcpus=8, whole_core=True, core_ids=(1, 3))


def change(action: str, core_ids: tuple[int, ...], now: Constraints) -> Constraints:
    """What ``cid=`` makes of the constraints."""
    return asked("ldg1", now, CpuChange(action, Unit.CORES, core_ids=core_ids), PER_CORE, bound=True)


def on(*strands: int) -> Bindings:
    """Bindings on those strands."""
    return Bindings(tuple(VcpuBinding(vid, one, one // PER_CORE) for vid, one in enumerate(strands)), ())


@pytest.mark.parametrize(
    ("action", "core_ids", "now", "wanted"),
    [
        ("add", (2, 0), Constraints(), replace(NAMED, core_ids=(0, 2))),
        ("add", (0,), NAMED, replace(NAMED, vcpus=12, core_ids=(0, 1, 3))),
        ("set", (2,), NAMED, replace(NAMED, vcpus=4, core_ids=(2,))),
        ("set", (1, 3), Constraints(vcpus=5, memory_mib=8), replace(NAMED, memory_mib=8)),
        ("set", (), NAMED, replace(NAMED, core_ids=())),
        ("set", (), Constraints(), Constraints()),
        ("remove", (3,), NAMED, replace(NAMED, vcpus=4, core_ids=(1,))),
        (
            "set",
            (0, 1, 2),
            Constraints(vcpus=1, whole_core=True, threading=Threading.MAX_IPC),
            Constraints(vcpus=3, whole_core=True, threading=Threading.MAX_IPC, core_ids=(0, 1, 2)),
        ),
    ],
)
def test_named_cores_are_whole(action: str, core_ids: tuple[int, ...], now: Constraints, wanted: Constraints) -> None:
    """Their number follows from their names; without a name the number stays."""
    assert change(action, core_ids, now) == wanted


@pytest.mark.parametrize(
    ("action", "core_ids", "now", "sentence"),
    [
        ("set", (1, 1), NAMED, "cid=1,1 names a core twice"),
        ("add", (3,), NAMED, "LDom ldg1 has core 3 already"),
        ("remove", (2, 3), NAMED, "LDom ldg1 has no core 2: it has 1,3"),
        ("remove", (1, 3), NAMED, "LDom ldg1 has 2 cores and must keep at least one"),
        ("add", (2,), Constraints(vcpus=3), "has virtual CPUs on cores that were not named"),
        ("remove", (2,), Constraints(vcpus=4, whole_core=True), "'ldm set-core cid=CORE[,CORE...] ldg1'"),
        ("set", (0, 1), replace(NAMED, max_cores=1), "may have at most 1 core (max-cores=1)"),
    ],
)
def test_what_cannot_be_named(action: str, core_ids: tuple[int, ...], now: Constraints, sentence: str) -> None:
    """One sentence says why."""
    with pytest.raises(LdomsError) as caught:
        change(action, core_ids, now)
    assert sentence in caught.value.message


@pytest.mark.parametrize("unit", list(Unit))
@pytest.mark.parametrize("action", ["add", "set", "remove"])
@pytest.mark.parametrize("bound", [True, False])
def test_named_cores_are_not_changed_by_number(unit: Unit, action: str, bound: bool) -> None:
    """Whatever is counted (physical-bindings of LDoms); the sentence has both ways out."""
    with pytest.raises(LdomsError) as caught:
        asked("ldg1", NAMED, CpuChange(action, unit, 1), PER_CORE, bound=bound)
    assert caught.value.code == "named-cores"
    assert "has cores that were named (1,3)" in caught.value.message
    assert f"'ldm {action}-core cid=CORE[,CORE...] ldg1'" in caught.value.message
    assert "'ldm set-core cid= ldg1'" in caught.value.message


def test_just_these_cores_are_given() -> None:
    """All of each, although others are free; a virtual CPU that is on one of them stays there."""
    partition = Partition(SIZE, {"primary": on(0), "ldg1": on(12, 8)})
    layout = lay_out(partition, "ldg1", NAMED, range(8), partition.bindings["ldg1"])
    assert [vcpu.strand for vcpu in layout.vcpus] == [12, 4, 5, 6, 7, 13, 14, 15]
    assert layout.idle == ()
    alone = lay_out(partition, "ldg1", NAMED, (0,), partition.bindings["ldg1"])
    assert (alone.vcpus[0].strand, alone.idle) == (12, (4, 5, 6, 7, 13, 14, 15))


@pytest.mark.parametrize(
    ("core_ids", "sentence"),
    [
        ((1, 4, 9), "LDom ldg1 cannot get core 4,9: the cores of this host are 0 to 3"),
        ((0, 1), "LDom ldg1 cannot get core 0: LDom ldg2, primary has strands of it"),
    ],
)
def test_no_other_core_will_do(core_ids: tuple[int, ...], sentence: str) -> None:
    """One that is not there, or not free, is named."""
    partition = Partition(SIZE, {"primary": on(0), "ldg2": on(3)})
    constraints = replace(NAMED, vcpus=4 * len(core_ids), core_ids=core_ids)
    with pytest.raises(NoResources) as caught:
        lay_out(partition, "ldg1", constraints, range(constraints.vcpus))
    assert sentence in caught.value.message


@given(st.sets(st.integers(0, 3), min_size=1), st.sets(st.integers(0, 3), min_size=1), st.integers(1, 4))
def test_a_guest_that_keeps_more_keeps_cores_of_its_own(before: set[int], after: set[int], needed: int) -> None:
    """The new ones first, then some of those that it has, and never fewer than it needs if there are so many."""
    now = replace(NAMED, core_ids=tuple(sorted(before)))
    kept = kept_names(now, replace(NAMED, core_ids=tuple(sorted(after))), needed)
    assert set(kept) >= after
    assert set(kept) <= before | after
    assert len(kept) == max(len(after), min(needed, len(before | after)))


def test_names_of_another_host() -> None:
    """Each core is called what the other host calls it; a core that is not in the map keeps its name."""
    domain = Domain("u", "ldg1", "m", "h", 1, NAMED)
    assert with_core_map(domain, ((1, 7), (3, 2))).constraints == replace(NAMED, core_ids=(2, 7))
    assert with_core_map(domain, ()) == domain


def test_a_description_must_fit_its_names() -> None:
    """As many virtual CPUs as the cores have, and whole ones."""
    assert unfitting(Constraints(vcpus=3), PER_CORE) == unfitting(NAMED, PER_CORE) == ""
    for wrong in (replace(NAMED, vcpus=7), replace(NAMED, whole_core=False), replace(NAMED, core_ids=(1, 1, 3))):
        assert unfitting(wrong, PER_CORE).startswith("it names the cores 1,")
