"""Virtual CPUs and whole cores: what a change asks for, and which strands a domain gets for it. All of it is pure.

A core is a host CPU. A domain with the whole-core constraint shares none of its cores with another domain: strands of
them that no virtual CPU needs stay idle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ldoms.model.domain import Bindings, Constraints, Threading, VcpuBinding
from ldoms.model.errors import NoResources, RequestError
from ldoms.model.named_cores import check_named, listed, named, names_are_kept
from ldoms.model.partition import Partition


class Unit(StrEnum):
    """What a change counts."""

    VCPUS = "vcpus"
    CORES = "cores"


@dataclass(frozen=True, slots=True)
class CpuChange:
    """``add-vcpu 2``, ``set-core cid=1`` and so on; `action` is the verb: ``add``, ``set`` or ``remove``.

    `core_ids` are the cores that are named; None: only how many counts.
    """

    action: str
    unit: Unit
    amount: int = 0
    core_ids: tuple[int, ...] | None = None

    @property
    def command(self) -> str:
        """The name of the command."""
        return f"{self.action}-{self.unit[:-1]}"

    def of(self, now: int) -> int:
        """From what a domain has to what it is to have."""
        return {"add": now + self.amount, "set": self.amount, "remove": now - self.amount}[self.action]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the virtual CPUs of a domain run, and which strands it holds without using them."""

    vcpus: tuple[VcpuBinding, ...]
    idle: tuple[int, ...] = ()


def vcpus_on_a_core(constraints: Constraints, strands_per_core: int) -> int:
    """How many virtual CPUs of a domain fill a core."""
    return 1 if constraints.threading is Threading.MAX_IPC else strands_per_core


def cores_of(constraints: Constraints, strands_per_core: int) -> int:
    """How many cores a domain needs at least; with the whole-core constraint exactly so many."""
    return -(-constraints.vcpus // vcpus_on_a_core(constraints, strands_per_core))


def asked(name: str, now: Constraints, change: CpuChange, strands_per_core: int, *, bound: bool) -> Constraints:
    """What a domain is to have after a change.

    Args:
        name: of the domain.
        now: what it asks for so far.
        change: what is asked.
        strands_per_core: of this host.
        bound: whether it has been given what it asks for.

    Raises:
        RequestError: it would have no CPU, more than ``max-cores`` allows, or its cores would not stay whole.
    """
    if change.core_ids is not None:
        wanted = named(name, now, change.action, change.core_ids, vcpus_on_a_core(now, strands_per_core))
    elif now.core_ids:
        raise names_are_kept(name, now, change.action)
    elif change.unit is Unit.CORES:
        wanted = _with_cores(name, now, change, strands_per_core)
    elif not now.whole_core:
        wanted = replace(now, vcpus=change.of(now.vcpus))
    elif change.action == "set" and not bound:
        wanted = replace(now, vcpus=change.amount, whole_core=False, threading=Threading.MAX_THROUGHPUT)
    else:
        raise RequestError(
            f"LDom {name} has whole cores: change their number ('ldm {change.action}-core'); 'ldm set-vcpu' on the"
            " inactive domain takes the constraint away",
            code="whole-core",
        )
    if wanted.vcpus < 1 and change.core_ids != ():
        raise RequestError(
            f"LDom {name} has {_what_it_has(now, change.unit, strands_per_core)} and must keep at least one",
            code="last-vcpu",
            now=now.vcpus,
        )
    check_max_cores(name, wanted, strands_per_core)
    return wanted


def with_cpus(now: Constraints, wanted: Constraints) -> Constraints:
    """What a domain asks for with the virtual CPUs and cores of `wanted`; all else stays."""
    return replace(
        now,
        vcpus=wanted.vcpus,
        whole_core=wanted.whole_core,
        core_ids=wanted.core_ids,
        threading=wanted.threading,
    )


def unfitting(constraints: Constraints, strands_per_core: int) -> str:
    """Why the cores that a description names do not fit the rest of it; empty: they do."""
    if not constraints.core_ids:
        return ""
    vcpus = len(set(constraints.core_ids)) * vcpus_on_a_core(constraints, strands_per_core)
    if (
        constraints.whole_core
        and constraints.vcpus == vcpus
        and len(set(constraints.core_ids)) == len(constraints.core_ids)
    ):
        return ""
    return (
        f"it names the cores {listed(constraints.core_ids)}, whose virtual CPUs are {vcpus} here, and asks for"
        f" {constraints.vcpus}{'' if constraints.whole_core else ' and no whole cores'}"
    )


def check_max_cores(name: str, wanted: Constraints, strands_per_core: int) -> None:
    """Make sure that ``max-cores`` is kept.

    Raises:
        RequestError: it is not.
    """
    cores = cores_of(wanted, strands_per_core)
    if wanted.max_cores and cores > wanted.max_cores:
        raise RequestError(
            f"LDom {name} may have at most {_count(wanted.max_cores, 'core')} (max-cores={wanted.max_cores}), and needs"
            f" {cores} for {_count(wanted.vcpus, 'virtual CPU')}",
            code="max-cores",
        )


def lay_out(
    partition: Partition, name: str, constraints: Constraints, vids: Sequence[int], now: Bindings | None = None
) -> Layout:
    """Choose strands for the virtual CPUs `vids` of a domain; each keeps the one that it has, if that is possible.

    Args:
        partition: of the host, with what the domain has now.
        name: of the domain.
        constraints: what it asks for.
        vids: numbers of its virtual CPUs, ascending.
        now: what it has.

    Raises:
        NoResources: not enough strands, or whole cores, are free.
    """
    has = {} if now is None else {vcpu.vid: vcpu.strand for vcpu in now.vcpus}
    kept = {vid: strand for vid, strand in has.items() if vid in vids}
    if constraints.whole_core:
        return _on_whole_cores(partition, name, constraints, vids, kept)
    new = [vid for vid in vids if vid not in kept]
    preferred = {partition.core_of(strand) for strand in kept.values()} if constraints.max_cores else set[int]()
    strands = partition.pick_strands(len(new), name, already=len(kept), preferred=preferred)
    layout = Layout(_bound(partition, kept | dict(zip(new, strands, strict=True))))
    cores = {vcpu.core for vcpu in layout.vcpus}
    if constraints.max_cores and len(cores) > constraints.max_cores:
        raise NoResources(
            f"LDom {name} may have at most {_count(constraints.max_cores, 'core')}, and the free strands are on others:"
            " free some of the same cores, or give it whole ones ('ldm set-core')",
            code="max-cores",
        )
    return layout


def renumbered(vcpus: Iterable[VcpuBinding]) -> tuple[VcpuBinding, ...]:
    """The virtual CPUs of a machine that is made afresh: their numbers have no gaps."""
    return tuple(replace(vcpu, vid=vid) for vid, vcpu in enumerate(vcpus))


def fresh(bindings: Bindings) -> Bindings:
    """The bindings of a guest that is about to start: nothing is parked."""
    return replace(bindings, vcpus=renumbered(bindings.vcpus), parked=())


# Inside


def _with_cores(name: str, now: Constraints, change: CpuChange, strands_per_core: int) -> Constraints:
    on_a_core = vcpus_on_a_core(now, strands_per_core)
    if not now.whole_core and change.action != "set" and now.vcpus % on_a_core:
        raise RequestError(
            f"LDom {name} has {_count(now.vcpus, 'virtual CPU')}, and no whole cores of"
            f" {_count(strands_per_core, 'strand')}: give it whole ones first ('ldm set-core NUMBER {name}')",
            code="whole-core",
        )
    cores = change.of(cores_of(now, strands_per_core))
    return replace(now, vcpus=cores * on_a_core, whole_core=True)


def _on_whole_cores(
    partition: Partition, name: str, constraints: Constraints, vids: Sequence[int], kept: Mapping[int, int]
) -> Layout:
    per_core = partition.size.strands_per_cpu
    on_a_core = vcpus_on_a_core(constraints, per_core)
    if constraints.core_ids:
        check_named(partition, name, constraints.core_ids)
    wanted = len(constraints.core_ids) or -(-len(vids) // on_a_core)
    used = Counter(partition.core_of(strand) for strand in kept.values())
    usable = constraints.core_ids or sorted(partition.whole_cores(name), key=lambda core: (-used[core], core))
    if len(usable) < wanted:
        raise NoResources(
            f"LDom {name} cannot get {_count(wanted, 'whole core')}: {len(usable)} of this host's"
            f" {len(partition.size.cpus)} are free or its own; 'ldm list-devices -a core' shows who has the others",
            code="no-cores",
            wanted=wanted,
            free=len(usable),
        )
    chosen = sorted(usable[:wanted])
    taken: dict[int, int] = {}
    room = dict.fromkeys(chosen, on_a_core)
    for vid, strand in kept.items():
        core = partition.core_of(strand)
        if room.get(core, 0) > 0:
            taken[vid] = strand
            room[core] -= 1
    free = [strand for core in chosen for strand in partition.strands_of(core) if strand not in taken.values()]
    for vid in vids:
        if vid not in taken:
            strand = next(strand for strand in free if room[partition.core_of(strand)] > 0)
            taken[vid] = strand
            free.remove(strand)
            room[partition.core_of(strand)] -= 1
    return Layout(_bound(partition, taken), tuple(free))


def _bound(partition: Partition, strands: Mapping[int, int]) -> tuple[VcpuBinding, ...]:
    return tuple(VcpuBinding(vid, strand, partition.core_of(strand)) for vid, strand in sorted(strands.items()))


def _what_it_has(now: Constraints, unit: Unit, strands_per_core: int) -> str:
    if unit is Unit.CORES:
        return _count(cores_of(now, strands_per_core), "core")
    return _count(now.vcpus, "virtual CPU")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
